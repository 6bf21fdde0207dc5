//! Why a pod is refused, in words for the person who wrote it.

use ferrule_config::names;
use thiserror::Error;

use super::podsecurity::Level;

/// What a pod asks for and can't have. The text is shown by `kubectl` and in the events of the workload,
/// so each names the cause and the cure.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The review holds no pod that makes sense.
    #[error("the object is not a pod: {0}")]
    NotAPod(&'static str),
    /// An annotation's value is malformed.
    #[error("annotation {name}: {value:?} is not accepted; expected {accepted}")]
    Annotation {
        /// Name of the annotation.
        name: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        accepted: &'static str,
    },
    /// Two settings contradict each other.
    #[error("annotation {name}: {value:?} is not accepted; {conflict}")]
    Conflict {
        /// Name of the annotation.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it contradicts and what to do.
        conflict: String,
    },
    /// An annotation of Ferrule's prefix that Ferrule does not know.
    #[error("annotation {name} is unknown to this version of Ferrule; {hint}")]
    UnknownAnnotation {
        /// Name of the annotation.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// The opt-out label has a value without a meaning.
    #[error(
        "label {}: {value:?} is not accepted; \"disabled\" keeps the sidecar out of the pod, without the label it \
         follows its namespace",
        names::INJECT_LABEL
    )]
    InjectLabel {
        /// Its value.
        value: String,
    },
    /// A container or volume has a name that the injector needs.
    #[error(
        "{kind} {name:?}: the name is reserved for Ferrule, which adds one of that name itself; rename yours"
    )]
    ReservedName {
        /// `container` or `volume`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A container listens on a port of Ferrule's block.
    #[error(
        "container {container:?} declares port {port}: ports 15101 to 15120 are reserved for Ferrule's sidecar; let it \
         listen on another one, or keep the sidecar out with the pod label {}: disabled",
        names::INJECT_LABEL
    )]
    ReservedPort {
        /// Name of the container.
        container: String,
        /// The port.
        port: u64,
    },
    /// A container runs as the sidecar's user.
    #[error(
        "container {container:?} runs as user {}, which is the sidecar's: its traffic would bypass the mesh; set another \
         runAsUser",
        names::PROXY_UID
    )]
    ProxyUser {
        /// Name of the container.
        container: String,
    },
    /// The namespace forbids what the init container needs.
    #[error(
        "namespace {namespace} enforces the Pod Security level {level:?}, which forbids NET_ADMIN, and the container {} \
         needs it to redirect the pod's traffic; set the namespace's label pod-security.kubernetes.io/enforce to \
         privileged (warn and audit may stay {level:?}), or keep the sidecar out with the pod label {}: disabled",
        names::INIT_CONTAINER, names::INJECT_LABEL, level = level.name()
    )]
    PodSecurity {
        /// The namespace.
        namespace: String,
        /// The level that it enforces.
        level: Level,
    },
}
