//! The `ferrule` binary.

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    ferrule::cli::Cli::parse().run()
}
