//! The proxies that are compared. Each is set up as its own guide recommends for speed, and none is asked for more
//! than the others: one thread, connections kept on both sides, no log, no limit that the load would meet.

mod envoy;
mod ferrule;
mod haproxy;
mod nginx;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use clap::ValueEnum;

use crate::{authority::Material, process::Program};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Contender {
    /// No proxy: the load asks the backend.
    Direct,
    /// Ferrule.
    Ferrule,
    /// HAProxy, which the others are compared with.
    Haproxy,
    /// nginx.
    Nginx,
    /// Envoy.
    Envoy,
}

impl Contender {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 5] = [Self::Direct, Self::Ferrule, Self::Haproxy, Self::Nginx, Self::Envoy];

    /// As it is written in the tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Ferrule => "Ferrule",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
        }
    }
}

/// What a proxy carries, on both of its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC: HTTP/2 with prior knowledge.
    Grpc,
    /// Bytes.
    Tcp,
}

/// A listener of a proxy, and the endpoints behind it.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where the proxy listens.
    pub listen: SocketAddr,
    /// What it balances over.
    pub endpoints: Vec<SocketAddr>,
}

/// One proxy on the road.
#[derive(Clone, Debug)]
pub struct Hop {
    /// What it carries.
    pub carry: Carry,
    /// Whether it stands before the application, as an inbound sidecar does.
    pub inbound: bool,
    /// Its listeners.
    pub ways: Vec<Way>,
    /// Where it may tell of itself.
    pub admin: SocketAddr,
    /// Certificates, if what goes between two proxies is encrypted: the outbound one connects with TLS 1.3, the inbound
    /// one takes nothing else, and each wants the other's certificate.
    pub tls: Option<Material>,
}

impl Hop {
    /// Certificates for its listeners.
    fn accepts(&self) -> Option<&Material> {
        self.tls.as_ref().filter(|_| self.inbound)
    }

    /// Certificates for its connections to endpoints.
    fn connects(&self) -> Option<&Material> {
        self.tls.as_ref().filter(|_| !self.inbound)
    }
}

/// Where the proxies' binaries are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// Ferrule's proxy.
    pub ferrule: PathBuf,
    /// What `bench/deps.sh` has fetched.
    pub cache: PathBuf,
}

impl Binaries {
    /// Makes a proxy ready to start: writes its configuration into `directory`.
    ///
    /// # Errors
    /// When a file cannot be written, or the binary is not there.
    pub fn prepare(&self, contender: Contender, hop: &Hop, directory: &Path) -> anyhow::Result<Program> {
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            anyhow::Ok(path.display().to_string())
        };
        let mut program = self.program(contender)?;
        match contender {
            Contender::Direct => anyhow::bail!("direct has no proxy"),
            Contender::Ferrule => {
                let objects = directory.join("objects");
                std::fs::create_dir_all(&objects)?;
                for (name, object) in ferrule::objects(hop)? {
                    write(&format!("objects/{name}.json"), &object.to_string())?;
                }
                program.environment = ferrule::environment(hop, &objects);
            }
            Contender::Haproxy => {
                let file = write("haproxy.cfg", &haproxy::config(hop))?;
                program.arguments = vec!["-db".into(), "-f".into(), file];
            }
            Contender::Nginx => {
                let modules = self.debian().join("usr/lib/nginx/modules");
                let file = write("nginx.conf", &nginx::config(hop, directory, &modules))?;
                program.arguments = vec!["-c".into(), file, "-e".into(), "stderr".into()];
            }
            Contender::Envoy => {
                let file = write("envoy.json", &envoy::config(hop).to_string())?;
                program.arguments =
                    ["-c", &file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
                        .map(str::to_owned)
                        .to_vec();
            }
        }
        Ok(program)
    }

    /// The program's version, as it says itself.
    ///
    /// # Errors
    /// When it does not run.
    pub fn version(&self, contender: Contender) -> anyhow::Result<String> {
        if contender == Contender::Direct {
            return Ok(String::new());
        }
        let program = self.program(contender)?;
        let flag =
            if matches!(contender, Contender::Haproxy | Contender::Nginx) { "-v" } else { "--version" };
        let output = Command::new(&program.binary)
            .arg(flag)
            .envs(program.environment)
            .output()
            .with_context(|| format!("running {}", program.binary.display()))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        version_in(&text).with_context(|| format!("no version in {text:?}"))
    }

    fn program(&self, contender: Contender) -> anyhow::Result<Program> {
        let binary = match contender {
            Contender::Direct | Contender::Ferrule => self.ferrule.clone(),
            Contender::Haproxy => self.debian().join("usr/sbin/haproxy"),
            Contender::Nginx => self.debian().join("usr/sbin/nginx"),
            Contender::Envoy => self.cache.join("envoy"),
        };
        anyhow::ensure!(
            binary.exists(),
            "{} is not there: `make bench-deps` fetches the peers, `make bench` builds Ferrule",
            binary.display()
        );
        let mut program = Program { binary, ..Program::default() };
        if matches!(contender, Contender::Haproxy | Contender::Nginx) {
            let libraries = self.debian().join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
            program.environment = vec![("LD_LIBRARY_PATH".into(), libraries.display().to_string())];
        }
        Ok(program)
    }

    fn debian(&self) -> PathBuf {
        self.cache.join("debian/root")
    }
}

/// So many different addresses on which nobody listens now.
///
/// # Errors
/// Those of the system.
pub fn free_addresses(count: usize) -> std::io::Result<Vec<SocketAddr>> {
    // All are held until the last one is known, or one could be given twice.
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    listeners.iter().map(TcpListener::local_addr).collect()
}

/// The first run of digits and dots with two dots in it, and what Debian has put behind it.
fn version_in(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || c == '/');
    let is_version = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.split('-').next().is_some_and(|it| it.split('.').count() == 3)
    };
    words.into_iter().find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn versions_are_found_in_what_the_programs_say() {
        let found = |text| version_in(text).unwrap_or_default();
        assert_eq!(found("ferrule-proxy 0.1.0"), "0.1.0");
        assert_eq!(
            found("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/"),
            "2.6.12-1+deb12u4"
        );
        assert_eq!(found("nginx version: nginx/1.22.1"), "1.22.1");
        assert_eq!(found("\nenvoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL"), "1.40.0");
    }
}
