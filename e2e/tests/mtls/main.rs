//! Group `mtls`: what goes between pods is encrypted, who may come in without is said by MeshTLS,
//! and who may call what by AccessPolicy.

mod access;
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
        "a_policy_is_decided_by_identity_method_and_path",
        access::a_policy_is_decided_by_identity_method_and_path,
    ),
    ("grpc_is_refused_with_its_own_status", access::grpc_is_refused_with_its_own_status),
    ("bytes_are_refused_by_a_reset", access::bytes_are_refused_by_a_reset),
    ("what_is_only_tried_is_counted_and_let_in", access::what_is_only_tried_is_counted_and_let_in),
    ("invalid_access_policies_are_refused_by_field", access::invalid_access_policies_are_refused_by_field),
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
