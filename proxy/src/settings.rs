//! The proxy's settings, from the environment. Parsed once; an error names the variable, its value and what is
//! accepted.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ferrule_config::{
    Modes, TlsMode,
    identity::{SpiffeId, TrustDomain},
    names::{self, ports},
    probe::Probe,
};
use thiserror::Error;

use crate::{
    balance::Locality,
    discovery::{Address, Labels, Pod, Times},
    http1::head::{MAX_FIELDS, MAX_HEAD},
    http2::frame::MAX_31,
    identity,
    limits::{Http2Limits, Limits},
    telemetry::{AccessLogOptions, Filter, Shape},
    tls::mode::InboundPolicy,
};

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `FERRULE_DISCOVERY`: `kube` (default) or `dir:PATH`.
    pub discovery: Source,
    /// `FERRULE_ZONE` and `FERRULE_NODE`: where this proxy runs, for endpoints that are near. Default: not known; a zone
    /// that is not given is learnt from endpoints on the same node.
    pub locality: Locality,
    /// `FERRULE_LIMIT_DESTINATION_IDLE` and `FERRULE_DISCOVERY_CHECK`; each is described at its field.
    pub times: Times,
    /// `FERRULE_REDIRECTED`: take redirected connections on ports 15101 and 15102. Default: true.
    pub redirected: Option<Redirected>,
    /// `FERRULE_OUTBOUND_LISTENERS`: `ADDRESS=NAMESPACE/SERVICE:PORT`, comma-separated.
    pub outbound: Vec<(SocketAddr, ServicePort)>,
    /// `FERRULE_INBOUND_LISTENERS`: `ADDRESS=APPLICATION-ADDRESS`, comma-separated.
    pub inbound: Vec<(SocketAddr, SocketAddr)>,
    /// `FERRULE_ADMIN`: where `/ready`, `/live`, `/metrics` and `/config` are. Default: `[::]:15110`.
    pub admin: SocketAddr,
    /// `FERRULE_PROBES`: what the admin port may ask the application, a JSON list of paths as [`Probe`] has them.
    pub probes: Vec<Probe>,
    /// `FERRULE_EXPOSE_CONFIG`: tell `/config` to everybody, not only to the pod itself. Default: false.
    pub expose_config: bool,
    /// `FERRULE_WORKERS`: threads that carry traffic. Default: the machine's processors, 4 at most.
    pub workers: usize,
    /// `FERRULE_DRAIN_SECONDS`: longest time that open connections are given at the end. Default: 20.
    pub drain: Duration,
    /// `FERRULE_ACCESS_LOG`: `off` (default), `text` or `json`; `FERRULE_ACCESS_LOG_FILTER`: `all` (default) or `errors`.
    pub access_log: Option<AccessLogOptions>,
    /// `FERRULE_IDENTITY` (`HOST:PORT` of the identity service; without it there is no identity), `FERRULE_TRUST_DOMAIN`,
    /// `POD_NAMESPACE` and `SERVICE_ACCOUNT` (whose identity it is), `FERRULE_IDENTITY_FILES` (directory with the token,
    /// the trust bundle and the service's address; default: where the injector mounts them).
    pub identity: Option<identity::Settings>,
    /// `FERRULE_MESH_TLS`: `permissive` (default), `strict` or `disabled`: what is accepted until a configuration says more.
    pub accepts: InboundPolicy,
    /// `POD_NAMESPACE`, `SERVICE_ACCOUNT`, `FERRULE_SYSTEM_NAMESPACE` (the operator's, where it is told which pod has which address; without it
    /// pods that are dialled by their address are spoken to plain), and `FERRULE_LABELS` (`KEY=VALUE`, comma-separated; default: the file `labels` in
    /// `FERRULE_IDENTITY_FILES`): whose configuration says what is accepted, and where requests come from. Without a
    /// namespace none does, and no route for certain sources holds.
    pub pod: Option<Pod>,
    /// `POD_IPS`: the pod's own addresses, comma-separated. What goes there never leaves it and is not encrypted.
    pub own_addresses: Vec<IpAddr>,
    /// `FERRULE_LIMIT_…`: bounds on what a peer can make grow or last; each is named at its field.
    pub limits: Limits,
}

