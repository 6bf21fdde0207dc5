//! `ferrule crds`: the CustomResourceDefinitions as YAML.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use ferrule_config::names::FIELD_MANAGER;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{conditions, wait::await_condition},
};

use crate::api::crd;

/// How long the API server may take to serve a new kind.
const ESTABLISHED: std::time::Duration = std::time::Duration::from_secs(30);

/// Arguments of `ferrule crds`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one file per CustomResourceDefinition to this directory instead of printing them.
    #[arg(long, value_name = "DIR", conflicts_with = "apply")]
    pub out: Option<PathBuf>,
    /// Apply them to the cluster and wait until they are served. The chart does this before each install and
    /// upgrade: Helm itself installs them once and never upgrades them.
    #[arg(long)]
    pub apply: bool,
}

/// Prints or writes them.
///
/// # Errors
/// When the output can't be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let crds = crd::all()?;
    if args.apply {
        super::log::init()?;
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(apply(&crds));
    }
    let Some(directory) = &args.out else {
        let mut documents = Vec::new();
        for crd in &crds {
            documents.push(crd::yaml(crd)?);
        }
        return io::stdout().write_all(documents.join("---\n").as_bytes()).context("cannot print");
    };
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make directory {}", directory.display()))?;
    for crd in &crds {
        let path = directory.join(crd::file_name(crd));
        fs::write(&path, crd::yaml(crd)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

async fn apply(crds: &[CustomResourceDefinition]) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("cannot find the cluster")?;
    let api: Api<CustomResourceDefinition> = Api::all(client);
    // Forced: whoever applied them before, with kubectl or an older release, meant these kinds too.
    let params = PatchParams::apply(FIELD_MANAGER).force();
    for crd in crds {
        let name = crd.name_any();
        api.patch(&name, &params, &Patch::Apply(crd))
            .await
            .with_context(|| format!("cannot apply {name}"))?;
        let served = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(ESTABLISHED, served)
            .await
            .with_context(|| format!("the API server does not serve {name} after {ESTABLISHED:?}"))??;
        tracing::info!(name, "applied");
    }
    Ok(())
}
