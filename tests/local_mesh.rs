//! `ferrule local` as a user runs it: the real programs, on free ports, in temporary directories.
//!
//! The test itself is the application: it listens where `processes.yaml` says that the processes do, which are
//! only there to be started and stopped.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

/// For everything that happens at once on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);

const SERVICES: &str = "\
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
";

#[test]
fn an_edit_is_in_force_in_every_proxy_at_once() {
    let mesh = Mesh::start(&[("services.yaml", SERVICES), ("route.yaml", &route("0"))]);
    let mut clients: Vec<_> = mesh.clients.iter().map(|address| Client::new(*address)).collect();
    for client in &mut clients {
        client.await_generation("0");
    }
    let mut times = Vec::new();
    for edit in 1..=20 {
        let began = Instant::now();
        mesh.write("route.yaml", &route(&edit.to_string()));
        for client in &mut clients {
            client.await_generation(&edit.to_string());
        }
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let (p50, p95) = (times[9], times[18]);
    println!("20 edits in force in {} proxies: p50 {p50:?}, p95 {p95:?}, all {times:?}", clients.len());
    assert!(p50 < Duration::from_millis(100), "p50 {p50:?}");
    assert!(p95 < Duration::from_millis(500), "p95 {p95:?}, with room for a busy machine");
}

#[test]
fn a_broken_file_is_named_with_its_line_and_the_last_good_state_goes_on() {
    let mesh = Mesh::start(&[("services.yaml", SERVICES), ("route.yaml", &route("good"))]);
    let mut client = Client::new(mesh.clients[0]);
    client.await_generation("good");

    mesh.write("route.yaml", &route("bad").replace("targetRefs", "targetRef"));
    let line = mesh.line("an error", |line| line.starts_with("error"));
    assert!(line.contains("route.yaml:5:3: unknown field `targetRef`"), "{line}");
    // Another file is read all the same.
    mesh.write(
        "services.yaml",
        &format!("{SERVICES}---\n{}", SERVICES.replace("name: cart", "name: cart-v2")),
    );
    mesh.line("the other edit", |line| line.starts_with("applied"));
    assert_eq!(client.generation().as_deref(), Some("good"));

    mesh.write("route.yaml", &route("better"));
    mesh.line("the repair", |line| line == "repaired  route.yaml");
    client.await_generation("better");
}

#[test]
fn a_route_that_cannot_be_accepted_says_why_until_it_can() {
    let mesh = Mesh::start(&[("route.yaml", &route("1"))]);
    let refused = mesh.seen("refused   Route shop/cart: ");
    assert!(refused.contains("TargetNotFound"), "{refused}");
    let note = mesh.seen("note      process web-1 ");
    assert_eq!(note, "note      process web-1 uses port 80 of Service shop/cart, which does not exist");

    mesh.write("services.yaml", SERVICES);
    mesh.line("the Route's acceptance", |line| line == "accepted  Route shop/cart");
    Client::new(mesh.clients[0]).await_generation("1");
}

#[test]
fn without_a_route_requests_are_balanced_over_the_service() {
    let mesh = Mesh::start(&[("services.yaml", SERVICES)]);
    let mut client = Client::new(mesh.clients[0]);
    let mut bodies = std::collections::BTreeSet::new();
    let until = Instant::now() + PATIENCE;
    while bodies.len() < 2 && Instant::now() < until {
        bodies.extend(client.get().filter(|answer| answer.status == 200).map(|answer| answer.body));
    }
    assert_eq!(bodies.into_iter().collect::<Vec<_>>(), ["cart-1", "cart-2"]);
}

#[test]
fn ctrl_c_ends_all_that_was_started() {
    let mut mesh = Mesh::start(&[("services.yaml", SERVICES)]);
    let descendants = descendants(mesh.id());
    assert!(descendants.len() >= 8, "four processes with a proxy each: {descendants:?}");
    kill_process(mesh.id(), Signal::INT).expect("it runs");
    let status = mesh.ended();
    assert!(status.success(), "{status}");
    assert_eq!(alive(&descendants), []);
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_outlives_a_killed_ferrule() {
    let mut mesh = Mesh::start(&[("services.yaml", SERVICES)]);
    let descendants = descendants(mesh.id());
    kill_process(mesh.id(), Signal::KILL).expect("it runs");
    mesh.ended();
    let until = Instant::now() + PATIENCE;
    while !alive(&descendants).is_empty() && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(alive(&descendants), []);
}

#[test]
fn it_ends_with_the_last_process() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let processes = "processes: [{name: job, command: [sh, -c, 'echo $GREETING'], env: {GREETING: hello}}]";
    fs::write(folder.path().join("processes.yaml"), processes).expect("written");
    let output = ferrule(folder.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("[job] hello\n"), "{said}");
    assert!(said.contains("ended     job (exit status: 0)\n"), "{said}");
}

#[test]
fn what_keeps_it_from_starting_is_named() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let error = |command: &mut Command| {
        let output = command.output().expect("it runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = error(&mut ferrule(folder.path()));
    assert!(text.contains("processes.yaml") && text.contains("docs/local.md"), "{text}");
    let text = error(&mut ferrule(&folder.path().join("missing")));
    assert!(text.contains("missing"), "{text}");
    fs::write(folder.path().join("processes.yaml"), "processes: []").expect("written");
    let text = error(ferrule(folder.path()).env("FERRULE_PROXY_BIN", "/nowhere/ferrule-proxy"));
    assert!(text.contains("/nowhere/ferrule-proxy") && text.contains("FERRULE_PROXY_BIN"), "{text}");
}

/// A Route to the Service itself whose responses carry `generation`.
fn route(generation: &str) -> String {
    format!(
        "\
apiVersion: ferrule.dev/v1alpha1
kind: Route
metadata: {{name: cart, namespace: shop}}
spec:
  targetRefs: [{{name: cart}}]
  rules:
  - responseHeaders: {{set: [{{name: x-generation, value: '{generation}'}}]}}
"
    )
}

/// A running `ferrule local` with two processes that use the Service `cart` and two that are behind it.
struct Mesh {
    folder: TempDir,
    child: Child,
    lines: mpsc::Receiver<String>,
    /// What was said until it was ready.
    before: Vec<String>,
    /// Where the proxies of the two clients listen.
    clients: Vec<SocketAddr>,
}

impl Mesh {
    fn start(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let clients: Vec<_> = (0..2).map(|_| free_address()).collect();
        let mut processes = String::from("processes:\n");
        for (number, listen) in (1..).zip(&clients) {
            processes += &format!(
                "- {{name: web-{number}, namespace: shop, command: [sleep, '600'], uses: [{{listen: '{listen}', service: cart, port: 80}}]}}\n"
            );
        }
        for number in 1..=2 {
            let address = application(format!("cart-{number}"));
            processes += &format!(
                "- {{name: cart-{number}, namespace: shop, labels: {{app: cart}}, command: [sleep, '600'], ports: [{{port: 8080, address: '{address}'}}]}}\n"
            );
        }
        fs::write(folder.path().join("processes.yaml"), processes).expect("written");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("written");
        }
        let mut child = ferrule(folder.path()).stdout(Stdio::piped()).spawn().expect("it runs");
        let output = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                println!("| {line}");
                sender.send(line).ok();
            }
        });
        let mut mesh = Self { folder, child, lines, before: Vec::new(), clients };
        let mut before = Vec::new();
        mesh.line("readiness", |line| {
            before.push(line.to_owned());
            line.starts_with("ready")
        });
        mesh.before = before;
        mesh
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Writes a file as many editors do, in place.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("written");
    }

    /// The line, said before it was ready, that begins like this.
    fn seen(&self, start: &str) -> String {
        let line = self.before.iter().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("{start:?} is not among {:?}", self.before)).clone()
    }

    /// The next line that fits.
    fn line(&self, what: &str, mut fits: impl FnMut(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line =
                self.lines.recv_timeout(left).unwrap_or_else(|error| panic!("waiting for {what}: {error}"));
            if fits(&line) {
                return line;
            }
        }
    }

    fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_process(self.id(), Signal::TERM).ok();
            self.child.wait().ok();
        }
    }
}

