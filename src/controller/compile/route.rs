//! Routes: each rule parsed once, each match put in its place.

use std::collections::{BTreeMap, BTreeSet};

use ferrule_config::{
    Backend, Cors, DirectResponse, Fault, HeaderChange, Match, PathMatch, Redirect, Retry, Rewrite,
    RouteEntry, Rule, Service, SourceMatch, Timeouts,
};

use crate::{
    api::{
        RouteSpec, ServiceTarget,
        route::{self, BackendRef, RouteRule},
    },
    controller::observe::{Kind, Observation, Resource},
};

use super::{
    act,
    finding::{ConditionType, Finding, Reason, Verdict},
    header::{self, Invalid, invalid},
    precedence::Precedence,
    retry, target, verdict,
};

/// A Route that is sound in itself; whether its targets and backends exist is another question.
struct Parsed<'a> {
    targets: &'a [ServiceTarget],
    rules: Vec<ParsedRule<'a>>,
}

struct ParsedRule<'a> {
    /// Name or index.
    name: String,
    matches: Vec<Match>,
    /// `None`: the Service that the request was for.
    backends: Option<Vec<ParsedBackend<'a>>>,
    request_headers: HeaderChange,
    response_headers: HeaderChange,
    timeouts: Timeouts,
    retry: Option<Retry>,
    rewrite: Option<Rewrite>,
    redirect: Option<Redirect>,
    direct_response: Option<DirectResponse>,
    fault: Option<Fault>,
    cors: Option<Cors>,
}

struct ParsedBackend<'a> {
    name: &'a str,
    port: Option<u16>,
    weight: u32,
    request_headers: HeaderChange,
    response_headers: HeaderChange,
}

/// What the Routes of a namespace make of its Services, and what the Routes are told.
pub(super) fn compile(namespace: &str, of: &Observation) -> (BTreeMap<String, Service>, Vec<Verdict>) {
    let mut verdicts = Vec::with_capacity(of.routes.len());
    let mut in_force = Vec::new();
    for (name, resource) in &of.routes {
        let parsed = match &resource.spec {
            Ok(spec) => parse(namespace, spec).map_err(|error| error.to_string()),
            Err(error) => Err(error.clone()),
        };
        match parsed {
            Ok(parsed) => {
                verdicts.push(verdict(Kind::Route, name, resource, judge(of, &parsed)));
                in_force.push((name.as_str(), resource, parsed));
            }
            Err(problem) => {
                let message = format!("{problem}; the Route is not in force");
                let finding = Finding::bad(ConditionType::Accepted, Reason::Invalid, message);
                verdicts.push(verdict(Kind::Route, name, resource, vec![finding]));
            }
        }
    }
    (services(namespace, of, &in_force), verdicts)
}

fn parse<'a>(namespace: &str, spec: &'a RouteSpec) -> Result<Parsed<'a>, Invalid> {
    let RouteSpec { target_refs, rules } = spec;
    if target_refs.is_empty() {
        return Err(invalid("spec.targetRefs", "name at least one Service"));
    }
    if rules.is_empty() {
        return Err(invalid("spec.rules", "give at least one rule"));
    }
    let mut names = BTreeSet::new();
    let mut parsed = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        let rule = parse_rule(namespace, rule, index, &field)?;
        if !names.insert(rule.name.clone()) {
            return Err(invalid(
                format!("{field}.name"),
                format!("{} is the name of another rule too", rule.name),
            ));
        }
        parsed.push(rule);
    }
    Ok(Parsed { targets: target_refs, rules: parsed })
}

