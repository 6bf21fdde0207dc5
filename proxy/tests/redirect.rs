//! The redirect on the machine's own kernel: two network namespaces joined by a veth pair, one of them the pod.
//!
//! ```text
//!   outside 10.77.0.1, fd77::1 ──veth── pod 10.77.0.2, fd77::2
//! ```
//!
//! Every listener says its name and the original destination that the kernel reports, so that a client learns
//! where its connection ended. The namespaces have no name: they are gone with the last thread and file that
//! refers to them, however the test ends.
#![cfg(target_os = "linux")]

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use ferrule_proxy::redirect::{
    self, Config, Error,
    rules::{Chain, Hook, Table},
};
use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::{Uid, geteuid, gettid, setfsuid},
};
use socket2::SockRef;

const OUTSIDE: [&str; 2] = ["10.77.0.1", "fd77::1"];
const POD: [&str; 2] = ["10.77.0.2", "fd77::2"];
const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];
const PROXY_UID: u32 = 15100;

#[test]
fn connections_out_of_the_pod_reach_the_outbound_listener_with_their_destination() {
    let Some(net) = Net::new() else { return };
    net.pod.redirect(&Config::default());
    for address in OUTSIDE {
        let destination = at(address, 8080);
        assert_eq!(net.pod.connect(destination), format!("outbound {destination}"));
    }
}

#[test]
fn connections_into_the_pod_reach_the_inbound_listener_with_their_destination() {
    let Some(net) = Net::new() else { return };
    net.pod.redirect(&Config::default());
    for address in POD {
        let destination = at(address, 8080);
        assert_eq!(net.outside.connect(destination), format!("inbound {destination}"));
    }
}

#[test]
fn without_the_redirect_everything_arrives_where_it_was_sent() {
    let Some(net) = Net::new() else { return };
    for family in 0..2 {
        assert_eq!(net.pod.connect(at(OUTSIDE[family], 8080)), "peer");
        assert_eq!(net.outside.connect(at(POD[family], 8080)), "application");
    }
}

#[test]
fn what_stays_in_the_pod_is_not_redirected() {
    let Some(net) = Net::new() else { return };
    net.pod.redirect(&Config::default());
    for address in LOOPBACK.iter().chain(&POD) {
        assert_eq!(net.pod.connect(at(address, 8080)), "application", "{address}");
        assert_eq!(
            net.pod.as_user(PROXY_UID).connect(at(address, 8080)),
            "application",
            "{address} from the proxy"
        );
    }
}

#[test]
fn the_proxys_user_and_excluded_users_are_not_redirected() {
    let Some(net) = Net::new() else { return };
    net.pod.redirect(&Config { exclude_uids: [4711].into(), ..Config::default() });
    for address in OUTSIDE {
        let destination = at(address, 8080);
        assert_eq!(net.pod.as_user(PROXY_UID).connect(destination), "peer");
        assert_eq!(net.pod.as_user(4711).connect(destination), "peer");
        assert_eq!(net.pod.as_user(4712).connect(destination), format!("outbound {destination}"));
    }
}

#[test]
fn excluded_ports_are_not_redirected_and_others_are() {
    let Some(net) = Net::new() else { return };
    let config = Config {
        exclude_inbound_ports: [9090].into(),
        exclude_outbound_ports: [9091].into(),
        ..Config::default()
    };
    net.pod.redirect(&config);
    for family in 0..2 {
        let [peer, pod] = [OUTSIDE[family], POD[family]];
        assert_eq!(net.pod.connect(at(peer, 9091)), "peer");
        assert_eq!(net.pod.connect(at(peer, 9090)), format!("outbound {}", at(peer, 9090)));
        assert_eq!(net.outside.connect(at(pod, 9090)), "application");
        assert_eq!(net.outside.connect(at(pod, 9091)), format!("inbound {}", at(pod, 9091)));
    }
}

