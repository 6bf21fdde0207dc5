//! Who may call what, said by AccessPolicy and decided by the sidecar of the pod that is called.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferrule_e2e::{
    client::Client, identities, namespace::Namespace, scene::Scene, suite::note, wait::eventually,
    workload::report::Response,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
const URL: &str = "http://cart/";

/// A server and two clients with identities.
fn town(scene: &Scene) -> Result<(Namespace, Client, Client)> {
    let namespace = scene.shared("access", |namespace| {
        namespace.apply_file("access.yaml")?;
        for pod in ["cart", "web", "batch"] {
            namespace.wait_for_ready(pod)?;
        }
        eventually("all sidecars have identities", identities::MOUNTED, || {
            identities::roots(namespace).map(drop)
        })
    })?;
    let (web, batch) = (Client::new(&namespace, "web"), Client::new(&namespace, "batch"));
    for client in [&web, &batch] {
        eventually("the server is told who calls", Duration::from_secs(30), || {
            let echo = client.echo(URL, &[])?;
            ensure!(echo.headers.iter().any(|(name, _)| name == "ferrule-client"), "{:?}", echo.headers);
            Ok(())
        })?;
    }
    Ok((namespace, web, batch))
}

fn policy(name: &str, rules: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "cart"}}});
    for (key, value) in rules.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "ferrule.dev/v1alpha1", "kind": "AccessPolicy", "metadata": {"name": name}, "spec": spec})
}

fn apply(namespace: &Namespace, policy: &Value) -> Result<()> {
    namespace.apply(&policy.to_string())
}

fn account(namespace: &Namespace, name: &str) -> Value {
    json!([{"serviceAccount": format!("{}/{name}", namespace.name())}])
}

fn delete(namespace: &Namespace, client: &Client) -> Result<()> {
    namespace.kubectl(&["delete", "accesspolicies", "--all"])?;
    eventually("everybody is let in again", SOON, || client.echo(URL, &["-X", "POST"]).map(drop))
}

fn is_denied(response: &Response) -> Result<()> {
    let error = response.header("ferrule-error");
    ensure!(response.status == 403 && error == Some("access-denied"), "{response:?}");
    Ok(())
}

/// Waits until a request is refused, and then that it always is.
fn refused(client: &Client, url: &str, options: &[&str]) -> Result<()> {
    eventually("it is refused", SOON, || is_denied(&client.once(url, options)?))?;
    is_denied(&client.once(url, options)?)
}

fn refusals(namespace: &Namespace, labels: &[(&str, &str)]) -> Result<f64> {
    Ok(namespace.metrics("cart")?.sum("ferrule_access_refused_total", labels))
}

fn condition(namespace: &Namespace, name: &str, kind: &str) -> Result<(String, String)> {
    let object = namespace.get(&["accesspolicy", name])?;
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    let found = found.with_context(|| format!("no condition {kind}: {object}"))?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("reason")))
}

fn told(namespace: &Namespace, name: &str, kind: &str, expected: (&str, &str)) -> Result<()> {
    eventually("its status says so", SOON, || {
        let (status, reason) = condition(namespace, name, kind)?;
        ensure!((&*status, &*reason) == expected, "{kind}={status}, {reason}");
        Ok(())
    })
}

pub fn a_policy_is_decided_by_identity_method_and_path(scene: &Scene) -> Result<()> {
    let (namespace, web, batch) = town(scene)?;
    let to = json!([{"methods": ["GET"], "paths": ["/", "/reviews/*"]}]);
    let from = account(&namespace, "web");
    apply(&namespace, &policy("cart", json!({"allow": [{"from": from, "to": to}]})))?;
    refused(&batch, URL, &[])?;
    web.echo(URL, &[])?;
    web.echo("http://cart/reviews/1", &[])?;
    refused(&web, URL, &["-X", "POST"])?;
    for path in ["other", "/reviews/1", "reviews/../other", "reviews/%2e%2e/other", "%72eviews/1"] {
        refused(&web, &format!("http://cart/{path}"), &[])?;
    }
    let (_outside, stranger) = super::strict::outside(scene)?;
    refused(&stranger, &format!("http://cart.{}/", namespace.name()), &[])?;
    told(&namespace, "cart", "Accepted", ("True", "Accepted"))?;
    told(&namespace, "cart", "Enforced", ("True", "Enforced"))?;
    let table = namespace.kubectl(&["get", "accesspolicies"])?;
    ensure!(table.contains("ACCEPTED") && table.contains("True"), "{table}");
    let name = format!("{}/cart", namespace.name());
    let log = namespace.proxy_log("cart")?;
    ensure!(log.contains(&name) && log.contains("refused by an AccessPolicy"), "{log}");
    ensure!(refusals(&namespace, &[("policy", &name), ("mode", "enforced")])? > 0.0, "nothing was counted");
    // The kubelet's probes are no calls of anybody.
    std::thread::sleep(Duration::from_secs(4));
    namespace.wait_for_ready("cart")?;
    delete(&namespace, &web)
}

