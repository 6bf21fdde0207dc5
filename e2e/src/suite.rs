//! Runs the tests of one group in order, each with a scene of its own, and tells what happened when one fails.

use std::{
    env,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::{cluster::Cluster, diagnosis, install, namespace::Namespace, workload::clock};

/// A test: its name, a sentence, and what it does.
pub type Test = (&'static str, fn(&Scene) -> Result<()>);

static NAMESPACES: AtomicU32 = AtomicU32::new(0);

/// What a test acts on.
pub struct Scene {
    cluster: Arc<Cluster>,
    namespaces: Mutex<Vec<Namespace>>,
}

impl Scene {
    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// A fresh namespace that lives as long as the test.
    ///
    /// # Errors
    /// When it can't be created.
    pub fn namespace(&self, hint: &str, meshed: bool) -> Result<Namespace> {
        let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e-{hint}-{}-{number}", clock::wall_us() / 1_000_000 % 1_000_000);
        let namespace = Namespace::create(&self.cluster, &name, meshed)?;
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).push(namespace.clone());
        Ok(namespace)
    }
}

/// Prints a finding of a test, such as a distribution.
pub fn note(text: &str) {
    println!("\n    {text}");
}

/// Runs a group; without `FERRULE_E2E` in the environment it only says so, for there may be no cluster.
#[must_use]
pub fn run(group: &str, tests: &[Test]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    if env::var_os("FERRULE_E2E").is_none() && !arguments.list {
        println!("e2e group {group}: skipped, it needs a cluster; run `make e2e ONLY={group}`");
        return ExitCode::SUCCESS;
    }
    let _alone = match alone() {
        Ok(lock) => lock,
        Err(error) => {
            println!("e2e group {group}: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    // The tests share one installation, and some take the operator or the API server away.
    arguments.test_threads = Some(1);
    let trials = tests.iter().map(|&(name, test)| Trial::test(name, move || perform(name, test))).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Two runs at once would uninstall Ferrule under each other.
fn alone() -> Result<File> {
    let path = Cluster::from_env()?.file("target/e2e.lock");
    let lock = File::create(&path).with_context(|| path.display().to_string())?;
    if lock.try_lock().is_err() {
        println!("waiting for another run of the cluster tests to end");
        lock.lock()?;
    }
    Ok(lock)
}

fn perform(name: &str, test: fn(&Scene) -> Result<()>) -> std::result::Result<(), Failed> {
    let cluster = Arc::new(Cluster::from_env().map_err(|error| format!("{error:#}"))?);
    let scene = Scene { cluster, namespaces: Mutex::default() };
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        install::ensure(&scene.cluster)?;
        test(&scene)
    }));
    let outcome = outcome.unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_message(panic.as_ref()))));
    note(&format!("{:.1} s", started.elapsed().as_secs_f64()));
    let namespaces = scene.namespaces.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = &outcome {
        println!("\n---- {name}: {error:#}");
        diagnosis::print(&scene.cluster, &namespaces, name);
    }
    if outcome.is_ok() || env::var_os("FERRULE_E2E_KEEP").is_none() {
        for namespace in &namespaces {
            // Whoever runs the tests again gets fresh names; a namespace left behind only costs room.
            let _ = scene.cluster.kubectl(&["delete", "namespace", namespace.name(), "--wait=false"]);
        }
    }
    outcome.map_err(|error| Failed::from(format!("{error:#}")))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
