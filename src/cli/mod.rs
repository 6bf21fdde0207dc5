//! Command line: one file a subcommand.

pub mod crds;
pub mod identity;
pub mod local;
mod log;
pub mod operator;

use clap::{Parser, Subcommand};

/// Ferrule, a service mesh for Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "ferrule", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the CustomResourceDefinitions, or write them to a directory.
    Crds(crds::Args),
    /// Show the authority of the mesh, and change its root.
    Identity(identity::Args),
    /// Run the operator: controller, injector, identity service and admin server.
    Operator(Box<operator::Args>),
    /// Run the mesh on this machine, from a directory of files; no Kubernetes, no root.
    Local(local::Args),
}

impl Cli {
    /// Does it.
    ///
    /// # Errors
    /// Whatever goes wrong, with its cause.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Crds(args) => crds::run(&args),
            Command::Identity(args) => identity::run(args),
            Command::Operator(args) => operator::run(*args),
            Command::Local(args) => local::run(args),
        }
    }
}