pub fn grpc_is_refused_with_its_own_status(scene: &Scene) -> Result<()> {
    let (namespace, web, _) = town(scene)?;
    let call = |pod: &str, case: &str| {
        let arguments = ["--server_host=cart", "--server_port=7000", &format!("--test_case={case}")];
        let exec = [&["exec", pod, "-c", "talk", "--", "/grpc-client"], &arguments[..]].concat();
        namespace.kubectl_within(Duration::from_secs(60), &exec)
    };
    call("batch", "empty_unary")?;
    let to = json!([{"grpcMethods": ["grpc.testing.TestService/EmptyCall"]}, {"ports": [8080]}]);
    let rules = json!([{"from": account(&namespace, "web"), "to": to}]);
    apply(&namespace, &policy("grpc", json!({"allow": rules})))?;
    eventually("the other account is refused", SOON, || {
        let Err(error) = call("batch", "empty_unary") else { anyhow::bail!("it is answered") };
        let said = format!("{error:#}");
        ensure!(said.contains("PermissionDenied"), "{said}");
        Ok(())
    })?;
    call("web", "empty_unary")?;
    let Err(error) = call("web", "large_unary") else { anyhow::bail!("another method is answered") };
    ensure!(format!("{error:#}").contains("PermissionDenied"), "{error:#}");
    delete(&namespace, &web)
}

pub fn bytes_are_refused_by_a_reset(scene: &Scene) -> Result<()> {
    let (namespace, web, batch) = town(scene)?;
    let greeted = |client: &Client| -> Result<bool> {
        let report = client.tcp("cart", 9001, &["--send", "!", "--wait-first"]);
        Ok(report.is_ok_and(|report| report.received.starts_with("220")))
    };
    for client in [&web, &batch] {
        ensure!(greeted(client)?, "nobody is refused yet");
    }
    // Kept open while the policy comes.
    let kept = batch.start_lines("cart", 9003, &[])?;
    std::thread::sleep(Duration::from_secs(2));
    let rules = json!([{"from": account(&namespace, "batch"), "to": [{"ports": [9001, 9003]}]}]);
    apply(&namespace, &policy("no-bytes", json!({"deny": rules})))?;
    eventually("it is reset", SOON, || {
        ensure!(!greeted(&batch)?, "it is greeted");
        Ok(())
    })?;
    ensure!(greeted(&web)?, "the other one is refused too");
    batch.echo(URL, &[])?;
    let kept: ferrule_e2e::workload::report::LinesReport = kept.stop()?;
    ensure!(kept.opened > 0 && kept.failed > 0, "what was open stays open: {kept:?}");
    ensure!(refusals(&namespace, &[("carried", "tcp"), ("reason", "denied")])? > 0.0, "nothing was counted");
    delete(&namespace, &web)
}

pub fn what_is_only_tried_is_counted_and_let_in(scene: &Scene) -> Result<()> {
    let (namespace, web, batch) = town(scene)?;
    let rules = json!([{"from": account(&namespace, "web")}]);
    apply(&namespace, &policy("tried", json!({"audit": true, "allow": rules})))?;
    told(&namespace, "tried", "Enforced", ("False", "Audit"))?;
    let name = format!("{}/tried", namespace.name());
    let audited = || refusals(&namespace, &[("policy", &name), ("mode", "audit")]);
    eventually("it is counted", SOON, || {
        batch.echo(URL, &[])?;
        ensure!(audited()? > 0.0, "not yet");
        Ok(())
    })?;
    let before = audited()?;
    web.echo(URL, &[])?;
    ensure!(audited()? == before, "what it would allow is counted");
    ensure!(
        refusals(&namespace, &[("policy", &name), ("mode", "enforced")])? == 0.0,
        "something was refused"
    );
    note(&format!("{before} requests would have been refused"));
    delete(&namespace, &web)
}

