//! Pod Security admission, as far as it decides whether an injected pod would be let in.
//!
//! It runs after the webhook and would refuse the init container in words that name no cure.

use std::collections::BTreeMap;

/// Label of a namespace that names the level.
pub const ENFORCE_LABEL: &str = "pod-security.kubernetes.io/enforce";
/// Annotation of a namespace: `"true"` says that the cluster's admission configuration exempts it, which
/// can't be seen from outside, and that its pods are to be injected all the same.
pub const EXEMPT_ANNOTATION: &str = "ferrule.dev/pod-security-exempt";

/// A Pod Security level that forbids the init container's capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Forbids known privilege escalations.
    Baseline,
    /// Follows hardening practice.
    Restricted,
}

impl Level {
    /// As the label has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }

    /// The level that a namespace with this metadata enforces, if it forbids injection.
    #[must_use]
    pub fn enforced(
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> Option<Self> {
        if annotations.get(EXEMPT_ANNOTATION).is_some_and(|value| value == "true") {
            return None;
        }
        match labels.get(ENFORCE_LABEL).map(String::as_str) {
            Some("baseline") => Some(Self::Baseline),
            Some("restricted") => Some(Self::Restricted),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_baseline_and_restricted_forbid_injection() {
        let enforced = |level: &str| Level::enforced(&map(&[(ENFORCE_LABEL, level)]), &map(&[]));
        assert_eq!(enforced("baseline"), Some(Level::Baseline));
        assert_eq!(enforced("restricted"), Some(Level::Restricted));
        assert_eq!(enforced("privileged"), None);
        assert_eq!(
            Level::enforced(&map(&[("pod-security.kubernetes.io/warn", "restricted")]), &map(&[])),
            None
        );
    }

    #[test]
    fn an_exempt_namespace_is_taken_at_its_word() {
        let labels = map(&[(ENFORCE_LABEL, "restricted")]);
        assert_eq!(Level::enforced(&labels, &map(&[(EXEMPT_ANNOTATION, "true")])), None);
        assert_eq!(Level::enforced(&labels, &map(&[(EXEMPT_ANNOTATION, "no")])), Some(Level::Restricted));
    }
}