/// An HTTP/1.1 client with one connection, opened anew when it was closed.
struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

struct Answer {
    status: u16,
    generation: Option<String>,
    body: String,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    fn await_generation(&mut self, generation: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let seen = self.generation();
            if seen.as_deref() == Some(generation) {
                return;
            }
            assert!(Instant::now() < until, "generation {generation} is not in force, but {seen:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn generation(&mut self) -> Option<String> {
        self.get().and_then(|answer| answer.generation)
    }

    /// `None` if there was no whole answer.
    fn get(&mut self) -> Option<Answer> {
        let answer = self.exchange();
        if answer.is_none() {
            self.stream = None;
        }
        answer
    }

    fn exchange(&mut self) -> Option<Answer> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).ok()?;
                stream.set_nodelay(true).ok()?;
                stream.set_read_timeout(Some(PATIENCE)).ok()?;
                self.stream.insert(BufReader::new(stream))
            }
        };
        stream.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n").ok()?;
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let (mut generation, mut length) = (None, 0);
        loop {
            line.clear();
            stream.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "x-generation" => generation = Some(value.to_owned()),
                "content-length" => length = value.parse().ok()?,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        Some(Answer { status, generation, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// Answers every request with its name, until the test's process ends.
fn application(name: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let name = name.clone();
            thread::spawn(move || answer(&stream, &name));
        }
    });
    address
}

fn answer(mut stream: &TcpStream, name: &str) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    loop {
        while !lines.next()?.ok()?.is_empty() {}
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Every process that this one started, and those that they did.
fn descendants(of: Pid) -> Vec<Pid> {
    let output = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output().expect("ps is there");
    let pairs: Vec<(i32, i32)> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
            Some((numbers.next()??, numbers.next()??))
        })
        .collect();
    let mut found = vec![of.as_raw_nonzero().get()];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(pairs.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        next += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

fn alive(ids: &[Pid]) -> Vec<Pid> {
    ids.iter().copied().filter(|id| test_kill_process(*id).is_ok()).collect()
}

fn ferrule(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrule"));
    command.arg("local").arg(directory).env("FERRULE_PROXY_BIN", proxy());
    command
}

/// The proxy's program, which belongs to another package: Cargo builds it for this one's tests only when asked.
fn proxy() -> &'static Path {
    static PROXY: OnceLock<PathBuf> = OnceLock::new();
    PROXY.get_or_init(|| {
        let own = Path::new(env!("CARGO_BIN_EXE_ferrule"));
        let target =
            own.ancestors().nth(2).expect("programs lie in a profile's directory of the target directory");
        let build = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "ferrule-proxy", "--bin", "ferrule-proxy", "--target-dir"])
            .arg(target)
            .status();
        assert!(build.is_ok_and(|status| status.success()), "ferrule-proxy does not build");
        target.join("debug/ferrule-proxy")
    })
}