pub fn invalid_access_policies_are_refused_by_field(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("invalid-access", true)?;
    let from = |source: Value| policy("p", json!({"allow": [{"from": [source]}]}));
    let to = |operation: Value| policy("p", json!({"deny": [{"to": [operation]}]}));
    let header = |condition: Value| to(json!({"headers": [condition]}));
    let many = |count: usize| json!({"allow": vec![json!({}); count]});
    let cases = [
        ("allow", policy("p", json!({}))),
        ("spec.deny", policy("p", json!({"deny": []}))),
        ("spec.allow", policy("p", many(17))),
        ("spec.selector.matchLabels", policy("p", json!({"selector": {"matchLabels": {}}, "allow": []}))),
        ("spec.allow[0].from", policy("p", json!({"allow": [{"from": []}]}))),
        ("spec.allow[0].from[0]", from(json!({}))),
        ("spec.allow[0].from[0].identity", from(json!({"identity": "web"}))),
        ("spec.allow[0].from[0].namespace", from(json!({"namespace": "Web"}))),
        ("spec.allow[0].from[0].serviceAccount", from(json!({"serviceAccount": "web"}))),
        ("spec.allow[0].from[0].serviceAccount", from(json!({"serviceAccount": "*/web"}))),
        ("spec.allow[0].from[0].cidr", from(json!({"cidr": "10.0.0.0/33"}))),
        ("spec.allow[0].from[0].cidr", from(json!({"cidr": "10.0.0.1/8"}))),
        ("spec.allow[0].from[0].cidr", from(json!({"cidr": "web"}))),
        ("spec.deny[0].to[0]", to(json!({}))),
        ("spec.deny[0].to[0].ports[0]", to(json!({"ports": [0]}))),
        ("spec.deny[0].to[0].methods[0]", to(json!({"methods": ["get"]}))),
        ("spec.deny[0].to[0].paths[0]", to(json!({"paths": ["admin"]}))),
        ("spec.deny[0].to[0].paths[0]", to(json!({"paths": ["/a%20b"]}))),
        ("spec.deny[0].to[0].paths[0]", to(json!({"paths": ["/a/*/b"]}))),
        ("spec.deny[0].to[0].paths[0]", to(json!({"paths": ["/a?b"]}))),
        ("paths", to(json!({"paths": ["//admin"]}))),
        ("paths", to(json!({"paths": ["/a/../admin"]}))),
        ("spec.deny[0].to[0].grpcMethods[0]", to(json!({"grpcMethods": ["Service"]}))),
        ("spec.deny[0].to[0].headers[0]", header(json!({"name": "x"}))),
        ("headers", header(json!({"name": "x", "exact": "1", "present": true}))),
        ("ferrule-client", header(json!({"name": "Ferrule-Client", "exact": "1"}))),
        ("spec.audits", policy("p", json!({"allow": [], "audits": true}))),
        ("spec.deny[0].to[0].hosts", to(json!({"hosts": ["a"]}))),
    ];
    for (field, object) in &cases {
        let finished = namespace.try_apply(&object.to_string())?;
        ensure!(!finished.success, "accepted, though {field} is invalid: {object}");
        ensure!(finished.stderr.contains(field), "{field} is not named in: {}", finished.stderr);
    }
    let all = json!({
        "ports": [80, 443], "methods": ["GET"], "paths": ["/", "/*", "/a b/*", "/.well-known/x"],
        "headers": [{"name": "x", "prefix": "a"}, {"name": "y", "present": false}], "grpcMethods": ["a.B/C", "a.B/*"],
    });
    let sources = json!([
        {"identity": "*"}, {"identity": "spiffe://cluster.local/ns/web/*"}, {"namespace": "web-*"}, {"serviceAccount": "web/*"},
        {"cidr": "10.0.0.0/8"}, {"cidr": "2001:db8::/32"}, {"cidr": "192.0.2.1"}, {"cidr": "::1"},
    ]);
    let valid = [
        policy("p", json!({"allow": []})),
        policy("p", json!({"allow": [{}], "deny": [{"from": sources, "to": [all]}], "audit": true})),
        policy("p", many(16)),
    ];
    for object in &valid {
        namespace.apply(&object.to_string()).context("a valid AccessPolicy must pass")?;
    }
    told(&namespace, "p", "Accepted", ("True", "Accepted"))?;
    // A name that nobody has is told, and no reason to refuse it.
    apply(&namespace, &from(json!({"serviceAccount": "nowhere/nobody"})))?;
    told(&namespace, "p", "ResolvedRefs", ("False", "ServiceAccountNotFound"))?;
    told(&namespace, "p", "Accepted", ("True", "Accepted"))
}
