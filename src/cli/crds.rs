//! `ferrule crds`: the CustomResourceDefinitions as YAML.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;

use crate::api::crd;

/// Arguments of `ferrule crds`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one file per CustomResourceDefinition to this directory instead of printing them.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints or writes them.
///
/// # Errors
/// When the output can't be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let crds = crd::all()?;
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