fn parse_rule<'a>(
    namespace: &str,
    rule: &'a RouteRule,
    index: usize,
    field: &str,
) -> Result<ParsedRule<'a>, Invalid> {
    let RouteRule {
        name,
        matches,
        backend_refs,
        request_headers,
        response_headers,
        timeouts,
        retry,
        rewrite,
        redirect,
        direct_response,
        fault,
        cors,
    } = rule;
    contradiction(rule, field)?;
    let mut conditions = Vec::with_capacity(matches.len());
    for (place, conditions_of) in matches.iter().enumerate() {
        conditions.push(parse_match(namespace, conditions_of, &format!("{field}.matches[{place}]"))?);
    }
    if conditions.is_empty() {
        conditions.push(Match::default());
    }
    if backend_refs.as_ref().is_some_and(Vec::is_empty) {
        return Err(invalid(format!("{field}.backendRefs"), "name at least one Service, or leave it out"));
    }
    let backends = match backend_refs {
        Some(backends) => Some(parse_backends(backends, &format!("{field}.backendRefs"))?),
        None => None,
    };
    let timeouts = parse_timeouts(timeouts.as_ref(), &format!("{field}.timeouts"))?;
    let rewrite = act::rewrite(rewrite.as_ref(), &conditions, &format!("{field}.rewrite"))?;
    let redirect = act::redirect(redirect.as_ref(), &conditions, &format!("{field}.redirect"))?;
    Ok(ParsedRule {
        name: name.clone().unwrap_or_else(|| index.to_string()),
        matches: conditions,
        backends,
        request_headers: header::change(request_headers.as_ref(), &format!("{field}.requestHeaders"))?,
        response_headers: header::change(response_headers.as_ref(), &format!("{field}.responseHeaders"))?,
        retry: retry::retry(retry.as_ref(), &timeouts, &format!("{field}.retry"))?,
        timeouts,
        rewrite,
        redirect,
        direct_response: act::direct_response(direct_response.as_ref(), &format!("{field}.directResponse"))?,
        fault: act::fault(fault.as_ref(), &format!("{field}.fault"))?,
        cors: act::cors(cors.as_ref(), &format!("{field}.cors"))?,
    })
}

/// A request that is sent nowhere needs nothing of what is for one that is.
fn contradiction(rule: &RouteRule, field: &str) -> Result<(), Invalid> {
    let RouteRule { backend_refs, timeouts, retry, rewrite, redirect, direct_response, .. } = rule;
    let (which, answers) = match (redirect, direct_response) {
        (Some(_), _) => ("redirect", true),
        (None, Some(_)) => ("directResponse", true),
        (None, None) => ("", false),
    };
    let others = [
        ("backendRefs", backend_refs.is_some()),
        ("directResponse", redirect.is_some() && direct_response.is_some()),
        ("rewrite", rewrite.is_some()),
        ("retry", retry.is_some()),
        ("timeouts", timeouts.is_some()),
    ];
    match others.iter().find(|(_, given)| *given) {
        Some((other, _)) if answers => Err(invalid(
            format!("{field}.{which}"),
            format!("the request is sent nowhere, so leave {other} out"),
        )),
        _ => Ok(()),
    }
}

fn parse_backends<'a>(backends: &'a [BackendRef], field: &str) -> Result<Vec<ParsedBackend<'a>>, Invalid> {
    let mut parsed = Vec::with_capacity(backends.len());
    for (place, backend) in backends.iter().enumerate() {
        let field = format!("{field}[{place}]");
        let BackendRef { name, port, weight, request_headers, response_headers } = backend;
        if *weight > 1_000_000 {
            return Err(invalid(format!("{field}.weight"), "must be 0 to 1000000"));
        }
        parsed.push(ParsedBackend {
            name,
            port: *port,
            weight: *weight,
            request_headers: header::change(request_headers.as_ref(), &format!("{field}.requestHeaders"))?,
            response_headers: header::change(response_headers.as_ref(), &format!("{field}.responseHeaders"))?,
        });
    }
    Ok(parsed)
}

fn parse_match(namespace: &str, conditions: &route::Match, field: &str) -> Result<Match, Invalid> {
    let route::Match { path, method, headers, query_params, hostnames, grpc, source } = conditions;
    if let Some(method) = method {
        let token =
            |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        if method.is_empty() || !method.bytes().all(token) {
            return Err(invalid(
                format!("{field}.method"),
                format!("{method:?} must be a method in capitals, like GET"),
            ));
        }
    }
    let path = match (path, grpc) {
        (path, None) => path.as_ref().map(|path| header::path(path, &format!("{field}.path"))).transpose()?,
        (None, Some(grpc)) if method.is_none() => Some(grpc_path(grpc, &format!("{field}.grpc"))?),
        (_, Some(_)) => {
            let problem = "stands for a condition on the path; leave path and method out";
            return Err(invalid(format!("{field}.grpc"), problem));
        }
    };
    let mut hosts = hostnames.clone();
    hosts.sort();
    hosts.dedup();
    for (index, host) in hostnames.iter().enumerate() {
        if !is_hostname(host) {
            let problem = format!("{host:?} must be a name in lower case, or *. and a name");
            return Err(invalid(format!("{field}.hostnames[{index}]"), problem));
        }
    }
    Ok(Match {
        path,
        method: method.clone(),
        headers: header::matches(headers, &format!("{field}.headers"))?,
        query: header::query(query_params, &format!("{field}.queryParams"))?,
        hosts,
        source: parse_source(namespace, source.as_ref(), &format!("{field}.source"))?,
    })
}

