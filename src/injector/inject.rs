//! The decision about one pod: a patch, nothing, or a refusal. No input or output, no clock.
//!
//! It reads the pod as plain JSON and only adds or replaces what it changes, so fields that a newer
//! Kubernetes has and this program does not know survive.

use ferrule_config::names::{self, INIT_CONTAINER, INJECT_LABEL, PROXY_CONTAINER, PROXY_UID};
use json_patch::Patch;
use serde_json::{Map, Value, json};

use super::{
    Refusal, Settings,
    annotations::{Bounds, INJECTED, Options},
    containers::{self, API_VOLUME, IDENTITY_VOLUME},
    edit::{Edits, covers},
    podsecurity::Level,
    probes::Rewritten,
};

/// Value of the annotation on pods injected by this build.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
const MIRROR_POD: &str = "kubernetes.io/config.mirror";
/// Kubernetes' default of `terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECONDS: u64 = 30;
const RESERVED_PORTS: std::ops::RangeInclusive<u64> = 15101..=15120;

/// What is known about a pod besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Namespace that it is to be created in; the pod itself need not name it.
    pub namespace: &'a str,
    /// Pod Security level that the namespace enforces, where that forbids injection.
    pub pod_security: Option<Level>,
}

/// What is to be done with a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It gets a sidecar. The patch is empty when it has everything already.
    Inject {
        /// Changes to the pod.
        patch: Patch,
        /// Things that the user should know, none of which stops the pod.
        warnings: Vec<String>,
    },
    /// It stays as it is.
    Skip(Skip),
}

/// Why a pod stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It has the label that declines.
    OptedOut,
    /// It uses the node's network; redirecting that would redirect the node.
    HostNetwork,
    /// It runs on Windows, which has no nftables.
    Windows,
    /// It is the API's image of a static pod, which can't be changed there.
    Mirror,
    /// It belongs to the cluster's or the operator's own namespace.
    SystemNamespace,
}

impl Skip {
    /// What to tell a user who probably expected a sidecar.
    #[must_use]
    pub const fn warning(self) -> Option<&'static str> {
        match self {
            Self::HostNetwork => Some(
                "ferrule: the pod uses the node's network (hostNetwork: true), so it stays outside the mesh",
            ),
            Self::Windows => Some("ferrule: the pod runs on Windows, so it stays outside the mesh"),
            Self::OptedOut | Self::Mirror | Self::SystemNamespace => None,
        }
    }
}

/// Decides about a pod. What it returns leads to a pod that it would not change again.
///
/// # Errors
/// [`Refusal`], when the pod asks for what can't be done.
pub fn inject(pod: &Value, context: &Context<'_>, settings: &Settings) -> Result<Decision, Refusal> {
    let pod = Pod::of(pod)?;
    if let Some(skip) = pod.skip(context, settings)? {
        return Ok(Decision::Skip(skip));
    }
    let options = Options::parse(pod.annotations, pod.bounds(), &settings.proxy)?;
    pod.refuse_collisions()?;
    if let Some(level) = context.pod_security {
        return Err(Refusal::PodSecurity { namespace: context.namespace.to_owned(), level });
    }
    let Rewritten { asked, probes, warnings } = pod.rewrite_probes(&options.exclude_inbound_ports);

    let app_armor = pod.has_own_app_armor_profile();
    let init = containers::init(&options, &settings.proxy, app_armor);
    let sidecar = containers::sidecar(&options, &settings.proxy, &settings.identity, &asked, app_armor);
    let mut edits = Edits::default();
    // Probes first: their pointers count the init containers as they are in the given pod.
    for (pointer, probe) in probes {
        edits.replace(&pointer, probe);
    }
    pod.put_init_containers(init, sidecar, &mut edits);
    pod.put_volumes(&mut edits);
    pod.put_annotations(&mut edits);
    Ok(Decision::Inject { patch: edits.into_patch(), warnings })
}

