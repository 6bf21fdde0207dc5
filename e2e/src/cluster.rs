//! The cluster under test: ours from `e2e/cluster`, or one that the user names with `KUBECONFIG`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::{Call, Finished};

/// A cluster, and the programs to speak to it with.
#[derive(Clone, Debug)]
pub struct Cluster {
    root: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
    kubeconfig: PathBuf,
    own: bool,
    image_prefix: String,
}

impl Cluster {
    /// The cluster that the environment names: see `e2e/README.md`.
    ///
    /// # Errors
    /// When the pinned programs are not there.
    pub fn from_env() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        let bin_path = Call::new(&root.join("e2e/cluster/bin-path.sh"), &[]).run()?;
        let bin = PathBuf::from(bin_path.trim());
        let ours = root.join(".cluster/kubeconfig");
        let theirs = env::var_os("KUBECONFIG").filter(|path| !path.is_empty());
        let kubeconfig = theirs.map_or_else(|| ours.clone(), PathBuf::from);
        Ok(Self {
            kubectl: bin.join("kubectl"),
            helm: bin.join("helm"),
            own: kubeconfig == ours,
            kubeconfig,
            image_prefix: env::var("FERRULE_E2E_IMAGE_PREFIX").unwrap_or_else(|_| "ferrule".to_owned()),
            root,
        })
    }

    /// Whether this is the cluster of `e2e/cluster`, whose parts the tests may stop.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Path of a file of the repository.
    #[must_use]
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Path of the kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Repository and name of one of our images, without its tag.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.image_prefix)
    }

    /// Runs kubectl and gives its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_call(arguments).run()
    }

    /// Runs kubectl, whatever comes out.
    ///
    /// # Errors
    /// When it can't be started or hangs.
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<Finished> {
        self.kubectl_call(arguments).input(input).finish()
    }

    /// A call of kubectl.
    #[must_use]
    pub fn kubectl_call(&self, arguments: &[&str]) -> Call {
        Call::new(&self.kubectl, arguments).env("KUBECONFIG", &self.kubeconfig)
    }

    /// kubectl as a command to be spawned.
    #[must_use]
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Runs helm and gives its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let call = Call::new(&self.helm, arguments).env("KUBECONFIG", &self.kubeconfig);
        call.limit(Duration::from_secs(180)).run()
    }

    /// Runs `charts/test.sh`, the chart's tests that need no cluster, and gives its output.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn chart_tests(&self) -> Result<String> {
        let helm = self.helm.to_string_lossy();
        Call::new(&self.file("charts/test.sh"), &[&helm]).limit(Duration::from_secs(120)).run()
    }

    /// An object, or a list of them, as JSON.
    ///
    /// # Errors
    /// When it isn't there.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).context("kubectl printed something else than JSON")
    }

    /// Stops or starts a program of our own cluster; see `e2e/cluster/component.sh`.
    ///
    /// # Errors
    /// When the script fails.
    pub fn component(&self, action: &str, name: &str) -> Result<()> {
        let script = self.file("e2e/cluster/component.sh");
        Call::new(&script, &[action, name]).limit(Duration::from_secs(120)).run().map(drop)
    }

    /// Whether a connection to a Service's first port opens from every node's own network.
    ///
    /// # Errors
    /// When one of them is refused or not answered within 2 s. Only for our own cluster.
    pub fn service_answers_on_nodes(&self, namespace: &str, name: &str) -> Result<()> {
        let service = self.get(&["--namespace", namespace, "service", name])?;
        let address = service["spec"]["clusterIP"].as_str().context("a cluster address")?;
        let port = service["spec"]["ports"][0]["port"].as_u64().context("a port")?;
        let connect = format!("exec 3<>/dev/tcp/{address}/{port}");
        let nodes = self.get(&["nodes"])?["items"].as_array().map_or(0, Vec::len);
        let script = self.file("e2e/cluster/in-node.sh");
        for node in 1..=nodes {
            let call = Call::new(&script, &[&node.to_string(), "bash", "-c", &connect]);
            call.limit(Duration::from_secs(2)).run().with_context(|| format!("node {node}"))?;
        }
        Ok(())
    }
}
