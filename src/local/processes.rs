//! `processes.yaml`: what to start, and how it takes part in the mesh. It stands in for the pods of a cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
};

use serde::Deserialize;
use thiserror::Error;

use super::manifest::{self, DEFAULT_NAMESPACE};

/// Name of the file.
pub const FILE: &str = "processes.yaml";

/// One process, in the place of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Name, unique in the file.
    pub name: String,
    /// Namespace. Default: `default`.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Labels that the selectors of Services look at.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Program and arguments. A relative path with a slash is looked up from the directory that holds the file,
    /// which is also where the process runs; a name without one in PATH.
    pub command: Vec<String>,
    /// Environment, besides what `ferrule local` has itself.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What it listens on.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Addresses at which it reaches Services.
    #[serde(default)]
    pub uses: Vec<Use>,
}

/// A port that the process listens on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Number that the `targetPort` of a Service means.
    pub port: u16,
    /// Name that the `targetPort` of a Service means.
    #[serde(default)]
    pub name: Option<String>,
    /// Where the process listens: all processes share the machine, so that not all can have the same port.
    pub address: SocketAddr,
}

/// An address at which the process reaches a Service through its proxy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// Where its proxy listens for it.
    pub listen: SocketAddr,
    /// Service, of the same namespace or written `namespace/name`.
    pub service: String,
    /// Port of the Service.
    pub port: u16,
}

/// Why the file does not say what to start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProcessesError {
    /// There is none, or it can't be read.
    #[error("cannot read {FILE}: {0}; it lists what to start, see docs/local.md")]
    Read(String),
    /// It does not have the right form.
    #[error("{FILE}:{0}")]
    Form(#[from] manifest::ManifestError),
    /// It contradicts itself.
    #[error("{FILE}: process {process}: {problem}")]
    Contradiction {
        /// Name of the process.
        process: String,
        /// What is wrong.
        problem: String,
    },
}

impl Use {
    /// Namespace and name of the Service, for a process of this namespace.
    #[must_use]
    pub fn service<'a>(&'a self, namespace: &'a str) -> (&'a str, &'a str) {
        self.service.split_once('/').unwrap_or((namespace, &self.service))
    }
}

/// Reads the file of a directory.
///
/// # Errors
/// [`ProcessesError`].
pub fn read(directory: &Path) -> Result<Vec<Process>, ProcessesError> {
    let text =
        fs::read_to_string(directory.join(FILE)).map_err(|error| ProcessesError::Read(error.to_string()))?;
    parse(&text)
}

/// Reads the text of the file.
///
/// # Errors
/// [`ProcessesError`], but not [`ProcessesError::Read`].
pub fn parse(text: &str) -> Result<Vec<Process>, ProcessesError> {
    let File { processes } = manifest::typed(text)?;
    let mut names = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for process in &processes {
        let refuse =
            |problem: String| Err(ProcessesError::Contradiction { process: process.name.clone(), problem });
        if !names.insert(&process.name) {
            return refuse("the name is given twice".into());
        }
        if process.command.first().is_none_or(String::is_empty) {
            return refuse("command is empty; write program and arguments as a list".into());
        }
        let ports = process.ports.iter().map(|port| port.address);
        for address in ports.chain(process.uses.iter().map(|used| used.listen)) {
            if address.port() == 0 {
                return refuse(format!("{address}: the process must know its port in advance; write one"));
            }
            if !addresses.insert(address) {
                return refuse(format!("{address} is given twice; all processes share the machine's ports"));
            }
        }
    }
    Ok(processes)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    processes: Vec<Process>,
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "\
processes:
- name: web
  namespace: shop
  labels: {app: web}
  command: [./web, --fast]
  env: {CART: 'http://127.0.0.1:9001'}
  ports: [{port: 8080, name: http, address: '127.0.0.1:18080'}]
  uses:
  - {listen: '127.0.0.1:9001', service: cart, port: 80}
  - {listen: '127.0.0.1:9002', service: bank/pay, port: 81}
- name: job
  command: ['true']
";

    #[test]
    fn everything_but_name_and_command_may_be_absent() {
        let processes = parse(FULL).expect("valid");
        let [web, job] = &processes[..] else { panic!("two processes") };
        let services: Vec<_> = web.uses.iter().map(|used| used.service(&web.namespace)).collect();
        assert_eq!(services, [("shop", "cart"), ("bank", "pay")]);
        assert_eq!((job.namespace.as_str(), job.ports.len(), job.uses.len()), ("default", 0, 0));
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let error = parse(&FULL.replace("labels", "label")).expect_err("no such field").to_string();
        assert!(error.starts_with("processes.yaml:4:"), "{error}");
    }

    #[test]
    fn what_cannot_work_on_one_machine_is_refused() {
        for (from, to, part) in [
            ("127.0.0.1:9002", "127.0.0.1:9001", "given twice"),
            ("127.0.0.1:9002", "127.0.0.1:0", "port in advance"),
            ("name: job", "name: web", "given twice"),
            ("['true']", "[]", "command is empty"),
        ] {
            let error = parse(&FULL.replace(from, to)).expect_err(to).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
