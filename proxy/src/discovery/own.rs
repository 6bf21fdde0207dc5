//! What the configuration of the pod's own namespace says of the pod itself: what it accepts, and from whom.
//!
//! ```text
//!   Mesh::tls, the pod's labels ─────▶ the first entry that selects it ──┐
//!   Mesh::access, the pod's labels ──▶ all that select it ───────────────┴──▶ published, once it is known and on each change
//! ```
//!
//! A configuration that is gone changes nothing: deleting a ConfigMap must not open a pod that is closed.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use ferrule_config::{Mesh, Modes, SourceMatch, access::Access};

/// The pod that this sidecar belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its service account, if that is known.
    pub account: Option<String>,
    /// The operator's namespace, where it is told which pod has which address.
    pub system: Option<String>,
    /// Its labels.
    pub labels: Labels,
}

/// Where the pod's labels are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// They are these.
    Fixed(BTreeMap<String, String>),
    /// In a file as Kubernetes' downward API writes it, which is exchanged when they change. While there is none there are no
    /// labels.
    File(PathBuf),
}

/// What of the pod decides over the routes of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    namespace: String,
    account: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Source {
    /// Whether the pod is as the condition wants it.
    pub fn is(&self, condition: &SourceMatch) -> bool {
        let SourceMatch { namespace, account, labels } = condition;
        namespace.as_ref().is_none_or(|namespace| *namespace == self.namespace)
            && (account.is_none() || *account == self.account)
            && labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

/// Labels that are read from a file. Kubernetes allows 256 KiB of annotations and says nothing of labels.
const MAX_FILE: u64 = 256 * 1024;

impl Labels {
    /// Nothing if they can't be read.
    fn read(&self) -> Option<BTreeMap<String, String>> {
        match self {
            Self::Fixed(labels) => Some(labels.clone()),
            Self::File(path) => {
                let small = std::fs::metadata(path).is_ok_and(|file| file.len() <= MAX_FILE);
                let text = small.then(|| std::fs::read_to_string(path).ok()).flatten();
                text.map(|text| parse(&text))
            }
        }
    }
}

/// Lines of `key="value"`. The value is quoted as in Go; labels hold nothing that would have to be escaped.
fn parse(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        Some((key.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// What holds for the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Holds {
    /// What connections it accepts.
    pub modes: Modes,
    /// The policies on who may call it, in no order.
    pub access: Vec<Access>,
}

/// Follows what holds for the pod.
pub struct Own {
    pod: Pod,
    /// What holds where nothing is said.
    default: Modes,
    publish: Box<dyn Fn(&Holds) + Send>,
    published: Option<Holds>,
    /// As they were read last: a file that can't be read for a moment must not put the pod out of a policy's reach.
    labels: BTreeMap<String, String>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own")
            .field("pod", &self.pod)
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

impl Own {
    /// `publish` is called when it is first known what holds, and whenever that changes.
    pub fn new(pod: Pod, default: Modes, publish: impl Fn(&Holds) + Send + 'static) -> Self {
        let mut own =
            Self { pod, default, publish: Box::new(publish), published: None, labels: BTreeMap::new() };
        own.look();
        own
    }

    /// The namespace whose configuration is needed.
    pub(super) fn namespace(&self) -> &str {
        &self.pod.namespace
    }

    /// The operator's namespace.
    pub(super) fn system(&self) -> Option<&str> {
        self.pod.system.as_deref()
    }

    /// The pod as the source of requests, with its labels as they were read last.
    pub(super) fn source(&self) -> Source {
        let Pod { namespace, account, .. } = &self.pod;
        Source { namespace: namespace.clone(), account: account.clone(), labels: self.labels.clone() }
    }

    /// Reads the pod's labels again, which may change without any news.
    pub(super) fn look(&mut self) {
        if let Some(labels) = self.pod.labels.read() {
            self.labels = labels;
        }
    }

    /// Reads the labels, and takes in the configuration of the namespace as it is now.
    pub(super) fn update(&mut self, mesh: Option<&Mesh>) {
        self.look();
        if mesh.is_none() && self.published.is_some() {
            return;
        }
        let labels = &self.labels;
        let entry = mesh.and_then(|mesh| mesh.tls.iter().find(|entry| entry.selector.selects(labels)));
        let modes = entry.map_or_else(|| self.default.clone(), |entry| entry.modes.clone());
        let policies = mesh.into_iter().flat_map(|mesh| &mesh.access);
        let policies = policies.filter(|access| access.selector().selects(labels));
        let is_same = |holds: &Holds| holds.modes == modes && holds.access.iter().eq(policies.clone());
        if self.published.as_ref().is_some_and(is_same) {
            return;
        }
        let holds = Holds { access: policies.cloned().collect(), modes };
        tell(&holds);
        (self.publish)(&holds);
        self.published = Some(holds);
    }
}

fn tell(Holds { modes, access }: &Holds) {
    let policies: Vec<_> = access.iter().map(Access::name).collect();
    tracing::info!(mode = ?modes.mode, ports = ?modes.ports, ?policies, "what this pod accepts");
    for access in access {
        if let Access::Unknown(unknown) = access {
            tracing::error!(
                policy = unknown.name,
                problem = unknown.problem,
                audit = unknown.audit,
                "this sidecar does not understand an AccessPolicy, so everything is refused (unless it is only \
                 tried); is the sidecar older than the operator? Restart the pod to renew it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use ferrule_config::{Selector, TlsMode, WorkloadTls};

    use super::*;

    fn modes(mode: TlsMode) -> Modes {
        Modes { mode, ..Modes::default() }
    }

    fn mesh(entries: &[(&[(&str, &str)], TlsMode)]) -> Mesh {
        let entry = |(labels, mode): &(&[(&str, &str)], TlsMode)| WorkloadTls {
            selector: Selector {
                match_labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            },
            modes: modes(*mode),
        };
        Mesh { tls: entries.iter().map(entry).collect(), ..Mesh::default() }
    }

    fn own(labels: Labels) -> (Own, Arc<Mutex<Vec<TlsMode>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = Arc::clone(&told);
        let pod = Pod { namespace: "shop".into(), account: Some("cart".into()), system: None, labels };
        let own = Own::new(pod, Modes::default(), move |holds| {
            telling.lock().expect("sound").push(holds.modes.mode);
        });
        (own, told)
    }

    #[test]
    fn the_first_entry_that_selects_the_pod_decides_and_is_told_once() {
        let labels = BTreeMap::from([("app".to_owned(), "cart".to_owned())]);
        let (mut own, told) = own(Labels::Fixed(labels));
        let strict = mesh(&[
            (&[("app", "web")], TlsMode::Disabled),
            (&[("app", "cart")], TlsMode::Strict),
            (&[], TlsMode::Permissive),
        ]);
        own.update(Some(&strict));
        own.update(Some(&strict));
        own.update(Some(&mesh(&[])));
        assert_eq!(*told.lock().expect("sound"), [TlsMode::Strict, TlsMode::Permissive]);
    }

    #[test]
    fn a_configuration_that_goes_away_opens_nothing() {
        let (mut own, told) = own(Labels::Fixed(BTreeMap::new()));
        own.update(None);
        own.update(Some(&mesh(&[(&[], TlsMode::Strict)])));
        own.update(None);
        assert_eq!(*told.lock().expect("sound"), [TlsMode::Permissive, TlsMode::Strict]);
    }

    #[test]
    fn all_policies_that_select_the_pod_hold_and_labels_that_can_t_be_read_change_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("labels");
        std::fs::write(&path, "app=\"cart\"\n").expect("written");
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = Arc::clone(&told);
        let labels = Labels::File(path.clone());
        let pod = Pod { namespace: "shop".into(), account: Some("cart".into()), system: None, labels };
        let mut own = Own::new(pod, Modes::default(), move |holds| {
            let names = holds.access.iter().map(|access| access.name().to_owned());
            telling.lock().expect("sound").push(names.collect::<Vec<_>>().join(" "));
        });
        let mesh = |policies: &str| {
            let text = format!(r#"{{"format":1,"namespace":"shop","access":[{policies}]}}"#);
            serde_json::from_str::<Mesh>(&text).expect("parses")
        };
        let cart = r#"{"name":"cart","selector":{"matchLabels":{"app":"cart"}},"allow":[]}"#;
        let web = r#"{"name":"web","selector":{"matchLabels":{"app":"web"}},"allow":[]}"#;
        let all = r#"{"name":"all","later":true}"#;
        own.update(Some(&mesh(&format!("{cart},{web},{all}"))));
        own.update(Some(&mesh(&format!("{cart},{web},{all}"))));
        std::fs::remove_file(&path).expect("removed");
        own.update(Some(&mesh(cart)));
        own.update(Some(&mesh("")));
        own.update(None);
        assert_eq!(*told.lock().expect("sound"), ["cart all", "cart", ""]);
    }

    #[test]
    fn a_pod_is_what_all_conditions_say() {
        let (own, _) = own(Labels::Fixed(BTreeMap::from([("app".to_owned(), "cart".to_owned())])));
        let is = |namespace: Option<&str>, account: Option<&str>, label: Option<&str>| {
            own.source().is(&SourceMatch {
                namespace: namespace.map(str::to_owned),
                account: account.map(str::to_owned),
                labels: label.map(|value| ("app".to_owned(), value.to_owned())).into_iter().collect(),
            })
        };
        assert!(is(None, None, None) && is(Some("shop"), Some("cart"), Some("cart")));
        assert!(!is(Some("pay"), Some("cart"), Some("cart")));
        assert!(!is(None, Some("web"), None) && !is(Some("shop"), None, Some("web")));
    }

    #[test]
    fn labels_come_from_the_downward_api_s_file_and_follow_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("labels");
        let (mut own, told) = own(Labels::File(path.clone()));
        let mesh = mesh(&[(&[("app.kubernetes.io/name", "cart")], TlsMode::Strict)]);
        own.update(Some(&mesh));
        std::fs::write(&path, "a=\"b\"\napp.kubernetes.io/name=\"cart\"\nempty=\"\"\n").expect("written");
        own.update(Some(&mesh));
        assert_eq!(*told.lock().expect("sound"), [TlsMode::Permissive, TlsMode::Strict]);
    }
}
