//! Command line: one file a subcommand.

#[cfg(feature = "kubernetes")]
pub mod crds;
#[cfg(feature = "kubernetes")]
pub mod identity;
pub mod local;
#[cfg(feature = "kubernetes")]
mod log;
#[cfg(feature = "kubernetes")]
pub mod operator;
#[cfg(feature = "kubernetes")]
mod secrecy;

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
    #[cfg(feature = "kubernetes")]
    /// Print the CustomResourceDefinitions, or write them to a directory.
    Crds(crds::Args),
    #[cfg(feature = "kubernetes")]
    /// Show the authority of the mesh, and change its root.
    Identity(identity::Args),
    #[cfg(feature = "kubernetes")]
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
            #[cfg(feature = "kubernetes")]
            Command::Crds(args) => crds::run(&args),
            #[cfg(feature = "kubernetes")]
            Command::Identity(args) => identity::run(args),
            #[cfg(feature = "kubernetes")]
            Command::Operator(args) => operator::run(*args),
            Command::Local(args) => local::run(args),
        }
    }
}
