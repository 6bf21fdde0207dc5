//! The whole benchmark: for each measure round after round, in each round one contender after another.

use std::{
    cell::OnceCell,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    authority::{self, Material},
    backend::Addresses,
    cpu,
    load::{self, Ask, Outcome, closed, stream},
    machine,
    measure::{self, Figure, Load, Measure},
    peers::{Binaries, Carry, Contender, Hop, Way, free_addresses},
    process::{LOAD_CPU, PROXY_CPU, Program, Running},
    report::{Failure, Results, Sample},
};

/// What to measure.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Measures; all of them when left out.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Measure>,
    /// Contenders; all of them when left out.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Contender>,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Ferrule's proxy.
    #[arg(long)]
    ferrule: PathBuf,
    /// Directory that `bench/deps.sh` has filled.
    #[arg(long)]
    cache: PathBuf,
    /// File for the tables; it is written only when everything was measured.
    #[arg(long)]
    out: Option<PathBuf>,
    /// File for what `perf record` sees of the proxy during the last measurement.
    #[arg(long)]
    perf: Option<PathBuf>,
}

/// Files that load, proxy and backend may each have open: 10,000 connections and what is shared behind them.
const FILES: u64 = 20_000;
/// How long a proxy may take to answer rightly after its start.
const STARTING: Duration = Duration::from_secs(10);
/// How long a proxy's memory may take to settle.
const SETTLING: Duration = Duration::from_secs(5);

/// Measures, prints the tables, and writes them to a file when that is wanted.
///
/// # Errors
/// When the backend or a contender's binary is not there. A contender that fails is told of in the tables.
pub fn run(options: &Options) -> anyhow::Result<()> {
    raise_limit();
    let mut contenders = or_all(&options.peers, &Contender::ALL);
    contenders.sort_unstable();
    let measures = or_all(&options.only, Measure::value_variants());
    let binaries = Binaries { ferrule: options.ferrule.clone(), cache: options.cache.clone() };
    let mut header = machine::describe();
    for contender in contenders.iter().filter(|it| **it != Contender::Direct) {
        header.push((contender.name(), binaries.version(*contender)?));
    }
    let lines: Vec<_> = header.iter().map(|(what, value)| format!("- {what}: {value}\n")).collect();
    let settings = format!("- rounds: {}, {} s each\n", options.rounds, options.seconds);
    let header = lines.concat() + &settings;

    let bench = Bench::start(binaries, options)?;
    let mut results = Results::default();
    for measure in &measures {
        for round in 0..options.rounds {
            // Another one begins each round, so that no place in the order is always the same one's.
            let mut order = contenders.clone();
            order.rotate_left(round % contenders.len());
            for contender in order {
                bench.one(*measure, contender, round, &mut results);
            }
        }
    }
    let tables = results.tables();
    println!("\n{header}\n{tables}");
    if let Some(out) = &options.out {
        if options.only.is_empty() && options.peers.is_empty() {
            let title = "# Results\n\nWritten by `make bench`; [README.md](README.md) says what is measured and how.\n\n";
            fs::write(out, format!("{title}{header}\n{tables}"))
                .with_context(|| format!("writing {}", out.display()))?;
        } else {
            eprintln!("{} is left as it is: only a part was measured", out.display());
        }
    }
    anyhow::ensure!(results.failures.is_empty(), "{} measurements failed; see above", results.failures.len());
    Ok(())
}

fn or_all<T: Copy>(some: &[T], all: &[T]) -> Vec<T> {
    if some.is_empty() { all.to_vec() } else { some.to_vec() }
}

/// All processes here inherit it. Only root may go beyond the hard limit.
fn raise_limit() {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(FILES).max(FILES);
    if setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), maximum: Some(hard) }).is_err() {
        eprintln!("warning: memory with 10,000 connections needs {FILES} open files; raise `ulimit -Hn`");
    }
}

/// What stays the same for all measurements.
struct Bench {
    binaries: Binaries,
    seconds: f64,
    perf: Option<PathBuf>,
    addresses: Addresses,
    directory: tempfile::TempDir,
    own: PathBuf,
    /// Made when it is first needed.
    material: OnceCell<Material>,
    _backend: Running,
}

