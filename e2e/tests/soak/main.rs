//! Group `soak`: certificates of two minutes are renewed under load, and nobody notices.
//!
//! `FERRULE_SOAK_SECONDS` is how long the load lasts: 150 by default, in which every certificate is renewed twice; `make soak`
//! takes 15 minutes, and afterwards the operator away for more than half of a certificate's life.

use std::{
    collections::BTreeMap,
    env,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ferrule_e2e::{
    client::{Client, Load},
    identities, install,
    namespace::Namespace,
    scene::Scene,
    suite::{self, Test, note},
    wait::eventually,
};

fn main() -> ExitCode {
    suite::run("soak", TESTS)
}

const TESTS: &[Test] = &[
    ("certificates_of_two_minutes_are_renewed_under_load", renewed_under_load),
    ("an_operator_that_is_gone_for_half_a_life_is_not_noticed", gone_for_half_a_life),
];

const SHORT: u64 = 150;
/// What makes the second test worth its time.
const LONG: u64 = 600;

fn seconds() -> Result<u64> {
    match env::var("FERRULE_SOAK_SECONDS") {
        Ok(text) => {
            text.parse().with_context(|| format!("FERRULE_SOAK_SECONDS={text}: not a number of seconds"))
        }
        Err(_) => Ok(SHORT),
    }
}

fn renewed_under_load(scene: &Scene) -> Result<()> {
    let soak = Duration::from_secs(seconds()?);
    with_life(scene, "2m", |namespace, client| {
        let loads = start(client)?;
        let began = Instant::now();
        let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
        while began.elapsed() < soak {
            for (pod, chain) in certificates(namespace)? {
                let seen = chains.entry(pod).or_default();
                if seen.last() != Some(&chain) {
                    seen.push(chain);
                }
            }
            thread::sleep(Duration::from_secs(3));
        }
        let requests = stop(loads)?;
        let renewals: Vec<usize> = chains.values().map(|seen| seen.len() - 1).collect();
        // At half of a life at the latest.
        let least = usize::try_from(soak.as_secs() / 60).unwrap_or_default().saturating_sub(1);
        ensure!(
            !renewals.is_empty() && renewals.iter().all(|&count| count >= least),
            "renewed {renewals:?} times"
        );
        note(&format!(
            "{requests} requests in {soak:?}, certificates renewed {renewals:?} times, nothing failed"
        ));
        Ok(())
    })
}

fn gone_for_half_a_life(scene: &Scene) -> Result<()> {
    if seconds()? < LONG {
        note("skipped: it takes six minutes; make soak runs it");
        return Ok(());
    }
    let cluster = scene.cluster();
    with_life(scene, "4m", |namespace, client| {
        let before = certificates(namespace)?;
        let loads = start(client)?;
        install::scale_operator(cluster, 0)?;
        thread::sleep(Duration::from_secs(122));
        install::scale_operator(cluster, 2)?;
        eventually("all certificates are renewed", Duration::from_secs(150), || {
            let after = certificates(namespace)?;
            ensure!(
                before.iter().all(|(pod, chain)| after.get(pod).is_some_and(|now| now != chain)),
                "{after:?}"
            );
            Ok(())
        })?;
        let requests = stop(loads)?;
        note(&format!("{requests} requests around 122 s without an operator, nothing failed"));
        Ok(())
    })
}

/// Runs `test` in a meshed namespace whose certificates live for `life`.
fn with_life(scene: &Scene, life: &str, test: impl FnOnce(&Namespace, &Client) -> Result<()>) -> Result<()> {
    let cluster = scene.cluster();
    install::upgrade(cluster, &["--set", &format!("identity.certificateLife={life}")])?;
    let outcome = (|| {
        let namespace = scene.namespace(&format!("soak-{life}"), true)?;
        namespace.apply_file("mtls.yaml")?;
        namespace.wait_for_rollouts()?;
        namespace.wait_for_ready("client")?;
        eventually("all sidecars have identities", identities::MOUNTED, || {
            identities::roots(&namespace).map(drop)
        })?;
        // Plain connections would outlive any certificate.
        namespace.apply(
            "{apiVersion: ferrule.dev/v1alpha1, kind: MeshTLS, metadata: {name: cart}, \
             spec: {mode: Strict, force: true, selector: {matchLabels: {app: cart}}}}",
        )?;
        let client = Client::new(&namespace, "client");
        eventually("the road is open", Duration::from_secs(30), || {
            client.echo("http://front/", &[]).map(drop)
        })?;
        test(&namespace, &client)
    })();
    install::upgrade(cluster, &[])?;
    outcome
}

/// Over connections that stay, over new ones, and to a pod by its name.
fn start(client: &Client) -> Result<Vec<Load>> {
    [
        client.start_load("http://front/", 100, &[]),
        client.start_load("http://front/", 50, &["--no-keep-alive"]),
        client.start_load("http://cart-1.cart:8080/", 20, &[]),
    ]
    .into_iter()
    .collect()
}

fn stop(loads: Vec<Load>) -> Result<u64> {
    let mut requests = 0;
    for load in loads {
        let summary = load.stop()?;
        requests += summary.requests;
        summary.expect_no_failure()?;
    }
    Ok(requests)
}

/// The certificate of each running pod, by its hash.
fn certificates(namespace: &Namespace) -> Result<BTreeMap<String, String>> {
    let reports = identities::reports(namespace)?;
    Ok(reports.into_iter().map(|(pod, report)| (pod, report.chain.unwrap_or_default())).collect())
}
