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
}
