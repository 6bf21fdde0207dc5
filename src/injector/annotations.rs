//! The annotations on a pod, parsed once into what the sidecar is to be like.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{AccessLog, ProxySettings, Quantity, Refusal, Resources};

const PREFIX: &str = "ferrule.dev/";
/// Names the version that injected the pod; set by the injector, never by a user.
pub const INJECTED: &str = ferrule_config::names::INJECTED_ANNOTATION;
/// Inbound ports that are not redirected.
pub const EXCLUDE_INBOUND_PORTS: &str = ferrule_config::names::EXCLUDE_INBOUND_PORTS_ANNOTATION;
/// Outbound ports that are not redirected.
pub const EXCLUDE_OUTBOUND_PORTS: &str = "ferrule.dev/exclude-outbound-ports";
/// Outbound addresses that are not redirected.
pub const EXCLUDE_OUTBOUND_ADDRESSES: &str = "ferrule.dev/exclude-outbound-addresses";
/// Users whose outbound traffic is not redirected.
pub const EXCLUDE_UIDS: &str = "ferrule.dev/exclude-uids";
/// Log filter of the sidecar.
pub const LOG_LEVEL: &str = "ferrule.dev/log-level";
/// CPU request of the sidecar.
pub const PROXY_CPU_REQUEST: &str = "ferrule.dev/proxy-cpu-request";
/// CPU limit of the sidecar.
pub const PROXY_CPU_LIMIT: &str = "ferrule.dev/proxy-cpu-limit";
/// Memory request of the sidecar.
pub const PROXY_MEMORY_REQUEST: &str = "ferrule.dev/proxy-memory-request";
/// Memory limit of the sidecar.
pub const PROXY_MEMORY_LIMIT: &str = "ferrule.dev/proxy-memory-limit";
/// Whether the sidecar writes a line for each request, and how.
pub const ACCESS_LOG: &str = "ferrule.dev/access-log";
/// Which requests it writes a line for.
pub const ACCESS_LOG_FILTER: &str = "ferrule.dev/access-log-filter";
/// Time that the sidecar leaves open requests when it is told to stop.
pub const DRAIN_SECONDS: &str = "ferrule.dev/drain-seconds";

/// Whether the sidecar tells its configuration to everybody who reaches its admin port.
pub const EXPOSE_CONFIG: &str = "ferrule.dev/expose-config";

const KNOWN: [&str; 14] = [
    INJECTED,
    EXCLUDE_INBOUND_PORTS,
    EXCLUDE_OUTBOUND_PORTS,
    EXCLUDE_OUTBOUND_ADDRESSES,
    EXCLUDE_UIDS,
    LOG_LEVEL,
    ACCESS_LOG,
    ACCESS_LOG_FILTER,
    PROXY_CPU_REQUEST,
    PROXY_CPU_LIMIT,
    PROXY_MEMORY_REQUEST,
    PROXY_MEMORY_LIMIT,
    DRAIN_SECONDS,
    EXPOSE_CONFIG,
];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The application has ended when the sidecar is told to stop, so what it drains is short.
const DEFAULT_DRAIN_SECONDS: u64 = 10;

/// What the sidecar of one pod is to be like.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) exclude_inbound_ports: Vec<u16>,
    pub(super) exclude_outbound_ports: Vec<u16>,
    pub(super) exclude_outbound_addresses: Vec<String>,
    pub(super) exclude_uids: Vec<u32>,
    pub(super) log_level: String,
    pub(super) access_log: AccessLog,
    pub(super) resources: Resources,
    pub(super) drain_seconds: u64,
    pub(super) expose_config: bool,
}

/// The parts of a pod's spec that bound what its annotations may say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// `terminationGracePeriodSeconds`.
    pub(super) grace_seconds: u64,
    /// The pod sets resources as a whole; those of containers must fit in, so defaults would be in the way.
    pub(super) pod_resources: bool,
}

