//! Kubernetes objects from the text of a file: one or several YAML documents, or JSON.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::ResourceExt;
use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;

use crate::api::{AccessPolicy, BalancerPolicy, CircuitPolicy, MeshTLS, Route};

/// An object that the mesh reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// `v1`
    Service(Service),
    /// `discovery.k8s.io/v1`
    EndpointSlice(EndpointSlice),
    /// `ferrule.dev/v1alpha1`
    Route(Route),
    /// `ferrule.dev/v1alpha1`
    BalancerPolicy(BalancerPolicy),
    /// `ferrule.dev/v1alpha1`
    CircuitPolicy(CircuitPolicy),
    /// `ferrule.dev/v1alpha1`
    MeshTls(MeshTLS),
    /// `ferrule.dev/v1alpha1`
    AccessPolicy(AccessPolicy),
    /// Any other kind, such as a Deployment: Kubernetes has a use for it, the mesh has none.
    Other(String),
}

/// Why a document is not an object. Line and column count from 1, in the whole file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{line}:{column}: {message}")]
pub struct ManifestError {
    /// Line of the file.
    pub line: u64,
    /// Column of the line.
    pub column: u64,
    /// What is wrong, and where the text allows it, an excerpt that points at it.
    pub message: String,
}

impl Object {
    /// Kind, namespace and name, for people.
    #[must_use]
    pub fn title(&self) -> String {
        let title = |kind: &str, object: &dyn Named| format!("{kind} {}", object.named());
        match self {
            Self::Service(object) => title("Service", object),
            Self::EndpointSlice(object) => title("EndpointSlice", object),
            Self::Route(object) => title("Route", object),
            Self::BalancerPolicy(object) => title("BalancerPolicy", object),
            Self::CircuitPolicy(object) => title("CircuitPolicy", object),
            Self::MeshTls(object) => title("MeshTLS", object),
            Self::AccessPolicy(object) => title("AccessPolicy", object),
            Self::Other(title) => title.clone(),
        }
    }
}

/// `namespace/name`.
trait Named {
    fn named(&self) -> String;
}

impl<T: ResourceExt> Named for T {
    fn named(&self) -> String {
        format!("{}/{}", self.namespace().unwrap_or_default(), self.name_any())
    }
}

/// All objects of a file. One document that is wrong makes the whole file wrong.
///
/// # Errors
/// The first document that is no object.
pub fn parse(text: &str) -> Result<Vec<Object>, ManifestError> {
    documents(text).iter().map(|document| object(document)).collect()
}

/// Every document that holds anything, each after as many empty lines as lines precede it in the file: a parser's
/// line numbers are then the file's.
fn documents(text: &str) -> Vec<String> {
    let mut documents = Vec::new();
    let mut current = String::new();
    for (number, line) in text.lines().enumerate() {
        // At the start of a line, even a block scalar ends at this marker (YAML 1.2.2 §9.1.2).
        let rest = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if let Some(rest) = rest {
            documents.push(std::mem::replace(&mut current, "\n".repeat(number)));
            current.push_str("   ");
            current.push_str(rest);
        } else {
            current.push_str(line);
        }
        current.push('\n');
    }
    documents.push(current);
    documents.retain(|document| {
        document.lines().map(str::trim_start).any(|line| !line.is_empty() && !line.starts_with(['#', '%']))
    });
    documents
}

/// The part of an object that tells how to read the rest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
    metadata: HeadMetadata,
}

#[derive(Deserialize)]
struct HeadMetadata {
    name: Option<String>,
    namespace: Option<String>,
}

fn object(document: &str) -> Result<Object, ManifestError> {
    let head: Head = typed(document)?;
    let title = format!("{} {}", head.kind, head.metadata.name.as_deref().unwrap_or("without a name"));
    let (group, version) = head.api_version.split_once('/').unwrap_or(("", &head.api_version));
    let object = match (group, head.kind.as_str()) {
        ("", "Service") => Object::Service(placed(document)?),
        ("discovery.k8s.io", "EndpointSlice") => Object::EndpointSlice(placed(document)?),
        (ferrule_config::names::GROUP, kind) => {
            if version != crate::api::VERSION {
                return Err(at_start(
                    document,
                    format!(
                        "{title}: version {version:?} is unknown; write ferrule.dev/{}",
                        crate::api::VERSION
                    ),
                ));
            }
            match kind {
                "Route" => Object::Route(placed(document)?),
                "BalancerPolicy" => Object::BalancerPolicy(placed(document)?),
                "CircuitPolicy" => Object::CircuitPolicy(placed(document)?),
                "MeshTLS" => Object::MeshTls(placed(document)?),
                "AccessPolicy" => Object::AccessPolicy(placed(document)?),
                _ => {
                    return Err(at_start(
                        document,
                        format!(
                            "{title}: ferrule.dev has the kinds AccessPolicy, BalancerPolicy, CircuitPolicy, MeshTLS and Route"
                        ),
                    ));
                }
            }
        }
        _ => {
            let namespace = head.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
            Object::Other(format!("{} {namespace}/{}", head.kind, head.metadata.name.unwrap_or_default()))
        }
    };
    Ok(object)
}

