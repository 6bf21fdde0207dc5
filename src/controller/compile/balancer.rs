//! A BalancerPolicy's specification, from what users write to what proxies read.

use std::collections::BTreeSet;

use ferrule_config::{
    Algorithm, Balancer, ConsistentHash, Duration, EndpointWeight, HashKey, MAX_RING_SIZE, MAX_SESSION_TTL,
    MAX_SLOW_START, MAX_TABLE_SIZE, MAX_WEIGHT, MAX_WEIGHTS, MIN_HASH_SIZE, Session, SessionKeeper, Zones,
    is_prime,
};

use crate::api::{
    BalancerPolicySpec, FORBIDDEN_HEADERS, Percent, PortTarget,
    balancer_policy::{self as api, HashAlgorithm, SessionType},
};

use super::header::{self, Invalid, invalid};

/// Most targets of a policy.
const MAX_TARGETS: usize = 16;
/// Shortest life of a cookie, which counts in seconds.
const MIN_SESSION_TTL: Duration = Duration::from_millis(1000);

/// The balancer that a specification describes.
pub(super) fn parse(spec: &BalancerPolicySpec) -> Result<Balancer, Invalid> {
    let BalancerPolicySpec {
        target_refs,
        algorithm,
        consistent_hash,
        weights,
        zones,
        slow_start,
        panic_threshold,
        session_persistence,
    } = spec;
    check_targets(target_refs)?;
    Ok(Balancer {
        algorithm: self::algorithm(*algorithm, consistent_hash.as_ref())?,
        weights: self::weights(weights)?,
        zones: match zones {
            api::Zones::Hints => Zones::Hints,
            api::Zones::Prefer => Zones::Prefer,
            api::Zones::Ignore => Zones::Ignore,
        },
        slow_start: self::slow_start(*slow_start)?,
        panic_threshold: self::panic_threshold(*panic_threshold)?,
        session: session_persistence.as_ref().map(session).transpose()?,
    })
}

fn check_targets(targets: &[PortTarget]) -> Result<(), Invalid> {
    const FIELD: &str = "spec.targetRefs";
    if targets.is_empty() || targets.len() > MAX_TARGETS {
        return Err(invalid(FIELD, format!("name 1 to {MAX_TARGETS} Services")));
    }
    let mut seen = BTreeSet::new();
    for (index, PortTarget { group: _, kind: _, name, section_name }) in targets.iter().enumerate() {
        if !seen.insert((name, section_name)) {
            return Err(invalid(format!("{FIELD}[{index}]"), "each Service and port may be named once"));
        }
    }
    Ok(())
}

fn algorithm(
    algorithm: Option<api::Algorithm>,
    hash: Option<&api::ConsistentHash>,
) -> Result<Algorithm, Invalid> {
    match (algorithm, hash) {
        (Some(_), Some(_)) => Err(invalid(
            "spec.algorithm",
            "contradicts consistentHash, which is an algorithm by itself; give one of the two",
        )),
        (None, Some(hash)) => consistent_hash(hash),
        (algorithm, None) => Ok(match algorithm.unwrap_or_default() {
            api::Algorithm::PeakEwma => Algorithm::PeakEwma,
            api::Algorithm::LeastRequest => Algorithm::LeastRequest,
            api::Algorithm::RoundRobin => Algorithm::RoundRobin,
            api::Algorithm::Random => Algorithm::Random,
        }),
    }
}

fn consistent_hash(hash: &api::ConsistentHash) -> Result<Algorithm, Invalid> {
    const FIELD: &str = "spec.consistentHash";
    let api::ConsistentHash { header, cookie, query_parameter, source_address, algorithm, size } = hash;
    let key = match (header, cookie, query_parameter, source_address) {
        (Some(name), None, None, None) => HashKey::Header(header::name(name, &format!("{FIELD}.header"))?),
        (None, Some(name), None, None) => HashKey::Cookie(cookie_name(name, &format!("{FIELD}.cookie"))?),
        (None, None, Some(name), None) => {
            HashKey::Query(query_name(name, &format!("{FIELD}.queryParameter"))?)
        }
        (None, None, None, Some(true)) => HashKey::SourceAddress,
        (None, None, None, Some(false)) => {
            return Err(invalid(format!("{FIELD}.sourceAddress"), "must be true, or left out"));
        }
        _ => {
            return Err(invalid(
                FIELD,
                "give exactly one of header, cookie, queryParameter and sourceAddress",
            ));
        }
    };
    let bad_size = |problem: String| Err(invalid(format!("{FIELD}.size"), problem));
    match (algorithm, *size) {
        (HashAlgorithm::Maglev, Some(size))
            if !(MIN_HASH_SIZE..=MAX_TABLE_SIZE).contains(&size) || !is_prime(size) =>
        {
            bad_size(format!("{size} must be a prime from {MIN_HASH_SIZE} to {MAX_TABLE_SIZE} for Maglev"))
        }
        (HashAlgorithm::RingHash, Some(size)) if !(MIN_HASH_SIZE..=MAX_RING_SIZE).contains(&size) => {
            bad_size(format!("{size} must be {MIN_HASH_SIZE} to {MAX_RING_SIZE} for RingHash"))
        }
        (HashAlgorithm::Maglev, size) => Ok(Algorithm::Maglev(ConsistentHash { key, size })),
        (HashAlgorithm::RingHash, size) => Ok(Algorithm::RingHash(ConsistentHash { key, size })),
    }
}

