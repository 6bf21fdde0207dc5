//! What the chart spells out must be what the code means. No helm needed; `charts/test.sh` renders it.

use std::{collections::BTreeSet, fs, path::Path};

use ferrule::injector::Settings;
use ferrule_config::{
    names::{self, ports},
    peers, shard,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

fn chart(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/ferrule").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn definitions() -> Vec<CustomResourceDefinition> {
    fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("crds"))
        .expect("crds/")
        .map(|entry| {
            let text = fs::read_to_string(entry.expect("an entry").path()).expect("readable");
            serde_saphyr::from_str(&text).expect("a CustomResourceDefinition")
        })
        .collect()
}

#[test]
fn the_chart_has_the_version_of_the_workspace() {
    let chart = chart("Chart.yaml");
    for key in ["version", "appVersion"] {
        let line = format!("\n{key}: {}\n", env!("CARGO_PKG_VERSION"));
        assert!(chart.contains(&line), "Chart.yaml lacks {line:?}");
    }
}

#[test]
fn the_operator_may_watch_every_custom_resource_and_write_its_status() {
    let rules = chart("templates/rbac.yaml");
    let resources: Vec<&str> = rules.lines().filter(|line| line.trim().starts_with("resources:")).collect();
    let granted: BTreeSet<&str> = resources
        .iter()
        .flat_map(|line| line.split(['[', ']', ',', ' ']))
        .filter(|word| !word.is_empty())
        .collect();
    for definition in definitions() {
        let plural = definition.spec.names.plural;
        assert!(granted.contains(plural.as_str()), "rbac.yaml does not name {plural}");
        assert!(
            granted.contains(format!("{plural}/status").as_str()),
            "rbac.yaml does not name {plural}/status"
        );
    }
}

#[test]
fn the_hook_may_upgrade_every_definition() {
    let hook = chart("templates/crds.yaml");
    for definition in definitions() {
        let name = definition.metadata.name.expect("a name");
        assert!(hook.contains(&name), "crds.yaml does not name {name}");
    }
}

#[test]
fn operator_and_sidecars_may_use_every_shard() {
    let all: Vec<String> = (0..shard::MAX_SHARDS).map(shard::name).collect();
    let list = format!("resourceNames: [{}]", all.join(", "));
    assert_eq!(chart("templates/rbac.yaml").matches(&list).count(), 2, "{list}");
}

#[test]
fn operator_and_sidecars_may_use_every_list_of_addresses() {
    let all: Vec<String> = (0..peers::SHARDS).map(peers::name).collect();
    let list = format!("resourceNames: [{}]\n    verbs: ", all.join(", "));
    let rbac = chart("templates/rbac.yaml");
    for verbs in ["[patch, delete]", "[get]"] {
        assert_eq!(rbac.matches(&format!("{list}{verbs}\n")).count(), 1, "{list}{verbs}");
    }
}

#[test]
fn names_are_those_that_the_operator_defaults_to() {
    let settings = Settings::new("unused");
    let webhook = chart("templates/webhook.yaml");
    assert!(webhook.contains(&format!("name: {}\n", settings.webhook_configuration)));
    assert!(webhook.contains(&format!("service: {{name: {},", settings.webhook_service)));
    assert!(webhook.contains(&format!("matchLabels: {{{}: enabled}}", names::INJECT_LABEL)));
    assert!(webhook.contains(&format!("key: {}, operator: NotIn, values: [disabled]", names::INJECT_LABEL)));
    let rbac = chart("templates/rbac.yaml");
    assert!(rbac.contains(&format!("resourceNames: [{}]", settings.webhook_configuration)));
    assert!(rbac.contains(&format!("resourceNames: [{}]", ferrule::controller::LEASE)));
    assert!(rbac.contains(&format!("kind: ClusterRole\nmetadata:\n  name: {}\n", names::PROXY_ROLE)));
}

#[test]
fn ports_are_those_of_the_code() {
    let operator = chart("templates/operator.yaml");
    assert!(operator.contains(&format!("{{name: webhook, containerPort: {}}}", ports::WEBHOOK)));
    assert!(operator.contains(&format!("{{name: admin, containerPort: {}}}", ports::OPERATOR_ADMIN)));
    assert!(operator.contains(&format!("{{name: identity, containerPort: {}}}", ports::IDENTITY)));
    let identity = chart("templates/identity.yaml");
    assert!(identity.contains(&format!("port: {}, targetPort: identity", ports::IDENTITY)));
    assert!(identity.contains(&format!("name: {}\n", names::IDENTITY_SERVICE)));
}

#[test]
fn the_operator_may_keep_the_authority_and_publish_its_roots() {
    let rbac = chart("templates/rbac.yaml");
    assert!(rbac.contains(&format!("resourceNames: [{}]", names::TRUST_CONFIG_MAP)));
    assert!(rbac.contains(&format!("resourceNames: [ferrule-webhook-tls, {}]", ferrule::identity::SECRET)));
}

/// Otherwise a default changed in one place would hold only for those who start the operator without the chart.
#[test]
fn defaults_of_the_sidecar_are_those_of_the_code() {
    let values: serde_json::Value = serde_saphyr::from_str(&chart("values.yaml")).expect("YAML");
    let resources = Settings::new("unused").proxy.resources;
    for (value, default) in [
        (&values["proxy"]["resources"]["requests"]["cpu"], resources.cpu_request),
        (&values["proxy"]["resources"]["requests"]["memory"], resources.memory_request),
        (&values["proxy"]["resources"]["limits"]["cpu"], resources.cpu_limit),
        (&values["proxy"]["resources"]["limits"]["memory"], resources.memory_limit),
    ] {
        assert_eq!(value, &default.map(|quantity| quantity.to_string()).unwrap_or_default());
    }
    assert_eq!(values["proxy"]["logLevel"], Settings::new("unused").proxy.log_level);
    let (identity, settings) = (&values["identity"], ferrule::identity::Settings::new("unused"));
    assert_eq!(identity["trustDomain"], settings.trust_domain.to_string());
    let duration = |key: &str| {
        let text = identity[key].as_str().expect("text");
        text.parse::<ferrule_config::Duration>().expect("a duration").get()
    };
    assert_eq!(duration("certificateLife"), settings.life.get());
    assert_eq!(duration("rotationPatience"), settings.rotation_patience);
    assert_eq!(identity["checkAddress"], settings.check_address);
    assert_eq!(settings.authority_secret, None);
}