/// Namespace of an object that names none, as `kubectl` has it.
pub const DEFAULT_NAMESPACE: &str = "default";

/// An object with the namespace that it lives in.
fn placed<T>(document: &str) -> Result<T, ManifestError>
where
    T: DeserializeOwned + ResourceExt,
{
    let mut object: T = typed(document)?;
    let metadata = object.meta_mut();
    if metadata.name.as_deref().is_none_or(str::is_empty) {
        return Err(at_start(document, "metadata.name is missing".into()));
    }
    metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.into());
    Ok(object)
}

/// A document as this type.
///
/// # Errors
/// With the place that the parser names.
pub(super) fn typed<T: DeserializeOwned>(document: &str) -> Result<T, ManifestError> {
    serde_saphyr::from_str(document).map_err(|error| {
        let Some(location) = error.location() else { return at_start(document, error.to_string()) };
        let (line, column) = (location.line(), location.column());
        let message = error.without_snippet().to_string();
        let place = format!(" at line {line}, column {column}");
        let message = message.strip_suffix(&place).unwrap_or(&message);
        let excerpt =
            usize::try_from(line).ok().and_then(|line| document.lines().nth(line.saturating_sub(1)));
        let excerpt = excerpt.map(|text| format!("\n    {}", text.trim())).unwrap_or_default();
        ManifestError { line, column, message: format!("{message}{excerpt}") }
    })
}

fn at_start(document: &str, message: String) -> ManifestError {
    let empty = document.lines().take_while(|line| line.trim().is_empty()).count();
    ManifestError { line: empty as u64 + 1, column: 1, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "\
apiVersion: ferrule.dev/v1alpha1
kind: Route
metadata: {name: cart, namespace: shop}
spec:
  targetRefs: [{name: cart}]
  rules:
  - backendRefs: [{name: cart-v1, port: 80, weight: 90}]
";

    #[test]
    fn a_file_may_hold_several_documents_and_comments() {
        let text = format!(
            "# services\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: cart}}\n--- # routes\n{ROUTE}---\n# nothing\n"
        );
        let titles: Vec<_> = parse(&text).expect("valid").iter().map(Object::title).collect();
        assert_eq!(titles, ["Service default/cart", "Route shop/cart"]);
    }

    #[test]
    fn json_is_read_as_well() {
        let text =
            r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"}}"#;
        assert_eq!(parse(text).expect("valid")[0].title(), "Service shop/cart");
    }

    #[test]
    fn a_mistake_in_a_later_document_has_its_line_of_the_file() {
        let text = format!("{ROUTE}---\n{}", ROUTE.replace("weight: 90", "wight: 90"));
        let error = parse(&text).expect_err("no such field");
        assert_eq!(error.line, 15, "{error}");
        assert!(error.message.contains("wight"), "{error}");
    }

    #[test]
    fn broken_yaml_has_its_line_of_the_file() {
        let error = parse(&format!("{ROUTE}---\nkind: [Route\n")).expect_err("an open bracket");
        assert_eq!((error.line, error.column), (9, 7), "{error}");
    }

    #[test]
    fn kinds_that_only_kubernetes_uses_are_passed_over() {
        let text =
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cart}\nspec: {anything: [1, 2]}\n";
        assert_eq!(parse(text), Ok(vec![Object::Other("Deployment default/cart".into())]));
    }

    #[test]
    fn unknown_kinds_and_versions_of_ferrule_are_refused() {
        for (from, to, named) in [
            ("kind: Route", "kind: Rout", "BalancerPolicy, CircuitPolicy, MeshTLS and Route"),
            ("v1alpha1", "v9", "v1alpha1"),
        ] {
            let error = parse(&ROUTE.replace(from, to)).expect_err(to);
            assert!(error.message.contains(named), "{error}");
        }
    }

    #[test]
    fn an_empty_file_holds_no_object() {
        for text in ["", "\n", "---\n", "# only a comment\n---\n"] {
            assert_eq!(parse(text), Ok(Vec::new()), "{text:?}");
        }
    }
}