impl Bench {
    fn start(binaries: Binaries, options: &Options) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let own = std::env::current_exe()?;
        let program =
            Program { binary: own.clone(), arguments: vec!["backend".into()], ..Program::default() };
        let log = directory.path().join("backend.log");
        let mut backend = Running::start(&program, LOAD_CPU, &log)?;
        let end = Instant::now() + STARTING;
        let addresses = loop {
            backend.check().context("the backend")?;
            let text = fs::read_to_string(&log)?;
            if let Some((line, _)) = text.split_once('\n') {
                break serde_json::from_str(line).with_context(|| format!("the backend said {line:?}"))?;
            }
            anyhow::ensure!(Instant::now() < end, "the backend does not tell its addresses");
            thread::sleep(Duration::from_millis(10));
        };
        let (seconds, perf) = (options.seconds, options.perf.clone());
        let material = OnceCell::new();
        Ok(Self { binaries, seconds, perf, addresses, directory, own, material, _backend: backend })
    }

    fn material(&self) -> anyhow::Result<Material> {
        if let Some(material) = self.material.get() {
            return Ok(material.clone());
        }
        let directory = self.directory.path().join("certificates");
        fs::create_dir(&directory)?;
        let material = authority::start(&directory).context("the certificate authority")?;
        Ok(self.material.get_or_init(|| material).clone())
    }

    /// Measures one contender once.
    fn one(&self, measure: Measure, contender: Contender, round: usize, results: &mut Results) {
        if contender == Contender::Direct && measure == Measure::Memory {
            return;
        }
        let name = format!("{} {} {}", measure.name(), contender.name(), round + 1);
        match self.figures(measure, contender, &name) {
            Ok(figures) => {
                let told: Vec<_> =
                    figures.iter().map(|(figure, value)| format!("{} {value:.2}", figure.name())).collect();
                eprintln!("{name}: {}", told.join(", "));
                let samples = figures.into_iter();
                results.samples.extend(samples.map(|(figure, value)| Sample {
                    measure,
                    figure,
                    contender,
                    round,
                    value,
                }));
            }
            Err(error) => {
                let reason = format!("{error:#}");
                eprintln!("{name}: failed: {reason}");
                results.failures.push(Failure { measure, contender, round, reason });
            }
        }
    }

    fn figures(
        &self,
        measure: Measure,
        contender: Contender,
        name: &str,
    ) -> anyhow::Result<Vec<(Figure, f64)>> {
        let endpoints = match measure.spoken() {
            Carry::Http1 => self.addresses.http1,
            Carry::Http2 => self.addresses.http2,
            Carry::Grpc => self.addresses.grpc,
            Carry::Tcp => self.addresses.tcp,
        };
        let mut road = Road { proxies: Vec::new(), targets: endpoints.to_vec() };
        if contender != Contender::Direct {
            for index in (0..measure.hops()).rev() {
                let directory = self.directory.path().join(name.replace(' ', "-")).join(index.to_string());
                fs::create_dir_all(&directory)?;
                let tls = if measure.is_encrypted() { Some(self.material()?) } else { None };
                road.put(contender, measure.carry(), index > 0, tls, &self.binaries, &directory)?;
            }
        }
        road.ready(measure.load())?;
        let figures = self.load(measure.load(), &road, contender)?;
        road.check()?;
        Ok(figures)
    }

    fn load(&self, load: Load, road: &Road, contender: Contender) -> anyhow::Result<Vec<(Figure, f64)>> {
        let mut arguments = Vec::new();
        let mut push = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        for target in &road.targets {
            push("target", target.to_string());
        }
        push("seconds", self.seconds.to_string());
        let ids = road.ids();
        if !ids.is_empty() {
            push("watch", ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        }
        let kind = match load {
            Load::Closed { ask, connections, depth } => {
                push("ask", ask_name(ask));
                push("connections", connections.to_string());
                push("depth", depth.to_string());
                "closed"
            }
            Load::Constant { ask, connections, rate } => {
                push("ask", ask_name(ask));
                push("connections", connections.to_string());
                push("rate", rate.to_string());
                "constant"
            }
            Load::Stream { connections } => {
                push("ask", ask_name(Ask::H1Small));
                push("connections", connections.to_string());
                "stream"
            }
            Load::Held { ask } => return self.memory(ask, road),
        };
        arguments.insert(0, kind.to_owned());
        let program = Program { binary: self.own.clone(), arguments, ..Program::default() };
        let perf = self.perf.as_deref().map(|file| record(file, &ids, self.seconds)).transpose()?;
        let output = program.command(LOAD_CPU).stdin(Stdio::null()).output().context("starting the load")?;
        if let Some(mut perf) = perf {
            perf.wait()?;
        }
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim().replace("\n", " "));
        }
        let outcome: Outcome = serde_json::from_slice(&output.stdout).context("the load's outcome")?;
        anyhow::ensure!(outcome.completed + outcome.bytes > 0, "nothing came back");
        Ok(measure::figures(&outcome, contender != Contender::Direct))
    }

    fn memory(&self, ask: Ask, road: &Road) -> anyhow::Result<Vec<(Figure, f64)>> {
        let ids = road.ids();
        thread::sleep(Duration::from_secs(1));
        let idle = cpu::resident(&ids)?;
        let each = |count: usize| -> anyhow::Result<f64> {
            let resident = self.held(ask, road, count, &ids)?;
            thread::sleep(SETTLING);
            Ok((resident as f64 - idle as f64) / count as f64)
        };
        let (few, many) = (each(1_000)?, each(10_000)?);
        let after = cpu::resident(&ids)?;
        let mib = |kib: u64| kib as f64 / 1024.0;
        Ok(vec![
            (Figure::Idle, mib(idle)),
            (Figure::PerConnection1k, few),
            (Figure::PerConnection10k, many),
            (Figure::After, mib(after)),
        ])
    }

    /// Resident memory while so many connections are held.
    fn held(&self, ask: Ask, road: &Road, count: usize, ids: &[u32]) -> anyhow::Result<u64> {
        let mut arguments = vec!["held".into(), "--ask".into(), ask_name(ask)];
        arguments.extend(["--target".into(), road.targets[0].to_string()]);
        arguments.extend(["--connections".into(), count.to_string()]);
        let program = Program { binary: self.own.clone(), arguments, ..Program::default() };
        let mut command: Command = program.command(LOAD_CPU);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting the load")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let resident = (line.trim() == "held").then(|| {
            thread::sleep(Duration::from_secs(1));
            cpu::resident(ids)
        });
        drop(child.stdin.take());
        child.wait()?;
        resident.with_context(|| format!("{count} connections could not be held; the load says why above"))?
    }
}