/// A view of the parts of a pod that matter here.
struct Pod<'a> {
    labels: Option<&'a Map<String, Value>>,
    annotations: Option<&'a Map<String, Value>>,
    spec: &'a Map<String, Value>,
    containers: &'a [Value],
    init_containers: &'a [Value],
    volumes: &'a [Value],
    /// Containers and volumes of our names are ours, not the user's.
    injected: bool,
}

impl<'a> Pod<'a> {
    fn of(pod: &'a Value) -> Result<Self, Refusal> {
        let metadata =
            pod.get("metadata").and_then(Value::as_object).ok_or(Refusal::NotAPod("no metadata"))?;
        let spec = pod.get("spec").and_then(Value::as_object).ok_or(Refusal::NotAPod("no spec"))?;
        let containers = list(spec, "containers");
        if containers.is_empty() {
            return Err(Refusal::NotAPod("no spec.containers"));
        }
        let annotations = metadata.get("annotations").and_then(Value::as_object);
        Ok(Self {
            labels: metadata.get("labels").and_then(Value::as_object),
            annotations,
            spec,
            containers,
            init_containers: list(spec, "initContainers"),
            volumes: list(spec, "volumes"),
            injected: annotations.is_some_and(|annotations| annotations.contains_key(INJECTED)),
        })
    }