fn cookie_name(name: &str, field: &str) -> Result<String, Invalid> {
    if header::is_token(name) {
        return Ok(name.to_owned());
    }
    Err(invalid(field, format!("{name:?} is not the name of a cookie")))
}

fn query_name(name: &str, field: &str) -> Result<String, Invalid> {
    let ends = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'&' | b'=' | b'#');
    if name.is_empty() || name.bytes().any(ends) {
        let problem = format!(
            "{name:?} must be the name of a query parameter as it stands in the URL: printable ASCII without &, = and #"
        );
        return Err(invalid(field, problem));
    }
    Ok(name.to_owned())
}

fn weights(weights: &[api::EndpointWeight]) -> Result<Vec<EndpointWeight>, Invalid> {
    const FIELD: &str = "spec.weights";
    if weights.len() > MAX_WEIGHTS {
        return Err(invalid(FIELD, format!("there are {}, and at most {MAX_WEIGHTS} may be", weights.len())));
    }
    let mut result = Vec::with_capacity(weights.len());
    for (index, entry) in weights.iter().enumerate() {
        let field = format!("{FIELD}[{index}]");
        let api::EndpointWeight { zone, node, pod_prefix, weight } = entry;
        let conditions = [("zone", zone), ("node", node), ("podPrefix", pod_prefix)];
        if conditions.iter().all(|(_, value)| value.is_none()) {
            return Err(invalid(field, "give at least one of zone, node and podPrefix"));
        }
        // An empty one fits nothing, or in the case of podPrefix everything.
        if let Some((name, _)) =
            conditions.iter().find(|(_, value)| value.as_deref().is_some_and(str::is_empty))
        {
            return Err(invalid(format!("{field}.{name}"), "must not be empty"));
        }
        if *weight > MAX_WEIGHT {
            return Err(invalid(format!("{field}.weight"), format!("{weight} must be at most {MAX_WEIGHT}")));
        }
        result.push(EndpointWeight {
            zone: zone.clone(),
            node: node.clone(),
            pod_prefix: pod_prefix.clone(),
            weight: *weight,
        });
    }
    Ok(result)
}

/// `0s` means at once, which the configuration writes as none.
fn slow_start(window: Option<Duration>) -> Result<Option<Duration>, Invalid> {
    match window {
        Some(window) if window > MAX_SLOW_START => {
            Err(invalid("spec.slowStart", format!("{window} must be at most {MAX_SLOW_START}")))
        }
        window => Ok(window.filter(|window| !window.is_zero())),
    }
}

fn panic_threshold(share: Option<Percent>) -> Result<u8, Invalid> {
    let Some(share) = share else { return Ok(0) };
    let whole = share.as_whole();
    whole
        .ok_or_else(|| invalid("spec.panicThreshold", format!("{share} must be a whole number of per cents")))
}

fn session(session: &api::SessionPersistence) -> Result<Session, Invalid> {
    const FIELD: &str = "spec.sessionPersistence";
    let api::SessionPersistence { type_, session_name, absolute_timeout } = session;
    let name_field = format!("{FIELD}.sessionName");
    let life_field = format!("{FIELD}.absoluteTimeout");
    match type_ {
        SessionType::Cookie => {
            let name = cookie_name(session_name, &name_field)?;
            let ttl = match absolute_timeout {
                Some(life) if !(MIN_SESSION_TTL..=MAX_SESSION_TTL).contains(life) => {
                    let problem = format!("{life} must be {MIN_SESSION_TTL} to {MAX_SESSION_TTL} (400 days)");
                    return Err(invalid(life_field, problem));
                }
                Some(life) => Some(Duration::from_millis(life.get().as_secs() * 1000)),
                None => None,
            };
            Ok(Session { kept_in: SessionKeeper::Cookie, name, ttl })
        }
        SessionType::Header => {
            let name = header::name(session_name, &name_field)?;
            if FORBIDDEN_HEADERS.contains(&name.as_str()) {
                let problem =
                    format!("{name} can't be used; it frames the message or belongs to the connection");
                return Err(invalid(name_field, problem));
            }
            if absolute_timeout.is_some() {
                return Err(invalid(life_field, "only a cookie has a life; leave it out for type Header"));
            }
            Ok(Session { kept_in: SessionKeeper::Header, name, ttl: None })
        }
    }
}
