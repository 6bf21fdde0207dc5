//! Runs the tests of one group, each with a scene of its own, and tells what happened when one fails.

use std::{
    env,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::{
    cluster::Cluster,
    diagnosis, install,
    scene::{self, Scene},
};

/// A test: its name, a sentence, and what it does.
pub type Test = (&'static str, fn(&Scene) -> Result<()>);

/// Prints a finding of a test, such as a distribution.
pub fn note(text: &str) {
    println!("\n    {text}");
}

/// Runs a group one test after another, for tests that change the one installation or take a part of it away;
/// without `FERRULE_E2E` in the environment it only says so, for there may be no cluster.
#[must_use]
pub fn run(group: &str, tests: &[Test]) -> ExitCode {
    run_with(1, group, tests)
}

/// As [`run`], with so many tests at a time: for tests that have namespaces of their own and share none.
#[must_use]
pub fn run_with(threads: usize, group: &str, tests: &[Test]) -> ExitCode {
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
    arguments.test_threads = Some(threads);
    let trials = tests.iter().map(|&(name, test)| Trial::test(name, move || perform(name, test))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    scene::clear();
    conclusion.exit_code()
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
    let scene = Scene::new(cluster);
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        install::ensure(scene.cluster())?;
        test(&scene)
    }));
    let outcome = outcome.unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_message(panic.as_ref()))));
    note(&format!("{name}: {:.1} s", started.elapsed().as_secs_f64()));
    if let Err(error) = &outcome {
        println!("\n---- {name}: {error:#}");
        diagnosis::print(scene.cluster(), &scene.namespaces(), name);
        diagnosis::remember(scene.cluster(), &format!("{name}: {error:#}"));
    }
    scene.end(outcome.is_ok());
    outcome.map_err(|error| Failed::from(format!("{error:#}")))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
