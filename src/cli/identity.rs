//! `ferrule identity`: the authority of the mesh, and changing its root.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use ferrule_config::{Duration as Text, names};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::identity::{FORCE, PhaseName, ROTATE, SECRET, STATUS_KEY, Status};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Arguments of `ferrule identity`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Namespace that the operator runs in.
    #[arg(long, short, global = true, default_value = names::SYSTEM_NAMESPACE)]
    pub namespace: String,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show who signs, what is trusted, and where a rotation of the root stands.
    Status,
    /// Change the root without an outage. It goes on by itself, whoever watches; see docs/identity.md.
    Rotate(Rotate),
}

/// Arguments of `ferrule identity rotate`.
#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// Stay until it has come to its end, and tell of it.
    #[arg(long)]
    pub wait: bool,
    /// How long to stay.
    #[arg(long, default_value = "24h", requires = "wait")]
    pub timeout: Text,
    /// Begin no rotation, but leave the phase that one is in without waiting for sidecars that do not answer. They may
    /// fail to verify others until they have caught up.
    #[arg(long)]
    pub force: bool,
}

/// Does it.
///
/// # Errors
/// When the cluster can't be asked, or a rotation does not end in time.
pub fn run(args: Args) -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::try_default().await.context("cannot find the cluster; set KUBECONFIG")?;
        let mesh = Mesh {
            config_maps: Api::namespaced(client.clone(), &args.namespace),
            secrets: Api::namespaced(client, &args.namespace),
        };
        match args.command {
            Command::Status => {
                print!("{}", describe(&mesh.status().await?, SystemTime::now()));
                Ok(())
            }
            Command::Rotate(rotate) => mesh.rotate(&rotate).await,
        }
    })
}

struct Mesh {
    config_maps: Api<ConfigMap>,
    secrets: Api<Secret>,
}

impl Mesh {
    async fn status(&self) -> anyhow::Result<Status> {
        let name = names::TRUST_CONFIG_MAP;
        let config_map = self.config_maps.get_opt(name).await.context("cannot ask the API server")?;
        let config_map = config_map.with_context(|| {
            format!(
                "there is no ConfigMap {name} in this namespace; does an operator run here (--namespace)?"
            )
        })?;
        let data = config_map.data.unwrap_or_default();
        let status = data.get(STATUS_KEY).context("no operator that leads has written a status yet")?;
        serde_json::from_str(status)
            .context("the status can't be read; are operator and this program of one version?")
    }

    async fn rotate(&self, rotate: &Rotate) -> anyhow::Result<()> {
        let before = self.status().await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        if rotate.force {
            ensure!(before.phase != PhaseName::Steady, "there is no rotation whose phase could be left");
            self.annotate(FORCE, &before.generation.to_string()).await?;
            println!("asked to leave the phase \"{}\" at once", before.phase.word());
        } else {
            ensure!(
                before.phase == PhaseName::Steady,
                "a rotation is in its phase \"{}\"; see `ferrule identity status`",
                before.phase.word()
            );
            ensure!(
                before.source == "ferrule",
                "the authority is the user's ({}): put the new one there, and the rotation begins",
                before.source
            );
            self.annotate(ROTATE, &now.to_string()).await?;
            println!("asked for another root");
        }
        if rotate.wait { self.wait(&before, rotate).await } else { Ok(()) }
    }

    /// Changes no more than the annotation, and is shown no more than metadata: no key leaves the cluster.
    async fn annotate(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { name: value } } }));
        self.secrets
            .patch_metadata(SECRET, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("cannot annotate Secret {SECRET}"))?;
        Ok(())
    }

    async fn wait(&self, before: &Status, rotate: &Rotate) -> anyhow::Result<()> {
        let end = Instant::now() + rotate.timeout.get();
        let mut shown = None;
        while Instant::now() < end {
            sleep(LOOK_EVERY).await;
            // An API server that is gone for a moment ends nothing.
            let Ok(status) = self.status().await else { continue };
            let line = (status.phase, status.waiting);
            if shown != Some(line) && status.generation != before.generation {
                println!("{}", progress(&status));
                shown = Some(line);
            }
            let over = status.phase == PhaseName::Steady && status.generation != before.generation;
            if over {
                return Ok(());
            }
        }
        bail!("not over after {}; it goes on: see `ferrule identity status`", rotate.timeout)
    }
}

fn progress(status: &Status) -> String {
    let waits = match status.sidecars {
        Some(all) => format!(", waits for {} of {all} sidecars", status.waiting),
        None => String::new(),
    };
    match status.phase {
        PhaseName::Steady => "done: one root is trusted".to_owned(),
        PhaseName::Trusting => format!("trusting: the next root is being made known{waits}"),
        PhaseName::Retiring => {
            format!("retiring: the next root signs, certificates are being renewed{waits}")
        }
    }
}

fn describe(status: &Status, now: SystemTime) -> String {
    use std::fmt::Write as _;
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let days = |time: u64| time.saturating_sub(now) / 86_400;
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = writeln!(text, "Phase:       {}", progress(status));
    let _ = writeln!(text, "Generation:  {}", status.generation);
    let _ = writeln!(text, "Authority:   {}", status.source);
    for root in &status.roots {
        let _ = writeln!(text, "Root:        {root}, ends in {} days", days(status.root_not_after));
    }
    let _ = writeln!(text, "Issuer:      ends in {} days", days(status.issuer_not_after));
    for root in status.trusted.iter().filter(|root| !status.roots.contains(root)) {
        let _ = writeln!(text, "Also trusted: {root}");
    }
    for sidecar in &status.waiting_for {
        let _ = writeln!(text, "Waits for:   {sidecar}");
    }
    if status.waiting > status.waiting_for.len() {
        let _ = writeln!(text, "             and {} others", status.waiting - status.waiting_for.len());
    }
    if let Some(problem) = &status.problem {
        let _ = writeln!(text, "Problem:     {problem}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_whom_it_waits_for() {
        let status = Status {
            phase: PhaseName::Trusting,
            generation: 7,
            since: Some(0),
            source: "ferrule".into(),
            roots: vec!["aa".into()],
            root_not_after: 10 * 86_400,
            issuer_not_after: 5 * 86_400,
            trusted: vec!["aa".into(), "bb".into()],
            handled: None,
            sidecars: Some(9),
            waiting: 3,
            waiting_for: vec!["shop/cart".into()],
            problem: Some("trouble".into()),
        };
        let text = describe(&status, UNIX_EPOCH);
        for part in [
            "waits for 3 of 9 sidecars",
            "aa, ends in 10 days",
            "Also trusted: bb",
            "Waits for:   shop/cart",
            "and 2 others",
            "trouble",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