/// Where Services, endpoints and configuration come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The API server, with the pod's projected token.
    Kube,
    /// An API server elsewhere: for tests.
    Server(Address),
    /// A directory of YAML or JSON files.
    Directory(PathBuf),
}

/// Listeners for redirected connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirected {
    /// For the application's outbound connections.
    pub outbound: SocketAddr,
    /// For inbound connections.
    pub inbound: SocketAddr,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// Namespace.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Its port.
    pub port: u16,
}

/// A variable that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{variable}={value:?} is not usable; expected {expected}")]
pub struct SettingsError {
    variable: &'static str,
    value: String,
    expected: &'static str,
}

impl Settings {
    /// Reads the settings; `lookup` gives the value of a variable, usually [`std::env::var`]'s.
    ///
    /// # Errors
    /// [`SettingsError`] for the first variable that can't be used.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let get = |variable: &'static str| lookup(variable).filter(|value| !value.is_empty());
        let discovery = parse(get("FERRULE_DISCOVERY"), "FERRULE_DISCOVERY", "kube or dir:PATH", |value| {
            match value.strip_prefix("dir:") {
                Some(path) => Some(Source::Directory(path.into())),
                None => (value == "kube").then_some(Source::Kube),
            }
        })?
        .unwrap_or(Source::Kube);
        let locality = Locality { zone: get("FERRULE_ZONE"), node: get("FERRULE_NODE") };
        let on = parse(get("FERRULE_REDIRECTED"), "FERRULE_REDIRECTED", "true or false", |v| v.parse().ok())?;
        let redirected = on.unwrap_or(true).then(|| Redirected {
            outbound: unspecified(ports::OUTBOUND),
            inbound: unspecified(ports::INBOUND),
        });
        let outbound =
            list(get("FERRULE_OUTBOUND_LISTENERS"), "FERRULE_OUTBOUND_LISTENERS", OUTBOUND_FORM, |item| {
                let (listener, service) = item.split_once('=')?;
                Some((listener.parse().ok()?, service_port(service)?))
            })?;
        let inbound =
            list(get("FERRULE_INBOUND_LISTENERS"), "FERRULE_INBOUND_LISTENERS", INBOUND_FORM, |item| {
                let (listener, application) = item.split_once('=')?;
                Some((listener.parse().ok()?, application.parse().ok()?))
            })?;
        let admin = parse(get("FERRULE_ADMIN"), "FERRULE_ADMIN", "ADDRESS:PORT", |value| value.parse().ok())?
            .unwrap_or_else(|| unspecified(ports::ADMIN));
        let probes = parse(get("FERRULE_PROBES"), "FERRULE_PROBES", PROBES, |value| {
            let texts: Vec<String> = serde_json::from_str(value).ok()?;
            texts.iter().map(|text| text.parse().ok()).collect()
        })?
        .unwrap_or_default();
        let expose_config =
            parse(get("FERRULE_EXPOSE_CONFIG"), "FERRULE_EXPOSE_CONFIG", "true or false", |v| {
                v.parse().ok()
            })?
            .unwrap_or_default();
        let workers = parse(get("FERRULE_WORKERS"), "FERRULE_WORKERS", "1 to 256", |value| {
            value.parse().ok().filter(|count| (1..=256).contains(count))
        })?
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from).min(4));
        let drain =
            parse(get("FERRULE_DRAIN_SECONDS"), "FERRULE_DRAIN_SECONDS", "seconds", |v| v.parse().ok())?
                .map_or(Duration::from_secs(20), Duration::from_secs);
        let access_log = access_log(&get)?;
        let identity = identity(&get)?;
        let mode = parse(get("FERRULE_MESH_TLS"), "FERRULE_MESH_TLS", MODES, |value| match value {
            "permissive" => Some(TlsMode::Permissive),
            "strict" => Some(TlsMode::Strict),
            "disabled" => Some(TlsMode::Disabled),
            _ => None,
        })?;
        let accepts = InboundPolicy { tls: Modes { mode: mode.unwrap_or_default(), ..Modes::default() } };
        let pod = pod(&get)?;
        let own_addresses = list(get("POD_IPS"), "POD_IPS", "ADDRESS[,…]", |item| item.parse().ok())?;
        let limits = limits(&get)?;
        let times = times(&get)?;
        Ok(Self {
            discovery,
            locality,
            times,
            redirected,
            outbound,
            inbound,
            admin,
            probes,
            expose_config,
            workers,
            drain,
            access_log,
            identity,
            accepts,
            pod,
            own_addresses,
            limits,
        })
    }
}