/// A call's path is `/SERVICE/METHOD` (gRPC over HTTP/2, Requests).
fn grpc_path(grpc: &route::GrpcMatch, field: &str) -> Result<PathMatch, Invalid> {
    let route::GrpcMatch { service, method } = grpc;
    let word = |text: &str| {
        !text.starts_with(|first: char| first.is_ascii_digit())
            && !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if let Some(service) = service.as_ref().filter(|service| !service.split('.').all(word)) {
        let problem = format!("{service:?} must be the full name of a service, like shop.v1.Cart");
        return Err(invalid(format!("{field}.service"), problem));
    }
    if let Some(method) = method.as_ref().filter(|method| !word(method)) {
        return Err(invalid(
            format!("{field}.method"),
            format!("{method:?} must be the name of a method, like AddItem"),
        ));
    }
    match (service, method) {
        (Some(service), Some(method)) => Ok(PathMatch::Exact(format!("/{service}/{method}"))),
        (Some(service), None) => Ok(PathMatch::Prefix(format!("/{service}"))),
        (None, Some(method)) => Ok(PathMatch::Regex(format!("/[^/]+/{method}"))),
        (None, None) => Err(invalid(field, "give service, method or both")),
    }
}

fn is_hostname(host: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.len() <= 253 && host.strip_prefix("*.").unwrap_or(host).split('.').all(label)
}

fn parse_source(
    namespace: &str,
    source: Option<&route::SourceMatch>,
    field: &str,
) -> Result<SourceMatch, Invalid> {
    let Some(source) = source else { return Ok(SourceMatch::default()) };
    let route::SourceMatch { namespace: named, service_account, pod_labels } = source;
    let own = || service_account.is_some().then(|| namespace.to_owned());
    let source = SourceMatch {
        namespace: named.clone().or_else(own),
        account: service_account.clone(),
        labels: pod_labels.clone(),
    };
    if source.is_empty() {
        return Err(invalid(field, "give namespace, serviceAccount or podLabels"));
    }
    Ok(source)
}

/// `0s` means no limit, which the configuration writes as none.
fn parse_timeouts(timeouts: Option<&route::Timeouts>, field: &str) -> Result<Timeouts, Invalid> {
    let Some(route::Timeouts { request, backend_request }) = timeouts else { return Ok(Timeouts::default()) };
    let request = request.filter(|limit| !limit.is_zero());
    let backend_request = backend_request.filter(|limit| !limit.is_zero());
    match (request, backend_request) {
        (Some(all), Some(one)) if one > all => {
            let problem = format!("{one} must not exceed the {all} of timeouts.request");
            Err(invalid(format!("{field}.backendRequest"), problem))
        }
        _ => Ok(Timeouts { request, backend_request }),
    }
}

/// Whether what the Route names exists.
fn judge(of: &Observation, parsed: &Parsed<'_>) -> Vec<Finding> {
    vec![accepted(of, parsed), resolved(of, parsed)]
}

fn accepted(of: &Observation, parsed: &Parsed<'_>) -> Finding {
    let (missing, found): (Vec<_>, Vec<_>) = parsed
        .targets
        .iter()
        .map(|target| (target, target::missing(of, target)))
        .partition(|(_, why)| why.is_some());
    if missing.is_empty() {
        return Finding::good(ConditionType::Accepted, Reason::Accepted, "The Route is in force");
    }
    let mut message = missing.into_iter().filter_map(|(_, why)| why).collect::<Vec<_>>().join("; ");
    if !found.is_empty() {
        let names: Vec<_> = found.iter().map(|(target, _)| target.name.as_str()).collect();
        message.push_str(&format!("; the Route is in force for {}", names.join(", ")));
    }
    Finding::bad(ConditionType::Accepted, Reason::TargetNotFound, message)
}

fn resolved(of: &Observation, parsed: &Parsed<'_>) -> Finding {
    let requested: Vec<u16> = parsed.targets.iter().flat_map(|target| ports(of, target)).collect();
    let mut problems: Vec<(Reason, String)> = Vec::new();
    for (place, rule) in parsed.rules.iter().enumerate() {
        for (index, backend) in rule.backends.iter().flatten().enumerate() {
            if let Some((reason, why)) = target::unusable(of, backend.name, backend.port, &requested) {
                problems.push((reason, format!("spec.rules[{place}].backendRefs[{index}]: {why}")));
            }
        }
    }
    let Some(reason) = problems.first().map(|(reason, _)| *reason) else {
        return Finding::good(ConditionType::ResolvedRefs, Reason::ResolvedRefs, "All backends exist");
    };
    let all: Vec<_> = problems.into_iter().map(|(_, why)| why).collect();
    let message = format!("{}; this share of the requests is answered with 500", all.join("; "));
    Finding::bad(ConditionType::ResolvedRefs, reason, message)
}

/// Ports that requests for a target can have.
fn ports(of: &Observation, target: &ServiceTarget) -> Vec<u16> {
    match target.port {
        Some(port) => vec![port],
        None => of.services.get(&target.name).map(|service| service.ports.clone()).unwrap_or_default(),
    }
}

type InForce<'a> = (&'a str, &'a Resource<RouteSpec>, Parsed<'a>);

