//! The benchmark: `run` for all of it, `load` and `backend` for its parts.

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the benchmark needs Linux: epoll, schedstat and pinning to processors");
    std::process::exit(1);
}

#[cfg(target_os = "linux")]
mod cli {
    use clap::{Parser, Subcommand};
    use ferrule_bench::{backend, load, run};

    /// Ferrule's proxy and its peers side by side.
    #[derive(Parser)]
    #[command(version)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Subcommand)]
    enum Command {
        /// Measure peers, one after another, and print the tables.
        Run(run::Options),
        /// Keep so many requests under way.
        Closed(load::Options),
        /// Keep a rate.
        Constant {
            #[command(flatten)]
            options: load::Options,
            /// Requests a second.
            #[arg(long, default_value_t = 2000.0)]
            rate: f64,
        },
        /// Take bytes as fast as they come.
        Stream(load::Options),
        /// Open connections and hold them until a line comes.
        Held(load::Options),
        /// Serve canned answers; the addresses are printed.
        Backend,
    }

    pub fn main() -> anyhow::Result<()> {
        let outcome = match Cli::parse().command {
            Command::Run(options) => return run::run(&options),
            Command::Backend => return backend::run(),
            Command::Held(options) => return load::held::run(&options),
            Command::Closed(options) => load::closed::run(&options)?,
            Command::Constant { options, rate } => load::constant::run(&options, rate)?,
            Command::Stream(options) => load::stream::run(&options)?,
        };
        println!("{}", serde_json::to_string(&outcome)?);
        Ok(())
    }
}
