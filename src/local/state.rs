//! From objects and processes to what the proxies read and what the user is told. Pure.

use std::collections::BTreeSet;

use ferrule_config::{names, shard};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{ResourceExt, core::DynamicObject};
use thiserror::Error;

use super::{
    endpoints,
    manifest::Object,
    plan::Placement,
    publish,
    report::{Statement, Statements},
};
use crate::controller::{
    compile::{ConditionType, Reason, Verdict, compile_all},
    observe::{self, Kind, Observed},
};

/// A compiled state of the mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The objects for the proxies, as the text of one file.
    pub content: String,
    /// What the user is told of each object.
    pub statements: Statements,
}

/// Why there is no new state; the last one then stays in force.
#[derive(Debug, Error)]
pub enum StateError {
    /// An object has no JSON form.
    #[error("{title}: {source}")]
    Json {
        /// The object.
        title: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A namespace has more configuration than a proxy reads.
    #[error("namespace {namespace}: {source}")]
    Shard {
        /// The namespace.
        namespace: String,
        /// What is wrong.
        source: shard::ShardError,
    },
}

/// Compiles everything with the operator's own compiler.
///
/// # Errors
/// [`StateError`].
pub fn build(objects: &[&Object], placements: &[Placement]) -> Result<State, StateError> {
    let mut content = String::new();
    let mut statements = notes(objects, placements);
    for object in objects {
        match object {
            Object::Service(service) => {
                append(&mut content, object, service)?;
                for slice in endpoints::slices(service, placements) {
                    append(&mut content, object, &slice)?;
                }
            }
            Object::EndpointSlice(slice) => append(&mut content, object, slice)?,
            Object::Route(_)
            | Object::BalancerPolicy(_)
            | Object::CircuitPolicy(_)
            | Object::MeshTls(_)
            | Object::AccessPolicy(_)
            | Object::Other(_) => {}
        }
    }
    let mut observed = Observed::default().with_system(names::SYSTEM_NAMESPACE).with_strict_at_once();
    for object in objects {
        match observe(object)? {
            Some(Ok(object)) => {
                observed.apply(object);
            }
            Some(Err(error)) => {
                statements.insert(object.title(), Statement::Refused(error.to_string()));
            }
            None => {}
        }
    }
    for (namespace, compiled) in compile_all(&observed) {
        for verdict in &compiled.verdicts {
            let subject = format!("{} {namespace}/{}", verdict.kind.word(), verdict.name);
            statements.insert(subject, statement(verdict));
        }
        let Some(mesh) = compiled.mesh else { continue };
        let shards = shard::split(&mesh)
            .map_err(|source| StateError::Shard { namespace: namespace.clone(), source })?;
        for (index, data) in shards.into_iter().enumerate() {
            let metadata = ObjectMeta {
                name: Some(shard::name(index)),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            };
            let config_map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            publish::append(&mut content, &config_map).map_err(|source| StateError::Json {
                title: format!("ConfigMap {namespace}/ferrule"),
                source,
            })?;
        }
    }
    Ok(State { content, statements })
}

fn append(content: &mut String, of: &Object, object: &impl serde::Serialize) -> Result<(), StateError> {
    publish::append(content, object).map_err(|source| StateError::Json { title: of.title(), source })
}

/// The object as the compiler knows it; `None` if it has no use for its kind.
fn observe(object: &Object) -> Result<Option<Result<observe::Object, observe::ReadError>>, StateError> {
    let (kind, value) = match object {
        Object::Service(service) => (Kind::Service, serde_json::to_value(service)),
        Object::Route(route) => (Kind::Route, serde_json::to_value(route)),
        Object::BalancerPolicy(policy) => (Kind::BalancerPolicy, serde_json::to_value(policy)),
        Object::CircuitPolicy(policy) => (Kind::CircuitPolicy, serde_json::to_value(policy)),
        Object::MeshTls(tls) => (Kind::MeshTls, serde_json::to_value(tls)),
        Object::AccessPolicy(policy) => (Kind::AccessPolicy, serde_json::to_value(policy)),
        Object::EndpointSlice(_) | Object::Other(_) => return Ok(None),
    };
    let dynamic = value.and_then(serde_json::from_value::<DynamicObject>);
    let dynamic = dynamic.map_err(|source| StateError::Json { title: object.title(), source })?;
    Ok(Some(observe::Object::read(kind, dynamic)))
}

/// The conditions that do not hold, with their reasons; none means accepted.
fn statement(verdict: &Verdict) -> Statement {
    let failed: Vec<_> = ConditionType::ALL
        .into_iter()
        .filter_map(|condition| verdict.finding(condition))
        // What is only tried is as it should be.
        .filter(|finding| !finding.holds && finding.reason != Reason::Audit)
        .map(|finding| {
            format!("{}=False, {}: {}", finding.condition.as_str(), finding.reason.as_str(), finding.message)
        })
        .collect();
    if failed.is_empty() { Statement::Accepted } else { Statement::Refused(failed.join("; ")) }
}

/// What may be a mistake, though nothing is wrong in itself.
fn notes(objects: &[&Object], placements: &[Placement]) -> Statements {
    let mut notes = Statements::new();
    let mut note = |text: String| notes.insert(format!("note {text}"), Statement::Note(text));
    let ports: BTreeSet<_> = objects.iter().flat_map(|object| service_ports(object)).collect();
    for Placement { process, .. } in placements {
        for used in &process.uses {
            let (namespace, name) = used.service(&process.namespace);
            if !ports.contains(&(namespace.to_owned(), name.to_owned(), i32::from(used.port))) {
                let port = used.port;
                note(format!(
                    "process {} uses port {port} of Service {namespace}/{name}, which does not exist",
                    process.name
                ));
            }
        }
    }
    for object in objects {
        if let Object::Other(title) = object {
            note(format!("{title} is not used without Kubernetes"));
        }
    }
    notes
}

/// Namespace, name and port of each port of a Service.
fn service_ports(object: &Object) -> Vec<(String, String, i32)> {
    let Object::Service(service) = object else { return Vec::new() };
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let namespace = service.namespace().unwrap_or_default();
    ports.iter().map(|port| (namespace.clone(), service.name_any(), port.port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::{manifest, plan, processes};

    const SERVICES: &str = "\
apiVersion: v1
kind: Service
metadata: {name: cart}
spec: {selector: {app: cart}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart-v2}
spec: {selector: {app: cart}, ports: [{port: 80, targetPort: 8080}]}
";
    const ROUTE: &str = "
---
apiVersion: ferrule.dev/v1alpha1
kind: Route
metadata: {name: cart}
spec:
  targetRefs: [{name: cart}]
  rules: [{backendRefs: [{name: cart-v2, port: 80}]}]
";
    const PROCESSES: &str = "\
processes:
- {name: cart, labels: {app: cart}, command: [cart], ports: [{port: 8080, address: '127.0.0.1:18080'}]}
- {name: web, command: [web], uses: [{listen: '127.0.0.1:9001', service: cart, port: 80}]}
";

    fn state(manifests: &str) -> State {
        let objects = manifest::parse(manifests).expect("valid");
        let placements = plan::place(processes::parse(PROCESSES).expect("valid")).expect("free ports");
        build(&objects.iter().collect::<Vec<_>>(), &placements).expect("compiles")
    }

    fn kinds(state: &State) -> Vec<String> {
        let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(&state.content).expect("YAML");
        objects.iter().map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect()
    }

    #[test]
    fn proxies_get_services_with_endpoints_and_the_compiled_routes() {
        let state = state(&format!("{SERVICES}{ROUTE}"));
        let expected = [
            r#""Service" "cart""#,
            r#""EndpointSlice" "cart-cart""#,
            r#""Service" "cart-v2""#,
            r#""EndpointSlice" "cart-v2-cart""#,
            r#""ConfigMap" "ferrule""#,
        ];
        assert_eq!(kinds(&state), expected);
        assert_eq!(state.statements, [("Route default/cart".to_owned(), Statement::Accepted)].into());
    }

    #[test]
    fn a_balancer_policy_is_compiled_and_its_conflicts_are_told() {
        let policy = |name: &str| {
            format!(
                "---\napiVersion: ferrule.dev/v1alpha1\nkind: BalancerPolicy\nmetadata: {{name: {name}}}\n\
                 spec: {{targetRefs: [{{kind: Service, name: cart}}], consistentHash: {{header: x-session}}}}\n"
            )
        };
        let state = state(&format!("{SERVICES}{}{}", policy("a"), policy("b")));
        assert_eq!(state.statements["BalancerPolicy default/a"], Statement::Accepted);
        let Statement::Refused(reason) = &state.statements["BalancerPolicy default/b"] else {
            panic!("{:?}", state.statements);
        };
        assert!(reason.starts_with("Accepted=False, Conflicted: BalancerPolicy a decides"), "{reason}");
        assert!(kinds(&state).contains(&r#""ConfigMap" "ferrule""#.to_owned()));
        assert!(state.content.contains(r#"\"maglev\""#), "{}", state.content);
    }

    #[test]
    fn a_route_without_a_service_is_refused_and_says_why() {
        let state = state(ROUTE);
        let Some(Statement::Refused(reason)) = state.statements.get("Route default/cart") else {
            panic!("{:?}", state.statements);
        };
        assert!(reason.contains("TargetNotFound"), "{reason}");
    }

    #[test]
    fn a_process_that_uses_a_missing_service_is_noted() {
        let state = state("");
        let notes: Vec<_> = state.statements.into_values().collect();
        let text = "process web uses port 80 of Service default/cart, which does not exist";
        assert_eq!(notes, [Statement::Note(text.into())]);
    }
}