/// Has perf sample these processes through the measured interval.
fn record(file: &Path, ids: &[u32], seconds: f64) -> anyhow::Result<Child> {
    let ids = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let arguments = ["record", "--quiet", "-F", "4999", "-g", "--delay", "1000", "-p", &ids, "-o"];
    let mut arguments: Vec<_> = arguments.map(str::to_owned).to_vec();
    arguments.extend([file.display().to_string(), "--".into(), "sleep".into(), (seconds + 1.0).to_string()]);
    let program = Program { binary: "perf".into(), arguments, ..Program::default() };
    program.command(LOAD_CPU).spawn().context("starting perf; it is in Debian's linux-perf")
}

fn ask_name(ask: Ask) -> String {
    ask.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The proxies between load and backend, and where the load finds the first of them.
struct Road {
    proxies: Vec<Running>,
    targets: Vec<SocketAddr>,
}

impl Road {
    /// Puts a proxy in front of what there is. An inbound one has a listener for each endpoint, for in a mesh each
    /// endpoint has a sidecar of its own; another one balances over them.
    fn put(
        &mut self,
        contender: Contender,
        carry: Carry,
        inbound: bool,
        tls: Option<Material>,
        binaries: &Binaries,
        directory: &Path,
    ) -> anyhow::Result<()> {
        let endpoints: Vec<_> = if inbound {
            self.targets.iter().map(|target| vec![*target]).collect()
        } else {
            vec![self.targets.clone()]
        };
        let mut addresses = free_addresses(endpoints.len() + 1)?;
        let admin = addresses.pop().context("one more than there are endpoints")?;
        let ways = addresses.into_iter().zip(endpoints);
        let ways = ways.map(|(listen, endpoints)| Way { listen, endpoints }).collect();
        let hop = Hop { carry, inbound, ways, admin, tls };
        let program = binaries.prepare(contender, &hop, directory)?;
        self.proxies.push(Running::start(&program, PROXY_CPU, &directory.join("log"))?);
        self.targets = hop.ways.iter().map(|way| way.listen).collect();
        Ok(())
    }

    /// Waits until the right responses come.
    fn ready(&mut self, load: Load) -> anyhow::Result<()> {
        let (ask, depth) = match load {
            Load::Closed { ask, depth, .. } => (ask, depth),
            Load::Constant { ask, .. } | Load::Held { ask } => (ask, 1),
            Load::Stream { .. } => (Ask::H1Small, 1),
        };
        let options = load::Options {
            target: self.targets.clone(),
            ask,
            connections: 1,
            depth,
            warmup: 0.0,
            seconds: 0.05,
            watch: Vec::new(),
        };
        let end = Instant::now() + STARTING;
        loop {
            let tried = match load {
                Load::Stream { .. } => stream::run(&options),
                _ => closed::run(&options),
            };
            let why = match tried {
                Ok(outcome) if outcome.completed + outcome.bytes > 0 => return Ok(()),
                Ok(_) => "no response".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            self.check()?;
            if Instant::now() > end {
                let words: Vec<_> = self.proxies.iter().map(Running::last_words).collect();
                bail!(
                    "no right response within {STARTING:?}: {why}; the proxy's log: {:?}",
                    words.join(" | ")
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.proxies.iter_mut().try_for_each(Running::check)
    }

    fn ids(&self) -> Vec<u32> {
        self.proxies.iter().map(Running::id).collect()
    }
}