    fn skip(&self, context: &Context<'_>, settings: &Settings) -> Result<Option<Skip>, Refusal> {
        if context.namespace == "kube-system" || context.namespace == settings.namespace {
            return Ok(Some(Skip::SystemNamespace));
        }
        if self.annotations.is_some_and(|annotations| annotations.contains_key(MIRROR_POD)) {
            return Ok(Some(Skip::Mirror));
        }
        match self.labels.and_then(|labels| labels.get(INJECT_LABEL)).and_then(Value::as_str) {
            Some("disabled") => return Ok(Some(Skip::OptedOut)),
            None | Some("enabled") => {}
            Some(other) => return Err(Refusal::InjectLabel { value: other.to_owned() }),
        }
        if self.spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
            return Ok(Some(Skip::HostNetwork));
        }
        let selected = self.spec.get("nodeSelector").and_then(|selector| selector.get("kubernetes.io/os"));
        let declared = self.spec.get("os").and_then(|os| os.get("name"));
        let windows = [selected, declared].into_iter().flatten().any(|os| os == "windows");
        Ok(windows.then_some(Skip::Windows))
    }

    fn bounds(&self) -> Bounds {
        let grace = self.spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64);
        let resources = self.spec.get("resources").and_then(Value::as_object);
        Bounds {
            grace_seconds: grace.unwrap_or(DEFAULT_GRACE_SECONDS),
            pod_resources: resources.is_some_and(|resources| !resources.is_empty()),
        }
    }

    fn is_ours(&self, container: &Value) -> bool {
        self.injected && is_named(container, &[INIT_CONTAINER, PROXY_CONTAINER])
    }

    fn refuse_collisions(&self) -> Result<(), Refusal> {
        let reserved = |kind, name: &str| Err(Refusal::ReservedName { kind, name: name.to_owned() });
        let users = self.init_containers.iter().filter(|container| !self.is_ours(container));
        for container in self.containers.iter().chain(users) {
            let name = container["name"].as_str().unwrap_or_default();
            if [INIT_CONTAINER, PROXY_CONTAINER].contains(&name) {
                return reserved("container", name);
            }
            for port in container["ports"].as_array().into_iter().flatten() {
                let number = port["containerPort"].as_u64().unwrap_or_default();
                let tcp = port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP");
                if tcp && RESERVED_PORTS.contains(&number) {
                    return Err(Refusal::ReservedPort { container: name.to_owned(), port: number });
                }
            }
            if self.user(container) == Some(u64::from(PROXY_UID)) {
                return Err(Refusal::ProxyUser { container: name.to_owned() });
            }
        }
        for name in [API_VOLUME, IDENTITY_VOLUME] {
            if !self.injected && self.volumes.iter().any(|volume| is_named(volume, &[name])) {
                return reserved("volume", name);
            }
        }
        Ok(())
    }

    /// The user that a container runs as, where the pod says so.
    fn user(&self, container: &Value) -> Option<u64> {
        let of_pod = || self.spec.get("securityContext")?.get("runAsUser")?.as_u64();
        container["securityContext"]["runAsUser"].as_u64().or_else(of_pod)
    }

    fn has_own_app_armor_profile(&self) -> bool {
        let profile = self.spec.get("securityContext").and_then(|context| context.get("appArmorProfile"));
        profile.is_some_and(|profile| profile["type"] == "Localhost")
    }

    fn rewrite_probes(&self, excluded: &[u16]) -> Rewritten {
        let mut rewritten = Rewritten::default();
        for (key, containers) in [("containers", self.containers), ("initContainers", self.init_containers)] {
            for (index, container) in containers.iter().enumerate() {
                if !self.is_ours(container) {
                    rewritten.add(container, &format!("/spec/{key}/{index}"), excluded);
                }
            }
        }
        rewritten
    }

    /// Ours come first, in this order: a user's init container finds the redirect set and the sidecar ready.
    /// What is there but is not as this version makes it, or not where it belongs, is made anew: such a pod
    /// was copied or restored from a running one, or another webhook put something in front.
    fn put_init_containers(&self, init: Value, sidecar: Value, edits: &mut Edits) {
        let ours: Vec<usize> = (0..self.init_containers.len())
            .filter(|&index| self.is_ours(&self.init_containers[index]))
            .collect();
        if let ([0, 1], [first, second, ..]) = (&ours[..], self.init_containers)
            && covers(first, &init)
            && covers(second, &sidecar)
        {
            return;
        }
        for index in ours.into_iter().rev() {
            edits.remove(&format!("/spec/initContainers/{index}"));
        }
        if self.init_containers.is_empty() {
            edits.add("/spec/initContainers", json!([init, sidecar]));
        } else {
            edits.add("/spec/initContainers/0", init);
            edits.add("/spec/initContainers/1", sidecar);
        }
    }

    fn put_volumes(&self, edits: &mut Edits) {
        let mut exists = !self.volumes.is_empty();
        for (name, volume) in
            [(API_VOLUME, containers::api_volume()), (IDENTITY_VOLUME, containers::identity_volume())]
        {
            match self.volumes.iter().position(|existing| is_named(existing, &[name])) {
                Some(index) if covers(&self.volumes[index], &volume) => {}
                Some(index) => edits.replace(&format!("/spec/volumes/{index}"), volume),
                None if exists => edits.add("/spec/volumes/-", volume),
                None => edits.add("/spec/volumes", json!([volume])),
            }
            exists = true;
        }
    }

    fn put_annotations(&self, edits: &mut Edits) {
        let mut wanted = vec![(INJECTED, json!(VERSION))];
        // Without it, `kubectl logs` and `kubectl exec` mention the sidecar each time they choose for the user.
        if self.annotations.is_none_or(|annotations| !annotations.contains_key(DEFAULT_CONTAINER)) {
            wanted.push((DEFAULT_CONTAINER, self.containers[0]["name"].clone()));
        }
        let Some(annotations) = self.annotations else {
            let all: Map<String, Value> =
                wanted.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            return edits.add("/metadata/annotations", Value::Object(all));
        };
        for (name, value) in wanted {
            if annotations.get(name) != Some(&value) {
                edits.add(&format!("/metadata/annotations/{}", name.replace('/', "~1")), value);
            }
        }
    }
}

fn list<'a>(spec: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    spec.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_named(object: &Value, wanted: &[&str]) -> bool {
    object.get("name").and_then(Value::as_str).is_some_and(|name| wanted.contains(&name))
}

const _: () = assert!(names::ports::OUTBOUND as u64 == *RESERVED_PORTS.start());