#[test]
fn excluded_networks_are_not_redirected_and_their_neighbours_are() {
    let Some(net) = Net::new() else { return };
    let networks = ["10.77.0.0/31", "fd77::/127"].map(|text| text.parse().expect("a network"));
    net.pod.redirect(&Config { exclude_outbound_addresses: networks.into(), ..Config::default() });
    for address in OUTSIDE {
        assert_eq!(net.pod.connect(at(address, 8080)), "peer");
    }
    // Nobody has these addresses, and the redirect does not mind.
    for address in ["10.77.0.3", "fd77::3"] {
        let destination = at(address, 8080);
        assert_eq!(net.pod.connect(destination), format!("outbound {destination}"));
    }
}

#[test]
fn a_peer_that_connects_to_the_proxys_own_listener_is_told_apart_by_the_destination() {
    let Some(net) = Net::new() else { return };
    net.pod.redirect(&Config::default());
    for address in POD {
        let [outbound, inbound] = [at(address, 15101), at(address, 15102)];
        assert_eq!(net.outside.connect(outbound), format!("outbound {outbound}"));
        assert_eq!(net.outside.connect(inbound), format!("inbound {inbound}"));
    }
}

#[test]
fn udp_is_left_alone_in_both_directions() {
    let Some(net) = Net::new() else { return };
    net.pod.redirect(&Config::default());
    for family in 0..2 {
        let (peer, pod) = (at(OUTSIDE[family], 5353), at(POD[family], 5353));
        let outside = net.outside.enter(|| UdpSocket::bind(peer).expect("the port is free"));
        let inside = net.pod.enter(|| UdpSocket::bind(pod).expect("the port is free"));
        for (from, to) in [(&inside, &outside), (&outside, &inside)] {
            let target = to.local_addr().expect("bound");
            from.send_to(b"ping", target).expect("sent");
            to.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            let mut buffer = [0; 8];
            let (length, source) = to.recv_from(&mut buffer).expect("the datagram arrives where it was sent");
            assert_eq!((&buffer[..length], source), (&b"ping"[..], from.local_addr().expect("bound")));
        }
    }
}

#[test]
fn a_second_run_replaces_the_first() {
    let Some(net) = Net::new() else { return };
    net.pod.redirect(&Config { exclude_outbound_ports: [8080].into(), ..Config::default() });
    assert_eq!(net.pod.connect(at(OUTSIDE[0], 8080)), "peer");
    // `run` reads the table back: twice the rules would be an error.
    net.pod.redirect(&Config::default());
    net.pod.redirect(&Config::default());
    let destination = at(OUTSIDE[0], 8080);
    assert_eq!(net.pod.connect(destination), format!("outbound {destination}"));
}

#[test]
fn a_refused_run_changes_nothing_and_names_what_was_refused() {
    let Some(net) = Net::new() else { return };
    net.pod.redirect(&Config::default());
    let good = Table::redirect(&Config { exclude_outbound_ports: [8080].into(), ..Config::default() });
    // The kernel takes names of up to 255 bytes.
    let bad = Chain { name: "x".repeat(300), hook: Hook::Output, rules: Vec::new() };
    let table = Table { chains: good.chains.into_iter().chain([bad]).collect(), ..good };
    let error = net.pod.enter(|| redirect::apply(&table)).expect_err("the name is too long");
    let Error::Refused { message, .. } = error else { panic!("{error}") };
    assert!(message.starts_with("add chain inet ferrule xxx"), "{message}");
    let destination = at(OUTSIDE[0], 8080);
    assert_eq!(net.pod.connect(destination), format!("outbound {destination}"), "the first run still holds");
}

#[test]
fn hundreds_of_exclusions_fit_into_one_transaction() {
    let Some(net) = Net::new() else { return };
    let config = Config {
        exclude_outbound_ports: (20_000..20_300).collect(),
        exclude_outbound_addresses: (0..=255)
            .map(|n| format!("192.0.2.{n}").parse().expect("valid"))
            .collect(),
        ..Config::default()
    };
    net.pod.redirect(&config);
    let destination = at(OUTSIDE[0], 8080);
    assert_eq!(net.pod.connect(destination), format!("outbound {destination}"));
}

