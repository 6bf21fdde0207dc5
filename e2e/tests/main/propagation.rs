//! How long a change takes from `apply` to the last response that did not know of it.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use ferrule_e2e::{
    api::Server,
    client::Load,
    scene::Scene,
    shop::{Shop, URL, split},
    suite::note,
    wait::eventually,
    workload::{
        clock::wall_us,
        report::{Latency, Transition},
    },
};
use serde_json::Value;

const CHANGES: usize = 50;
const CHANGES_BY_KUBECTL: usize = 5;
const LIMIT_US: u64 = 1_000_000;
/// Requests a second of each client: a response every 2 ms is what the figures are exact to.
const RATE: u32 = 500;
/// Time for late responses of the old version to show up before the next change.
const SETTLE: Duration = Duration::from_millis(150);

pub fn a_change_is_in_force_everywhere_within_a_second(scene: &Scene) -> Result<()> {
    let shop = Shop::shared(scene)?;
    shop.route_and_wait(&split(100, 0), "v1")?;
    let clients = shop.clients()?;
    ensure!(clients.len() == 2, "{} clients", clients.len());
    let watches: Vec<_> =
        clients.iter().map(|client| client.watch_split(URL, RATE, &[])).collect::<Result<_>>()?;
    for watch in &watches {
        watch.wait_for_first()?;
    }

    let server = Server::connect(scene.cluster().kubeconfig())?;
    let direct = alternate(&watches, CHANGES, |route| server.apply_route(shop.name(), route))?;
    let kubectl = alternate(&watches, CHANGES_BY_KUBECTL, |route| shop.apply(&route.to_string()))?;

    let mut transitions = Vec::new();
    for watch in watches {
        transitions.push(watch.transitions());
        watch.stop()?.expect_no_failure()?;
    }
    report("API call", &direct, &transitions)?;
    report("kubectl apply", &kubectl, &transitions)
}

/// One change: when it was sent, when the API server had answered, and to which version it leads.
struct Change {
    sent_us: u64,
    answered_us: u64,
    until_us: u64,
    to: &'static str,
}

fn alternate(watches: &[Load], count: usize, apply: impl Fn(&Value) -> Result<()>) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for number in 0..count {
        let current =
            watches.first().and_then(|watch| watch.transitions().pop()).context("no response yet")?;
        let (route, to) = if current.to == "v1" { (split(0, 100), "v2") } else { (split(100, 0), "v1") };
        let sent_us = wall_us();
        apply(&route)?;
        let answered_us = wall_us();
        eventually(&format!("change {number} to {to} is in force"), Duration::from_secs(5), || {
            for watch in watches {
                let last = watch.transitions().pop();
                ensure!(last.as_ref().is_some_and(|last| last.to == to), "last seen: {last:?}");
            }
            Ok(())
        })?;
        thread::sleep(SETTLE);
        changes.push(Change { sent_us, answered_us, until_us: wall_us(), to });
    }
    Ok(changes)
}

fn report(what: &str, changes: &[Change], transitions: &[Vec<Transition>]) -> Result<()> {
    let mut since_sent = Vec::new();
    let mut since_answered = Vec::new();
    for change in changes {
        for seen in transitions {
            let last_old =
                last_old_response(change, seen).with_context(|| format!("no change to {}", change.to))?;
            since_sent.push(last_old.saturating_sub(change.sent_us));
            since_answered.push(last_old.saturating_sub(change.answered_us));
        }
    }
    let (sent, answered) = (Latency::of(since_sent), Latency::of(since_answered));
    note(&format!("{} changes by {what}, 2 proxies; last response of the old version, in us", changes.len()));
    note(&format!("  after the call began: {sent:?}"));
    note(&format!("  after the API server had answered: {answered:?}"));
    ensure!(sent.max <= LIMIT_US, "{what}: a change took {} us", sent.max);
    Ok(())
}

/// Wall clock of the last response of the old version to one client. A late one shows as a flicker: back to
/// the old version and forth again, so the last transition to the new one counts.
fn last_old_response(change: &Change, seen: &[Transition]) -> Option<u64> {
    let within = |transition: &&Transition| {
        transition.to == change.to
            && (change.sent_us..change.until_us).contains(&transition.first_new_wall_us)
    };
    seen.iter().rev().find(within)?.last_old_wall_us
}
