//! The real program on port 0, with files for discovery and small servers for endpoints.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{net::SocketAddr, time::Duration};

use ferrule_config::{FORMAT, Mesh, Service, shard};
use ferrule_proxy::{
    app::{self, App},
    settings::Settings,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A directory of objects that a proxy discovers.
pub struct World {
    directory: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    /// Where the objects lie.
    pub fn path(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Puts an object into a file of this name.
    pub fn write(&self, name: &str, json: &serde_json::Value) {
        let temporary = self.directory.path().join(format!(".{name}"));
        std::fs::write(&temporary, json.to_string()).expect("writable");
        std::fs::rename(temporary, self.directory.path().join(name)).expect("renamable");
    }

    /// A Service `shop/NAME` with port 80 and these endpoints.
    pub fn service(&self, name: &str, endpoints: &[SocketAddr]) {
        self.service_speaking(name, endpoints, None);
    }

    /// The same, with what its port says of its protocol.
    pub fn service_speaking(&self, name: &str, endpoints: &[SocketAddr], app_protocol: Option<&str>) {
        self.write(
            &format!("{name}.json"),
            &serde_json::json!({
                "kind": "Service",
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"ports": [{"name": "http", "port": 80, "appProtocol": app_protocol}]},
            }),
        );
        for index in 0..4 {
            let endpoint = endpoints.get(index);
            self.write(
                &format!("{name}-{index}.json"),
                &serde_json::json!({
                    "kind": "EndpointSlice",
                    "metadata": {
                        "name": format!("{name}-{index}"),
                        "namespace": "shop",
                        "labels": {"kubernetes.io/service-name": name},
                    },
                    "endpoints": endpoint.iter().map(|it| serde_json::json!({"addresses": [it.ip()]})).collect::<Vec<_>>(),
                    "ports": endpoint.iter().map(|it| serde_json::json!({"name": "http", "port": it.port()})).collect::<Vec<_>>(),
                }),
            );
        }
    }

    /// The configuration of the Service `shop/NAME`.
    pub fn configure(&self, name: &str, service: Service) {
        let mesh = Mesh {
            format: FORMAT,
            namespace: "shop".into(),
            services: [(name.to_owned(), service)].into(),
            ..Mesh::default()
        };
        self.mesh(&mesh);
    }

    /// The configuration of a namespace.
    pub fn mesh(&self, mesh: &Mesh) {
        let data = shard::split(mesh).expect("small").remove(0);
        self.config_map(&serde_json::json!(data));
    }

    /// A ConfigMap with this data.
    pub fn config_map(&self, data: &serde_json::Value) {
        let metadata = serde_json::json!({"name": "ferrule", "namespace": "shop"});
        self.write(
            "ferrule.json",
            &serde_json::json!({"kind": "ConfigMap", "metadata": metadata, "data": data}),
        );
    }

    /// A proxy with an outbound listener for port 80 of each Service named, and an inbound one for each application.
    pub async fn proxy(&self, services: &[&str], applications: &[SocketAddr]) -> App {
        self.proxy_with(services, applications, &[]).await
    }

    /// The same, with these variables beside its own.
    pub async fn proxy_with(
        &self,
        services: &[&str],
        applications: &[SocketAddr],
        variables: &[(&str, &str)],
    ) -> App {
        let outbound: Vec<_> = services.iter().map(|name| format!("127.0.0.1:0=shop/{name}:80")).collect();
        let inbound: Vec<_> = applications.iter().map(|address| format!("127.0.0.1:0={address}")).collect();
        let settings = Settings::from_env(|variable| {
            if let Some((_, value)) = variables.iter().find(|(name, _)| *name == variable) {
                return Some((*value).to_owned());
            }
            Some(match variable {
                "FERRULE_DISCOVERY" => format!("dir:{}", self.directory.path().display()),
                "FERRULE_REDIRECTED" => "false".into(),
                "FERRULE_OUTBOUND_LISTENERS" => outbound.join(","),
                "FERRULE_INBOUND_LISTENERS" => inbound.join(","),
                "FERRULE_ADMIN" => "127.0.0.1:0".into(),
                "FERRULE_WORKERS" => "1".into(),
                "FERRULE_DRAIN_SECONDS" => "5".into(),
                _ => return None,
            })
        });
        app::build(&settings.expect("settings")).await.expect("the proxy starts")
    }
}

/// A server that answers the n-th connection's requests with what `answer` makes of each head.
pub async fn server(answer: impl Fn(&str) -> String + Clone + Send + 'static) -> SocketAddr {
    serving(move |mut stream| {
        let answer = answer.clone();
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let response = answer(&head);
                if response.is_empty() || stream.write_all(response.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// A server that does this with each of its connections.
pub async fn serving<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream));
        }
    });
    address
}

/// Gives back what it is sent, until its end.
pub async fn echoed(stream: &mut TcpStream) -> std::io::Result<u64> {
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await
}

/// The answer of a server that changes to WebSocket.
pub const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A response with this body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Reads one head; `None` at the end of the connection.
pub async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.ok()?;
        head.push(byte);
    }
    String::from_utf8(head).ok()
}

/// Sends bytes and reads all that comes back until the end of the connection or a pause of 300 ms.
pub async fn talk(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the proxy listens");
    stream.write_all(bytes.as_bytes()).await.expect("sent");
    read_all(&mut stream).await
}

pub async fn read_all(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match tokio::time::timeout(Duration::from_millis(300), stream.read(&mut piece)).await {
            Ok(Ok(count @ 1..)) => seen.extend_from_slice(&piece[..count]),
            _ => return String::from_utf8_lossy(&seen).into_owned(),
        }
    }
}

/// A GET request that closes afterwards.
pub fn get(path: &str, extra: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{extra}Connection: close\r\n\r\n")
}

/// Repeats until it holds, for at most five seconds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    for _ in 0..250 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

/// Sum of a metric's series that have at least these labels: `name{a="b",c="d"}`.
pub fn counted(metrics: &str, series: &str) -> u64 {
    let (name, labels) = parts(series);
    let lines = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    let matching = lines.filter(|(series, _)| {
        let (each, all) = parts(series);
        each == name && labels.iter().all(|label| all.contains(label))
    });
    matching.map(|(_, value)| value.parse::<u64>().unwrap_or_else(|_| panic!("{value} is no count"))).sum()
}

/// Name and labels. None of the values that are asked for here holds a comma.
fn parts(series: &str) -> (&str, Vec<&str>) {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    (name, labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect())
}
