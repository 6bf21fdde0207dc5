//! Group `mtls`: what goes between pods is encrypted, and who may come in without is said by MeshTLS.

mod ratchet;
mod rights;
mod strict;
mod wire;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use ferrule_e2e::{
    client::Client,
    identities,
    namespace::Namespace,
    scene::Scene,
    suite::{self, Test},
    wait::eventually,
};

fn main() -> ExitCode {
    suite::run("mtls", TESTS)
}

const TESTS: &[Test] = &[
    ("nothing_that_pods_say_can_be_read_on_the_wire", wire::nothing_that_pods_say_can_be_read_on_the_wire),
    ("applications_are_told_who_calls_and_nobody_can_forge_it", strict::applications_are_told_who_calls),
    ("a_strict_pod_is_out_of_reach_from_outside_the_mesh", strict::a_strict_pod_is_out_of_reach),
    ("switching_breaks_no_request", strict::switching_breaks_no_request),
    ("roles_grant_what_was_agreed_to", rights::roles_grant_what_was_agreed_to),
    ("the_operator_reads_no_secret_of_others", rights::the_operator_reads_no_secret_of_others),
    (
        "a_sidecar_tells_its_configuration_in_its_pod_alone",
        rights::a_sidecar_tells_its_configuration_in_its_pod_alone,
    ),
    (
        "sidecars_read_what_they_need_and_strangers_nothing",
        rights::sidecars_read_what_they_need_and_strangers_nothing,
    ),
    (
        "strict_waits_for_plaintext_clients_and_takes_hold_without_them",
        ratchet::strict_waits_for_plaintext_clients,
    ),
];

/// A meshed namespace in which all sidecars have their identities.
fn meshed(scene: &Scene) -> Result<(Namespace, Client)> {
    let namespace = scene.shared("mtls", |namespace| {
        namespace.apply_file("mtls.yaml")?;
        namespace.wait_for_rollouts()?;
        namespace.wait_for_ready("client")?;
        eventually("all sidecars have identities", identities::MOUNTED, || {
            identities::roots(namespace).map(drop)
        })
    })?;
    let client = Client::new(&namespace, "client");
    // What a sidecar remembers of a peer that had no identity yet is forgotten.
    eventually("the road is encrypted", Duration::from_secs(30), || {
        let before = plain(&namespace)?;
        client.echo("http://front/", &[])?;
        ensure!(plain(&namespace)? == before, "a plain connection was made");
        Ok(())
    })?;
    Ok((namespace, client))
}

/// Plain connections of the client to pods so far.
fn plain(namespace: &Namespace) -> Result<f64> {
    Ok(namespace.metrics("client")?.sum("ferrule_plain_connections_total", &[("direction", "outbound")]))
}
