//! What a request asks for.

use serde_json::Value;

/// Objects of a resource, in a namespace or all, that a selector finds.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
    cluster_ip: Option<String>,
    /// It is asked for by its path, not in a list.
    pub single: bool,
    /// Values of the label that names a slice's Service.
    services: Option<Vec<String>>,
    pub limit: Option<usize>,
    pub skip: usize,
    /// The version that a watch begins at.
    pub watch: Option<u64>,
}

impl Selection {
    pub fn parse(path: &str) -> Option<Self> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path =
            path.strip_prefix("/api/v1/").or_else(|| path.strip_prefix("/apis/discovery.k8s.io/v1/"))?;
        let mut selection = match path.split('/').collect::<Vec<_>>().as_slice() {
            ["namespaces", namespace, resource] => Self {
                resource: (*resource).to_owned(),
                namespace: Some((*namespace).to_owned()),
                ..Self::default()
            },
            ["namespaces", namespace, resource, name] => Self {
                resource: (*resource).to_owned(),
                namespace: Some((*namespace).to_owned()),
                name: Some((*name).to_owned()),
                single: true,
                ..Self::default()
            },
            [resource] => Self { resource: (*resource).to_owned(), ..Self::default() },
            _ => return None,
        };
        let (mut version, mut watch) = (0, false);
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = decode(value);
            match key {
                "fieldSelector" => {
                    let (field, value) = value.split_once('=')?;
                    match field {
                        "metadata.name" => selection.name = Some(value.to_owned()),
                        "spec.clusterIP" => selection.cluster_ip = Some(value.to_owned()),
                        _ => return None,
                    }
                }
                "labelSelector" => selection.services = Some(services(&value)?),
                "limit" => selection.limit = Some(value.parse().ok()?),
                "continue" => selection.skip = value.parse().ok()?,
                "watch" => watch = value == "1",
                "resourceVersion" => version = value.parse().ok()?,
                _ => {}
            }
        }
        selection.watch = watch.then_some(version);
        Some(selection)
    }

    pub fn matches(&self, resource: &str, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let is =
            |wanted: &Option<String>, found: &Value| wanted.as_deref().is_none_or(|wanted| found == wanted);
        resource == self.resource
            && is(&self.namespace, &metadata["namespace"])
            && is(&self.name, &metadata["name"])
            && is(&self.cluster_ip, &object["spec"]["clusterIP"])
            && self.services.as_ref().is_none_or(|services| {
                let label = metadata["labels"]["kubernetes.io/service-name"].as_str().unwrap_or_default();
                services.iter().any(|service| service == label)
            })
    }
}

fn services(selector: &str) -> Option<Vec<String>> {
    let rest = selector.strip_prefix("kubernetes.io/service-name")?;
    if let Some(one) = rest.strip_prefix('=') {
        return Some(vec![one.to_owned()]);
    }
    let several = rest.strip_prefix(" in (")?.strip_suffix(')')?;
    Some(several.split(',').map(str::to_owned).collect())
}

fn decode(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at(2);
        decoded.push(char::from(u8::from_str_radix(code, 16).expect("a percent-encoded byte")));
        decoded.push_str(rest);
    }
    decoded
}