/// The two network namespaces with their listeners.
struct Net {
    outside: Namespace,
    pod: Namespace,
}

impl Net {
    /// `None`, and a line that says so, where the test has no right to make namespaces.
    fn new() -> Option<Self> {
        if !geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        let (outside, pod) = (Namespace::new(), Namespace::new());
        pod.enter(|| {
            // `ip` finds the pod's namespace by the id of a thread that is in it.
            let thread = gettid().to_string();
            outside.enter(|| {
                ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &thread]);
            });
        });
        outside.configure(OUTSIDE);
        pod.configure(POD);
        for port in [8080, 9090, 9091] {
            outside.listen("peer", port, false);
            pod.listen("application", port, false);
        }
        pod.listen("outbound", 15101, true);
        pod.listen("inbound", 15102, true);
        Some(Self { outside, pod })
    }
}

/// A network namespace without a name.
struct Namespace {
    file: File,
    uid: Option<u32>,
}

impl Namespace {
    fn new() -> Self {
        let unshared = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
            File::open("/proc/thread-self/ns/net").expect("every thread has a network namespace")
        });
        Self { file: unshared.join().expect("the thread ends well"), uid: None }
    }

    /// The same namespace, seen by a thread whose sockets belong to this user.
    fn as_user(&self, uid: u32) -> Self {
        Self { file: self.file.try_clone().expect("a file can be cloned"), uid: Some(uid) }
    }

    /// Runs `work` in a thread of its own inside the namespace: on Linux both the network namespace and the
    /// user that a socket belongs to are properties of a thread.
    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            if let Some(uid) = self.uid {
                setfsuid(Uid::from_raw(uid));
            }
            work()
        };
        thread::scope(|scope| {
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn configure(&self, [v4, v6]: [&str; 2]) {
        self.enter(|| {
            ip(&["link", "set", "lo", "up"]);
            ip(&["link", "set", "eth0", "up"]);
            ip(&["address", "add", &format!("{v4}/24"), "dev", "eth0"]);
            ip(&["address", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"]);
        });
    }

    fn redirect(&self, config: &Config) {
        self.enter(|| redirect::run(config)).expect("the kernel takes the rules");
    }

    /// Tells every client `name`, and with `original` where it wanted to go.
    fn listen(&self, name: &'static str, port: u16, original: bool) {
        let listener =
            self.enter(|| TcpListener::bind(at("::", port)).expect("a new namespace has all ports free"));
        // Left running: it ends with the test's process, and the namespace with it.
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let text = if original {
                    format!("{name} {}", original_destination(&stream))
                } else {
                    name.to_owned()
                };
                stream.write_all(text.as_bytes()).ok();
            }
        });
    }

    /// Connects and returns what the listener says.
    fn connect(&self, destination: SocketAddr) -> String {
        self.enter(|| {
            let stream = TcpStream::connect_timeout(&destination, Duration::from_secs(5));
            let mut stream =
                stream.unwrap_or_else(|error| panic!("cannot connect to {destination}: {error}"));
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("the listener answers and closes");
            text
        })
    }
}

/// SO_ORIGINAL_DST of a connection to a dual-stack listener: level IPv4 for a mapped peer, level IPv6 otherwise.
fn original_destination(stream: &TcpStream) -> SocketAddr {
    let socket = SockRef::from(stream);
    let v4 = stream.peer_addr().expect("connected").ip().to_canonical().is_ipv4();
    let original = if v4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match original {
        Ok(address) => address.as_socket().expect("an IP address"),
        // The kernel knows no connection tracking for it: nothing was redirected.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let local = stream.local_addr().expect("connected");
            SocketAddr::new(local.ip().to_canonical(), local.port())
        }
        Err(error) => panic!("no original destination: {error}"),
    }
}

fn at(address: &str, port: u16) -> SocketAddr {
    let address: IpAddr = address.parse().expect("an address");
    SocketAddr::new(address, port)
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {error}", arguments.join(" "));
}
