//! The `caBundle` of the webhook configuration.

use json_patch::{AddOperation, Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::{ByteString, api::admissionregistration::v1::MutatingWebhookConfiguration};
use serde_json::json;

/// The patch that makes every webhook of the configuration which leads to this Service trust this bundle;
/// `None` if they do. It applies only to the very state it was made from.
///
/// A JSON patch can't bring a deleted configuration back to life, as an apply might.
pub(super) fn patch(
    configuration: &MutatingWebhookConfiguration,
    (namespace, service): (&str, &str),
    bundle: &str,
) -> Option<Patch> {
    let bundle = ByteString(bundle.as_bytes().to_vec());
    let mut operations = Vec::new();
    for (index, webhook) in configuration.webhooks.iter().flatten().enumerate() {
        let config = &webhook.client_config;
        let ours = config
            .service
            .as_ref()
            .is_some_and(|reference| reference.name == service && reference.namespace == namespace);
        if ours && config.ca_bundle.as_ref() != Some(&bundle) {
            let path = pointer(&format!("/webhooks/{index}/clientConfig/caBundle"));
            operations.push(PatchOperation::Add(AddOperation { path, value: json!(bundle) }));
        }
    }
    if operations.is_empty() {
        return None;
    }
    let test = TestOperation {
        path: pointer("/metadata/resourceVersion"),
        value: json!(configuration.metadata.resource_version),
    };
    operations.insert(0, PatchOperation::Test(test));
    Some(Patch(operations))
}

fn pointer(path: &str) -> PointerBuf {
    PointerBuf::parse(path).expect("starts with a slash and has nothing to escape")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: (&str, &str) = ("ferrule-system", "ferrule-webhook");

    fn configuration(bundle: Option<&str>) -> MutatingWebhookConfiguration {
        let webhook = |name: &str, service: &str| {
            json!({
                "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": {"namespace": "ferrule-system", "name": service}},
            })
        };
        let mut configuration: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": "ferrule-injector", "resourceVersion": "7"},
            "webhooks": [webhook("other.example.com", "other"), webhook("pods.ferrule.dev", SERVICE.1)],
        }))
        .expect("a configuration");
        let webhooks = configuration.webhooks.as_mut().expect("webhooks");
        webhooks[1].client_config.ca_bundle = bundle.map(|bundle| ByteString(bundle.into()));
        configuration
    }

    #[test]
    fn only_what_leads_to_our_service_is_changed() {
        let configuration = configuration(None);
        let patch = patch(&configuration, SERVICE, "PEM").expect("a patch");
        let mut document = serde_json::to_value(&configuration).expect("JSON");
        json_patch::patch(&mut document, &patch).expect("applies");
        assert_eq!(document["webhooks"][0]["clientConfig"].get("caBundle"), None);
        assert_eq!(document["webhooks"][1]["clientConfig"]["caBundle"], json!("UEVN"));
    }

    #[test]
    fn a_bundle_that_was_cleared_or_replaced_is_put_back_and_a_right_one_left_alone() {
        assert!(patch(&configuration(Some("other")), SERVICE, "PEM").is_some());
        assert!(patch(&configuration(Some("")), SERVICE, "PEM").is_some());
        assert_eq!(patch(&configuration(Some("PEM")), SERVICE, "PEM"), None);
    }

    #[test]
    fn a_change_since_is_not_overwritten() {
        let patch = patch(&configuration(None), SERVICE, "PEM").expect("a patch");
        let mut later = serde_json::to_value(configuration(None)).expect("JSON");
        later["metadata"]["resourceVersion"] = json!("8");
        assert!(json_patch::patch(&mut later, &patch).is_err());
    }
}