const PROBES: &str = r#"a JSON list like ["/probe/tcp/8080"]"#;
const MODES: &str = "permissive, strict or disabled";
const OUTBOUND_FORM: &str = "ADDRESS:PORT=NAMESPACE/SERVICE:PORT[,…]";
const INBOUND_FORM: &str = "ADDRESS:PORT=ADDRESS:PORT[,…]";

/// How long discovery waits for what, with defaults where nothing is set.
fn times(get: &impl Fn(&'static str) -> Option<String>) -> Result<Times, SettingsError> {
    let mut times = Times::default();
    for (variable, time) in
        [("FERRULE_LIMIT_DESTINATION_IDLE", &mut times.idle), ("FERRULE_DISCOVERY_CHECK", &mut times.check)]
    {
        let at_least = |text: &str| time_limit(text).filter(|time| *time >= Duration::from_secs(1));
        if let Some(set) =
            parse(get(variable), variable, "0s for never, or a duration of at least 1s", at_least)?
        {
            *time = set;
        }
    }
    Ok(times)
}

fn access_log(
    get: &impl Fn(&'static str) -> Option<String>,
) -> Result<Option<AccessLogOptions>, SettingsError> {
    let (shape, filter) = ("FERRULE_ACCESS_LOG", "FERRULE_ACCESS_LOG_FILTER");
    let filter = parse(get(filter), filter, "all or errors", |value| match value {
        "all" => Some(Filter::All),
        "errors" => Some(Filter::Errors),
        _ => None,
    })?
    .unwrap_or_default();
    let shape = parse(get(shape), shape, "off, text or json", |value| match value {
        "off" => Some(None),
        "text" => Some(Some(Shape::Text)),
        "json" => Some(Some(Shape::Json)),
        _ => None,
    })?
    .flatten();
    Ok(shape.map(|shape| AccessLogOptions { shape, filter }))
}

/// Where the identity comes from, if there is to be one.
fn identity(
    get: &impl Fn(&'static str) -> Option<String>,
) -> Result<Option<identity::Settings>, SettingsError> {
    let Some(service) =
        parse(get("FERRULE_IDENTITY"), "FERRULE_IDENTITY", "HOST:PORT", |value| value.parse().ok())?
    else {
        return Ok(None);
    };
    let expected = "a name like cluster.local";
    let domain: Option<TrustDomain> =
        parse(get("FERRULE_TRUST_DOMAIN"), "FERRULE_TRUST_DOMAIN", expected, |value| value.parse().ok())?;
    let namespace = get("POD_NAMESPACE").unwrap_or_default();
    let account = get("SERVICE_ACCOUNT").unwrap_or_default();
    let id = SpiffeId::new(domain.unwrap_or_default(), &namespace, &account).map_err(|_| SettingsError {
        variable: "POD_NAMESPACE/SERVICE_ACCOUNT",
        value: format!("{namespace}/{account}"),
        expected: "names of Kubernetes, for FERRULE_IDENTITY is set",
    })?;
    let files = identity_files(get);
    Ok(Some(identity::Settings { service, id, files }))
}

/// Whose sidecar it is, if that is said.
fn pod(get: &impl Fn(&'static str) -> Option<String>) -> Result<Option<Pod>, SettingsError> {
    let Some(namespace) = get("POD_NAMESPACE") else { return Ok(None) };
    let fixed = get("FERRULE_LABELS").map(|text| {
        list(Some(text), "FERRULE_LABELS", "KEY=VALUE[,…]", |item| {
            item.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
        })
    });
    let labels = match fixed {
        Some(labels) => Labels::Fixed(labels?.into_iter().collect()),
        None => Labels::File(identity_files(get).join(names::LABELS_FILE)),
    };
    let (account, system) = (get("SERVICE_ACCOUNT"), get("FERRULE_SYSTEM_NAMESPACE"));
    Ok(Some(Pod { namespace, account, system, labels }))
}

fn identity_files(get: &impl Fn(&'static str) -> Option<String>) -> PathBuf {
    get("FERRULE_IDENTITY_FILES").map_or_else(|| names::IDENTITY_FILES.into(), PathBuf::from)
}

/// The limits, each with its default where nothing is set.
fn limits(get: &impl Fn(&'static str) -> Option<String>) -> Result<Limits, SettingsError> {
    let mut limits = Limits::default();
    for (variable, limit) in [
        ("FERRULE_LIMIT_CONNECT", &mut limits.connect),
        ("FERRULE_LIMIT_CONNECT_LAST", &mut limits.connect_last),
        ("FERRULE_LIMIT_HEAD_TIME", &mut limits.head),
        ("FERRULE_LIMIT_IDLE", &mut limits.idle),
        ("FERRULE_LIMIT_CLIENT_STALL", &mut limits.client_stall),
        ("FERRULE_LIMIT_ENDPOINT_STALL", &mut limits.endpoint_stall),
        ("FERRULE_LIMIT_TLS_HANDSHAKE", &mut limits.tls_handshake),
    ] {
        if let Some(set) = parse(get(variable), variable, "a duration like 500ms, 2s or 1h30m", time_limit)? {
            *limit = set;
        }
    }
    // Here nothing means no waiting at all.
    let detect =
        parse(get("FERRULE_LIMIT_DETECT"), "FERRULE_LIMIT_DETECT", "a duration like 50ms", |value| {
            value.parse().ok().map(ferrule_config::Duration::get)
        })?;
    limits.detect = detect.unwrap_or(limits.detect);
    for (variable, limit, most, expected) in [
        ("FERRULE_LIMIT_HEAD_BYTES", &mut limits.head_bytes, MAX_HEAD, "1 to 1048576"),
        ("FERRULE_LIMIT_FIELDS", &mut limits.fields, MAX_FIELDS, "1 to 256"),
        ("FERRULE_LIMIT_REQUEST_LINE", &mut limits.request_line, MAX_HEAD, "1 to 1048576"),
        ("FERRULE_LIMIT_INTERIM_RESPONSES", &mut limits.interim_responses, 1024, "1 to 1024"),
        ("FERRULE_LIMIT_CONNECTIONS", &mut limits.connections, 1 << 20, "1 to 1048576"),
        ("FERRULE_LIMIT_TLS_HANDSHAKES", &mut limits.tls_handshakes, 65_536, "1 to 65536"),
    ] {
        let number = |value: &str| value.parse().ok().filter(|number| (1..=most).contains(number));
        if let Some(set) = parse(get(variable), variable, expected, number)? {
            *limit = set;
        }
    }
    let Http2Limits { streams, stream_window, connection_window, rates, .. } = &mut limits.http2;
    let window = "65535 to 2147483647";
    for (variable, limit, range, expected) in [
        ("FERRULE_LIMIT_HTTP2_STREAMS", streams, 1..=65_536, "1 to 65536"),
        ("FERRULE_LIMIT_HTTP2_STREAM_WINDOW", stream_window, 65_535..=MAX_31, window),
        ("FERRULE_LIMIT_HTTP2_WINDOW", connection_window, 65_535..=MAX_31, window),
        ("FERRULE_LIMIT_HTTP2_RESETS", &mut rates.resets, 1..=u32::MAX, "a number above 0"),
        ("FERRULE_LIMIT_HTTP2_SETTINGS", &mut rates.settings, 1..=u32::MAX, "a number above 0"),
        ("FERRULE_LIMIT_HTTP2_PINGS", &mut rates.pings, 1..=u32::MAX, "a number above 0"),
        ("FERRULE_LIMIT_HTTP2_EMPTY", &mut rates.empty, 1..=u32::MAX, "a number above 0"),
        ("FERRULE_LIMIT_HTTP2_WINDOW_UPDATES", &mut rates.window_updates, 1..=u32::MAX, "a number above 0"),
    ] {
        let number = |value: &str| value.parse().ok().filter(|number| range.contains(number));
        if let Some(set) = parse(get(variable), variable, expected, number)? {
            *limit = set;
        }
    }
    Ok(limits)
}

/// A duration; `0s` means no limit, as in Gateway API.
fn time_limit(text: &str) -> Option<Duration> {
    const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    let limit: ferrule_config::Duration = text.parse().ok()?;
    Some(if limit.is_zero() { NO_LIMIT } else { limit.get() })
}

fn unspecified(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port)
}

fn service_port(text: &str) -> Option<ServicePort> {
    let (namespace, rest) = text.split_once('/')?;
    let (name, port) = rest.rsplit_once(':')?;
    let named = !namespace.is_empty() && !name.is_empty();
    named.then_some(ServicePort { namespace: namespace.into(), name: name.into(), port: port.parse().ok()? })
}

fn parse<T>(
    value: Option<String>,
    variable: &'static str,
    expected: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, SettingsError> {
    let Some(value) = value else { return Ok(None) };
    match read(&value) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(SettingsError { variable, value, expected }),
    }
}

fn list<T>(
    value: Option<String>,
    variable: &'static str,
    expected: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, SettingsError> {
    let items = parse(value, variable, expected, |value| {
        value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(&read).collect::<Option<Vec<T>>>()
    })?;
    Ok(items.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Rates;

    fn with(variable: &str, value: &str) -> Result<Settings, SettingsError> {
        Settings::from_env(|name| (name == variable).then(|| value.to_owned()))
    }

    #[test]
    fn nothing_set_means_a_sidecar_in_a_pod() {
        let settings = Settings::from_env(|_| None).expect("defaults");
        assert_eq!(settings.discovery, Source::Kube);
        assert_eq!(settings.admin.port(), 15110);
        assert!(settings.redirected.is_some());
    }

    #[test]
    fn listeners_name_what_they_stand_for() {
        let settings =
            with("FERRULE_OUTBOUND_LISTENERS", "127.0.0.1:9001=shop/cart:80, [::1]:1=a/b:2").expect("ok");
        let cart = ServicePort { namespace: "shop".into(), name: "cart".into(), port: 80 };
        assert_eq!(settings.outbound[0], ("127.0.0.1:9001".parse().expect("address"), cart));
        assert_eq!(settings.outbound.len(), 2);
    }

    #[test]
    fn a_proxy_is_told_where_it_runs() {
        let zone = with("FERRULE_ZONE", "eu-1a").expect("ok").locality;
        assert_eq!(zone, Locality { zone: Some("eu-1a".into()), node: None });
        assert_eq!(with("FERRULE_ZONE", "").expect("no label on the node").locality, Locality::default());
    }

    #[test]
    fn an_access_log_is_kept_only_if_it_is_asked_for() {
        let asked = |shape: &str, filter: &str| {
            let settings = Settings::from_env(|name| match name {
                "FERRULE_ACCESS_LOG" => Some(shape.to_owned()),
                "FERRULE_ACCESS_LOG_FILTER" => Some(filter.to_owned()),
                _ => None,
            });
            settings.map(|settings| settings.access_log)
        };
        assert_eq!(asked("", ""), Ok(None));
        assert_eq!(asked("off", "errors"), Ok(None));
        let (text, json) = (Shape::Text, Shape::Json);
        assert_eq!(asked("text", ""), Ok(Some(AccessLogOptions { shape: text, filter: Filter::All })));
        assert_eq!(
            asked("json", "errors"),
            Ok(Some(AccessLogOptions { shape: json, filter: Filter::Errors }))
        );
        assert!(asked("xml", "").is_err() && asked("off", "some").is_err());
    }

    #[test]
    fn an_identity_is_asked_for_where_somebody_gives_it() {
        let settings = |service: &'static str, account: &'static str| {
            Settings::from_env(move |name| match name {
                "FERRULE_IDENTITY" => Some(service.to_owned()),
                "POD_NAMESPACE" => Some("shop".to_owned()),
                "SERVICE_ACCOUNT" => Some(account.to_owned()),
                _ => None,
            })
        };
        let identity = settings("ferrule-identity.ferrule-system.svc:15113", "cart").expect("valid").identity;
        let identity = identity.expect("asked for");
        assert_eq!(identity.id.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(identity.service.host, "ferrule-identity.ferrule-system.svc");
        assert_eq!(settings("", "").expect("valid").identity, None);
        for (service, account) in [("host", "cart"), ("host:x", "cart"), (":1", "cart"), ("host:1", "")] {
            assert!(settings(service, account).is_err(), "{service} {account}");
        }
    }

    #[test]
    fn each_limit_has_a_variable() {
        const COUNTS: [&str; 6] =
            ["HEAD_BYTES", "FIELDS", "REQUEST_LINE", "INTERIM_RESPONSES", "CONNECTIONS", "TLS_HANDSHAKES"];
        let settings = Settings::from_env(|name| {
            let name = name.strip_prefix("FERRULE_LIMIT_")?;
            Some(
                if name.starts_with("HTTP2_") {
                    "65536"
                } else if COUNTS.contains(&name) {
                    "7"
                } else {
                    "7s"
                }
                .into(),
            )
        });
        let (count, many, time) = (7, 65_536, Duration::from_secs(7));
        let all = Limits {
            connect: time,
            connect_last: time,
            head: time,
            idle: time,
            detect: time,
            client_stall: time,
            endpoint_stall: time,
            head_bytes: count,
            fields: count,
            request_line: count,
            interim_responses: count,
            connections: count,
            tls_handshake: time,
            tls_handshakes: count,
            http2: Http2Limits {
                streams: many,
                stream_window: many,
                connection_window: many,
                rates: Rates { resets: many, settings: many, pings: many, empty: many, window_updates: many },
                ..Limits::default().http2
            },
        };
        assert_eq!(settings.expect("valid").limits, all);
        assert!(with("FERRULE_LIMIT_IDLE", "0s").expect("none").limits.idle > Duration::from_secs(1 << 28));
        assert_eq!(
            with("FERRULE_LIMIT_FIELDS", "257").expect_err("too many").to_string(),
            r#"FERRULE_LIMIT_FIELDS="257" is not usable; expected 1 to 256"#
        );
        assert!(with("FERRULE_LIMIT_IDLE", "7").is_err());
    }

    #[test]
    fn discovery_has_times_of_its_own() {
        let times = with("FERRULE_LIMIT_DESTINATION_IDLE", "30s").expect("valid").times;
        assert_eq!(times, Times { idle: Duration::from_secs(30), ..Times::default() });
        let times = with("FERRULE_DISCOVERY_CHECK", "0s").expect("never").times;
        assert!(times.check > Duration::from_secs(1 << 28));
        assert!(with("FERRULE_DISCOVERY_CHECK", "10ms").is_err());
    }

    #[test]
    fn an_error_says_what_was_expected() {
        let error = with("FERRULE_INBOUND_LISTENERS", "8080").expect_err("no address");
        assert_eq!(
            error.to_string(),
            r#"FERRULE_INBOUND_LISTENERS="8080" is not usable; expected ADDRESS:PORT=ADDRESS:PORT[,…]"#
        );
        assert!(with("FERRULE_WORKERS", "0").is_err());
        assert!(with("FERRULE_DISCOVERY", "etcd").is_err());
    }
}