impl Options {
    pub(super) fn parse(
        annotations: Option<&Map<String, Value>>,
        bounds: Bounds,
        proxy: &ProxySettings,
    ) -> Result<Self, Refusal> {
        let annotations = Annotations(annotations);
        annotations.refuse_unknown()?;
        Ok(Self {
            exclude_inbound_ports: annotations.list(EXCLUDE_INBOUND_PORTS, PORTS, port)?,
            exclude_outbound_ports: annotations.list(EXCLUDE_OUTBOUND_PORTS, PORTS, port)?,
            exclude_outbound_addresses: annotations.list(EXCLUDE_OUTBOUND_ADDRESSES, ADDRESSES, address)?,
            exclude_uids: annotations
                .list(EXCLUDE_UIDS, "user ids, separated by commas", |id| id.parse().ok())?,
            log_level: annotations.log_level()?.unwrap_or(&proxy.log_level).to_owned(),
            access_log: annotations.access_log(&proxy.access_log)?,
            resources: annotations.resources(bounds, &proxy.resources)?,
            drain_seconds: annotations.drain_seconds(bounds)?,
            expose_config: annotations
                .one_of(EXPOSE_CONFIG, &["true", "false"], "true or false")?
                .is_some_and(|value| value == "true"),
        })
    }
}

const PORTS: &str = "port numbers from 1 to 65535, separated by commas, for example \"3306,6379\"";
const ADDRESSES: &str =
    "IP addresses and CIDR ranges, separated by commas, for example \"169.254.169.254,fd00::/8\"";

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&port| port > 0)
}

fn address(text: &str) -> Option<String> {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().ok()?;
    let Some(length) = length else { return Some(address.to_string()) };
    let length: u8 = length.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (length <= longest).then(|| format!("{address}/{length}"))
}

struct Annotations<'a>(Option<&'a Map<String, Value>>);