fn services(namespace: &str, of: &Observation, routes: &[InForce<'_>]) -> BTreeMap<String, Service> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (_, _, parsed) in routes {
        names.extend(
            parsed
                .targets
                .iter()
                .filter(|target| target::missing(of, target).is_none())
                .map(|target| target.name.as_str()),
        );
    }
    names.into_iter().map(|name| (name.to_owned(), service(namespace, of, name, routes))).collect()
}

/// All Routes of one Service together.
fn service(namespace: &str, of: &Observation, name: &str, routes: &[InForce<'_>]) -> Service {
    let mut rules = Vec::new();
    let mut entries: Vec<(Precedence<'_>, RouteEntry)> = Vec::new();
    for (route, resource, parsed) in routes {
        let here = |target: &&ServiceTarget| target.name == name && target::missing(of, target).is_none();
        let ports: BTreeSet<Option<u16>> =
            parsed.targets.iter().filter(here).map(|target| target.port).collect();
        // For all ports and for one of them is for all.
        let ports = if ports.contains(&None) { BTreeSet::from([None]) } else { ports };
        if ports.is_empty() {
            continue;
        }
        for (index, rule) in parsed.rules.iter().enumerate() {
            for (place, conditions) in rule.matches.iter().enumerate() {
                for port in &ports {
                    let precedence = Precedence::of(conditions, resource.created, route, index, place);
                    let entry = RouteEntry { port: *port, matches: conditions.clone(), rule: rules.len() };
                    entries.push((precedence, entry));
                }
            }
            rules.push(compiled(namespace, route, name, rule));
        }
    }
    entries.sort_by(|(a, one), (b, other)| a.cmp(b).then(one.port.cmp(&other.port)));
    Service { routes: entries.into_iter().map(|(_, entry)| entry).collect(), rules, ..Service::default() }
}

fn compiled(namespace: &str, route: &str, service: &str, rule: &ParsedRule<'_>) -> Rule {
    let ParsedRule {
        name,
        matches: _,
        backends,
        request_headers,
        response_headers,
        timeouts,
        retry,
        rewrite,
        redirect,
        direct_response,
        fault,
        cors,
    } = rule;
    let backend = |backend: &ParsedBackend<'_>| {
        let ParsedBackend { name, port, weight, request_headers, response_headers } = backend;
        Backend {
            namespace: namespace.to_owned(),
            name: (*name).to_owned(),
            port: *port,
            weight: *weight,
            request_headers: request_headers.clone(),
            response_headers: response_headers.clone(),
        }
    };
    let itself = || Backend {
        namespace: namespace.to_owned(),
        name: service.to_owned(),
        weight: 1,
        ..Backend::default()
    };
    let backends = match backends {
        Some(backends) => backends.iter().map(backend).collect(),
        None if redirect.is_some() || direct_response.is_some() => Vec::new(),
        None => vec![itself()],
    };
    Rule {
        name: format!("{namespace}/{route}/{name}"),
        backends,
        request_headers: request_headers.clone(),
        response_headers: response_headers.clone(),
        timeouts: timeouts.clone(),
        retry: retry.clone(),
        rewrite: rewrite.clone(),
        redirect: redirect.clone(),
        direct_response: direct_response.clone(),
        fault: fault.clone(),
        cors: cors.clone(),
    }
}