impl<'a> Annotations<'a> {
    fn value(&self, name: &str) -> Option<&'a str> {
        self.0?.get(name)?.as_str()
    }

    fn refuse_unknown(&self) -> Result<(), Refusal> {
        let mut names = self.0.into_iter().flat_map(Map::keys).filter(|name| name.starts_with(PREFIX));
        match names.find(|name| !KNOWN.contains(&name.as_str())) {
            Some(name) => Err(Refusal::UnknownAnnotation { name: name.clone(), hint: hint(name) }),
            None => Ok(()),
        }
    }

    fn list<T>(
        &self,
        name: &'static str,
        accepted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        let value = self.value(name).unwrap_or_default().trim();
        if value.is_empty() {
            return Ok(Vec::new());
        }
        let parsed: Option<Vec<T>> = value.split(',').map(|item| parse(item.trim())).collect();
        parsed.ok_or_else(|| Refusal::Annotation { name, value: value.to_owned(), accepted })
    }

    fn log_level(&self) -> Result<Option<&'a str>, Refusal> {
        let Some(value) = self.value(LOG_LEVEL) else { return Ok(None) };
        let target = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
        };
        let accepted = value.split(',').all(|directive| match directive.split_once('=') {
            Some((name, level)) => target(name) && LEVELS.contains(&level),
            None => LEVELS.contains(&directive),
        });
        if accepted {
            return Ok(Some(value));
        }
        Err(Refusal::Annotation {
            name: LOG_LEVEL,
            value: value.to_owned(),
            accepted: "off, error, warn, info, debug or trace, or for single modules \"info,ferrule_proxy::route=debug\"",
        })
    }

    fn access_log(&self, default: &AccessLog) -> Result<AccessLog, Refusal> {
        let AccessLog { format, filter } = default;
        Ok(AccessLog {
            format: self
                .one_of(ACCESS_LOG, &AccessLog::FORMATS, "off, text or json")?
                .unwrap_or(format)
                .to_owned(),
            filter: self
                .one_of(ACCESS_LOG_FILTER, &AccessLog::FILTERS, "all or errors")?
                .unwrap_or(filter)
                .to_owned(),
        })
    }

    fn one_of(
        &self,
        name: &'static str,
        known: &[&str],
        accepted: &'static str,
    ) -> Result<Option<&'a str>, Refusal> {
        match self.value(name) {
            Some(value) if !known.contains(&value) => {
                Err(Refusal::Annotation { name, value: value.to_owned(), accepted })
            }
            value => Ok(value),
        }
    }

    fn resources(&self, bounds: Bounds, defaults: &Resources) -> Result<Resources, Refusal> {
        let none = Resources::default();
        let defaults = if bounds.pod_resources { &none } else { defaults };
        let (cpu_request, cpu_limit) = self.pair(
            (PROXY_CPU_REQUEST, &defaults.cpu_request),
            (PROXY_CPU_LIMIT, &defaults.cpu_limit),
            |name| self.quantity(name, "an amount of CPU, for example 100m or 0.5"),
        )?;
        let (memory_request, memory_limit) = self.pair(
            (PROXY_MEMORY_REQUEST, &defaults.memory_request),
            (PROXY_MEMORY_LIMIT, &defaults.memory_limit),
            |name| self.memory(name),
        )?;
        Ok(Resources { cpu_request, cpu_limit, memory_request, memory_limit })
    }

    /// A request and a limit. Where only one of them is annotated, a default that contradicts it gives way.
    fn pair(
        &self,
        request: (&'static str, &Option<Quantity>),
        limit: (&'static str, &Option<Quantity>),
        parse: impl Fn(&'static str) -> Result<Option<Quantity>, Refusal>,
    ) -> Result<(Option<Quantity>, Option<Quantity>), Refusal> {
        let (own_request, own_limit) = (parse(request.0)?, parse(limit.0)?);
        match (own_request, own_limit) {
            (Some(own_request), Some(own_limit)) if own_request > own_limit => Err(Refusal::Conflict {
                name: request.0,
                value: own_request.to_string(),
                conflict: format!("it is more than the limit of {own_limit} in {}", limit.0),
            }),
            (Some(own), None) => {
                let default = limit.1.clone();
                let limit = default.map(|default| default.max(own.clone()));
                Ok((Some(own), limit))
            }
            (None, Some(own)) => {
                let default = request.1.clone();
                let request = default.map(|default| default.min(own.clone()));
                Ok((request, Some(own)))
            }
            (None, None) => Ok((request.1.clone(), limit.1.clone())),
            both => Ok(both),
        }
    }

    fn quantity(&self, name: &'static str, accepted: &'static str) -> Result<Option<Quantity>, Refusal> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let parsed =
            value.parse().map_err(|_| Refusal::Annotation { name, value: value.to_owned(), accepted })?;
        Ok(Some(parsed))
    }

    fn memory(&self, name: &'static str) -> Result<Option<Quantity>, Refusal> {
        const ACCEPTED: &str = "an amount of memory of at least 1Mi, for example 64Mi";
        match self.quantity(name, ACCEPTED)? {
            Some(quantity) if quantity.is_under_a_mebibyte() => {
                Err(Refusal::Annotation { name, value: quantity.to_string(), accepted: ACCEPTED })
            }
            quantity => Ok(quantity),
        }
    }

    fn drain_seconds(&self, bounds: Bounds) -> Result<u64, Refusal> {
        let Some(value) = self.value(DRAIN_SECONDS) else {
            return Ok(DEFAULT_DRAIN_SECONDS.min(bounds.grace_seconds));
        };
        let seconds = value.parse().map_err(|_| Refusal::Annotation {
            name: DRAIN_SECONDS,
            value: value.to_owned(),
            accepted: "a whole number of seconds, for example 20",
        })?;
        if seconds > bounds.grace_seconds {
            return Err(Refusal::Conflict {
                name: DRAIN_SECONDS,
                value: value.to_owned(),
                conflict: format!(
                    "it is more than the pod's terminationGracePeriodSeconds of {}, after which it is killed; raise that \
                     or lower this",
                    bounds.grace_seconds
                ),
            });
        }
        Ok(seconds)
    }
}

fn hint(name: &str) -> String {
    if name == ferrule_config::names::INJECT_LABEL {
        return format!("{name} is a label, not an annotation");
    }
    let nearest = KNOWN.iter().filter(|known| **known != INJECTED).min_by_key(|known| distance(name, known));
    match nearest {
        Some(known) if distance(name, known) <= 4 => format!("did you mean {known}?"),
        _ => format!("known are {}", KNOWN[1..].join(", ")),
    }
}

/// Levenshtein distance: how many single edits lead from one name to the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let substitution = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::injector::Settings;

    const BOUNDS: Bounds = Bounds { grace_seconds: 30, pod_resources: false };

    fn parse(annotations: &Value) -> Result<Options, Refusal> {
        Options::parse(annotations.as_object(), BOUNDS, &Settings::new("ferrule/ferrule-proxy:test").proxy)
    }

    fn text(quantity: Option<Quantity>) -> Option<String> {
        quantity.map(|quantity| quantity.to_string())
    }

    #[test]
    fn lists_forgive_spaces_and_emptiness() {
        let options = parse(&json!({
            EXCLUDE_INBOUND_PORTS: " 80, 443 ",
            EXCLUDE_OUTBOUND_PORTS: "",
            EXCLUDE_OUTBOUND_ADDRESSES: "169.254.169.254, 10.0.0.0/8,FD00::/8",
            EXCLUDE_UIDS: "0,1337",
        }))
        .expect("accepted");
        assert_eq!(options.exclude_inbound_ports, [80, 443]);
        assert!(options.exclude_outbound_ports.is_empty());
        assert_eq!(options.exclude_outbound_addresses, ["169.254.169.254", "10.0.0.0/8", "fd00::/8"]);
        assert_eq!(options.exclude_uids, [0, 1337]);
    }

    #[test]
    fn malformed_values_are_refused_by_name() {
        for (name, value) in [
            (EXCLUDE_INBOUND_PORTS, "http"),
            (EXCLUDE_INBOUND_PORTS, "0"),
            (EXCLUDE_INBOUND_PORTS, "80,"),
            (EXCLUDE_OUTBOUND_PORTS, "65536"),
            (EXCLUDE_OUTBOUND_ADDRESSES, "example.com"),
            (EXCLUDE_OUTBOUND_ADDRESSES, "10.0.0.0/33"),
            (EXCLUDE_OUTBOUND_ADDRESSES, "::1/129"),
            (EXCLUDE_UIDS, "-1"),
            (EXCLUDE_UIDS, "root"),
            (LOG_LEVEL, "verbose"),
            (LOG_LEVEL, "info,a b=debug"),
            (LOG_LEVEL, ""),
            (PROXY_CPU_REQUEST, "lots"),
            (PROXY_CPU_LIMIT, "1core"),
            (PROXY_MEMORY_REQUEST, "64mb"),
            (PROXY_MEMORY_LIMIT, "256"),
            (DRAIN_SECONDS, "10s"),
            (DRAIN_SECONDS, "31"),
        ] {
            let message = parse(&json!({ name: value })).expect_err(value).to_string();
            assert!(message.contains(name) && message.contains(&format!("{value:?}")), "{message}");
        }
    }

    #[test]
    fn a_typo_gets_a_proposal() {
        let message = parse(&json!({"ferrule.dev/proxy-cpu-limits": "1"})).expect_err("unknown").to_string();
        assert!(message.ends_with("did you mean ferrule.dev/proxy-cpu-limit?"), "{message}");
        let message = parse(&json!({"ferrule.dev/telemetry": "1"})).expect_err("unknown").to_string();
        assert!(message.contains("known are ferrule.dev/exclude-inbound-ports,"), "{message}");
        let message = parse(&json!({"ferrule.dev/inject": "disabled"})).expect_err("unknown").to_string();
        assert!(message.ends_with("is a label, not an annotation"), "{message}");
    }

    #[test]
    fn other_prefixes_are_none_of_our_business() {
        assert!(parse(&json!({"example.com/ferrule": "x", "ferrule.dev.example/x": "y"})).is_ok());
    }

    #[test]
    fn a_default_gives_way_to_an_annotation() {
        let resources = parse(&json!({PROXY_MEMORY_REQUEST: "512Mi"})).expect("accepted").resources;
        assert_eq!(text(resources.memory_limit).as_deref(), Some("512Mi"));
        let resources = parse(&json!({PROXY_MEMORY_LIMIT: "16Mi"})).expect("accepted").resources;
        assert_eq!(text(resources.memory_request).as_deref(), Some("16Mi"));
        let resources = parse(&json!({PROXY_CPU_REQUEST: "2"})).expect("accepted").resources;
        assert_eq!((text(resources.cpu_request).as_deref(), resources.cpu_limit), (Some("2"), None));
    }

    #[test]
    fn a_request_above_its_limit_is_refused() {
        let message =
            parse(&json!({PROXY_CPU_REQUEST: "1", PROXY_CPU_LIMIT: "500m"})).expect_err("contradiction");
        assert!(message.to_string().contains("more than the limit of 500m in ferrule.dev/proxy-cpu-limit"));
    }

    #[test]
    fn draining_ends_within_the_grace_period() {
        let proxy = Settings::new("image").proxy;
        let drain = |grace_seconds| {
            let bounds = Bounds { grace_seconds, ..BOUNDS };
            Options::parse(None, bounds, &proxy).expect("accepted").drain_seconds
        };
        assert_eq!((drain(30), drain(5), drain(0)), (10, 5, 0));
    }

    #[test]
    fn resources_of_the_whole_pod_replace_our_defaults() {
        let bounds = Bounds { pod_resources: true, ..BOUNDS };
        let proxy = Settings::new("image").proxy;
        assert_eq!(Options::parse(None, bounds, &proxy).expect("accepted").resources, Resources::default());
    }
}
