//! AccessPolicies: who may call the pods of a namespace.
//!
//! ```text
//!   of the namespace            all of them ──────────────┐
//!   of the operator's, for all  all without a selector ───┴──▶ Mesh::access: each sidecar takes those that select its pod
//! ```
//!
//! None decides in another's place, so there are no conflicts. One that is not valid is not left out: that would open
//! what it was to close. It reaches the sidecars as one that nobody understands, and they refuse everything.

use std::collections::BTreeSet;

use ferrule_config::{
    Selector,
    access::{
        Access, AccessPolicy, AccessRule, Cidr, HeaderCheck, HeaderCondition, MAX_HEADERS, MAX_OPERATIONS,
        MAX_RULES, MAX_SOURCES, MAX_VALUES, Operation, Source, UNASKABLE_HEADERS, UnknownAccess,
    },
};

use crate::{
    api::{
        AccessPolicySpec, access_policy as api,
        mesh_tls::{MAX_LABELS, PodSelector},
    },
    controller::observe::{self, Kind, Observation, Observed},
};

use super::{
    finding::{ConditionType, Finding, Reason, Verdict},
    header::{self, Invalid, invalid},
    verdict,
};

/// Names in a message.
const MOST_NAMED: usize = 5;

/// What the AccessPolicies of a namespace, and those of the mesh, make of its pods, and what those of the namespace are told.
pub(super) fn compile(observed: &Observed, namespace: &str, of: &Observation) -> (Vec<Access>, Vec<Verdict>) {
    let mut access = Vec::new();
    if !observed.is_system(namespace)
        && let (Some(system), Some(name)) = (observed.system(), observed.system_name())
    {
        let wide = system.access_policies.iter().filter(|(_, policy)| is_wide(policy));
        access.extend(wide.map(|(policy, spec)| read(name, policy, spec).0));
    }
    let mut verdicts = Vec::new();
    for (name, policy) in &of.access_policies {
        let (compiled, problem) = read(namespace, name, policy);
        let findings = match (problem, &policy.resource.spec) {
            (Some(problem), _) => refused(&problem),
            (None, Ok(spec)) => judge(observed, namespace, of, spec, compiled.selector()),
            (None, Err(problem)) => refused(problem),
        };
        access.push(compiled);
        verdicts.push(verdict(Kind::AccessPolicy, name, &policy.resource, findings));
    }
    (access, verdicts)
}

/// Whether one of the operator's namespace is for the whole mesh.
fn is_wide(policy: &observe::AccessPolicy) -> bool {
    match (&policy.resource.spec, &policy.unknown) {
        (Ok(spec), _) => spec.selector.is_none(),
        (Err(_), Some(unknown)) => unknown.selector == Selector::default(),
        (Err(_), None) => true,
    }
}

/// The policy as sidecars read it, and what is wrong with it.
fn read(namespace: &str, name: &str, policy: &observe::AccessPolicy) -> (Access, Option<String>) {
    let whole = format!("{namespace}/{name}");
    let spec = match &policy.resource.spec {
        Ok(spec) => spec,
        Err(problem) => {
            let unknown = policy.unknown.clone().unwrap_or_default();
            return (Access::Unknown(UnknownAccess { name: whole, ..unknown }), Some(problem.clone()));
        }
    };
    let AccessPolicySpec { selector, allow, deny, audit } = spec;
    let selector = selector.as_ref().map_or_else(Selector::default, |PodSelector { match_labels }| {
        Selector { match_labels: match_labels.clone() }
    });
    match rules(spec) {
        Ok((allowed, denied)) => {
            debug_assert_eq!((allowed.is_some(), denied.len()), (allow.is_some(), deny.len()));
            let policy = AccessPolicy { name: whole, selector, allow: allowed, deny: denied, audit: *audit };
            (Access::Policy(policy), None)
        }
        Err(error) => {
            let problem = error.to_string();
            let unknown = UnknownAccess { name: whole, selector, audit: *audit, problem: problem.clone() };
            (Access::Unknown(unknown), Some(problem))
        }
    }
}

type Rules = (Option<Vec<AccessRule>>, Vec<AccessRule>);

fn rules(spec: &AccessPolicySpec) -> Result<Rules, Invalid> {
    let AccessPolicySpec { selector, allow, deny, audit: _ } = spec;
    if let Some(PodSelector { match_labels }) = selector
        && (match_labels.is_empty() || match_labels.len() > MAX_LABELS)
    {
        let problem = format!("give 1 to {MAX_LABELS} labels; without selector it is for all pods");
        return Err(invalid("spec.selector.matchLabels", problem));
    }
    if allow.is_none() && deny.is_empty() {
        return Err(invalid("spec.allow", "give allow, deny or both; to allow nothing write allow: []"));
    }
    let each = |rules: &[api::AccessRule], field: &str| {
        at_most(rules, MAX_RULES, field)?;
        list(rules, field, rule)
    };
    let allow = allow.as_ref().map(|rules| each(rules, "spec.allow")).transpose()?;
    Ok((allow, each(deny, "spec.deny")?))
}

fn list<T, U>(
    all: &[T],
    field: &str,
    one: impl Fn(&T, &str) -> Result<U, Invalid>,
) -> Result<Vec<U>, Invalid> {
    all.iter().enumerate().map(|(index, each)| one(each, &format!("{field}[{index}]"))).collect()
}

fn at_most<T>(all: &[T], most: usize, field: &str) -> Result<(), Invalid> {
    if all.len() <= most { Ok(()) } else { Err(invalid(field, format!("give at most {most}"))) }
}

fn rule(rule: &api::AccessRule, field: &str) -> Result<AccessRule, Invalid> {
    let api::AccessRule { from, to } = rule;
    let (from_field, to_field) = (format!("{field}.from"), format!("{field}.to"));
    at_most(from, MAX_SOURCES, &from_field)?;
    at_most(to, MAX_OPERATIONS, &to_field)?;
    Ok(AccessRule { from: list(from, &from_field, source)?, to: list(to, &to_field, operation)? })
}

fn source(source: &api::Source, field: &str) -> Result<Source, Invalid> {
    let api::Source { identity, namespace, service_account, cidr } = source;
    // One that asks nothing would be met by everybody.
    if source == &api::Source::default() {
        return Err(invalid(field, "give at least one of identity, namespace, serviceAccount and cidr"));
    }
    let text = |text: &Option<String>, name: &str| {
        let empty = text.as_ref().is_some_and(String::is_empty);
        if empty { Err(invalid(format!("{field}.{name}"), "must not be empty")) } else { Ok(text.clone()) }
    };
    let account = text(service_account, "serviceAccount")?;
    if let Some(account) = account.as_deref().filter(|account| *account != "*" && !account.contains('/')) {
        let problem =
            format!("{account:?} is no service account; write it as namespace/name, or namespace/*");
        return Err(invalid(format!("{field}.serviceAccount"), problem));
    }
    let cidr = cidr.as_ref().map(|cidr| {
        cidr.parse::<Cidr>().map_err(|error| invalid(format!("{field}.cidr"), error.to_string()))
    });
    Ok(Source {
        identity: text(identity, "identity")?.map(Into::into),
        namespace: text(namespace, "namespace")?.map(Into::into),
        service_account: account.map(Into::into),
        cidr: cidr.transpose()?,
    })
}

fn operation(operation: &api::Operation, field: &str) -> Result<Operation, Invalid> {
    let api::Operation { ports, methods, paths, headers, grpc_methods } = operation;
    if operation == &api::Operation::default() {
        let problem = "give at least one of ports, methods, paths, headers and grpcMethods";
        return Err(invalid(field, problem));
    }
    let of = |name: &str| format!("{field}.{name}");
    at_most(ports, MAX_VALUES, &of("ports"))?;
    at_most(methods, MAX_VALUES, &of("methods"))?;
    at_most(paths, MAX_VALUES, &of("paths"))?;
    at_most(headers, MAX_HEADERS, &of("headers"))?;
    at_most(grpc_methods, MAX_VALUES, &of("grpcMethods"))?;
    if ports.contains(&0) {
        return Err(invalid(of("ports"), "each must be 1 to 65535"));
    }
    Ok(Operation {
        ports: ports.clone(),
        methods: list(methods, &of("methods"), method)?,
        paths: list(paths, &of("paths"), path)?.into_iter().map(Into::into).collect(),
        headers: self::headers(headers, &of("headers"))?,
        grpc_methods: list(grpc_methods, &of("grpcMethods"), grpc_method)?
            .into_iter()
            .map(Into::into)
            .collect(),
    })
}

fn method(method: &String, field: &str) -> Result<String, Invalid> {
    if header::is_token(method) && !method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Ok(method.clone());
    }
    Err(invalid(field, format!("{method:?} is no method; write it in capitals, for example GET")))
}

/// A path as the proxy makes it of what it receives, or the beginning of one.
fn path(path: &String, field: &str) -> Result<String, Invalid> {
    let text = path.strip_suffix('*').unwrap_or(path);
    let Some(rest) = text.strip_prefix('/') else {
        return Err(invalid(field, format!("{path:?} must start with /")));
    };
    if text.chars().any(|char| char.is_control() || matches!(char, '*' | '%' | '\\' | ';' | '?' | '#')) {
        let problem = format!(
            "{path:?} must be a path as it reads when it is decoded, without %, \\, ;, ? and #, and with * at its end alone"
        );
        return Err(invalid(field, problem));
    }
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if (segment.is_empty() && !last) || matches!(segment, "." | "..") {
            let problem = format!("{path:?} must not contain //, /./ or /../, nor end in /. or /..");
            return Err(invalid(field, problem));
        }
    }
    Ok(path.clone())
}

fn grpc_method(name: &String, field: &str) -> Result<String, Invalid> {
    let text = name.strip_suffix('*').unwrap_or(name);
    let part = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte));
    match text.split_once('/') {
        Some((service, method))
            if !service.is_empty() && part(service) && part(method) && name != text
                || !method.is_empty() && !service.is_empty() && part(service) && part(method) =>
        {
            Ok(name.clone())
        }
        _ => {
            Err(invalid(field, format!("{name:?} must be like package.Service/Method or package.Service/*")))
        }
    }
}

fn headers(headers: &[api::HeaderCondition], field: &str) -> Result<Vec<HeaderCondition>, Invalid> {
    let mut seen = BTreeSet::new();
    let mut result = Vec::with_capacity(headers.len());
    for (index, condition) in headers.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let api::HeaderCondition { name, exact, prefix, present } = condition;
        let name = header::unique(name, &mut seen, &field)?;
        if UNASKABLE_HEADERS.contains(&name.as_str()) {
            let problem = format!("a rule can't ask about {name}; who calls is asked about by from");
            return Err(invalid(format!("{field}.name"), problem));
        }
        let value = match (exact, prefix, present) {
            (Some(exact), None, None) => HeaderCheck::Exact(header::value(exact, &field)?),
            (None, Some(prefix), None) => HeaderCheck::Prefix(header::value(prefix, &field)?),
            (None, None, Some(present)) => HeaderCheck::Present(*present),
            _ => return Err(invalid(field, "give exactly one of exact, prefix and present")),
        };
        result.push(HeaderCondition { name, value });
    }
    Ok(result)
}

/// What a valid one is told.
fn judge(
    observed: &Observed,
    namespace: &str,
    of: &Observation,
    spec: &AccessPolicySpec,
    selector: &Selector,
) -> Vec<Finding> {
    let accepted = Finding::good(ConditionType::Accepted, Reason::Accepted, "It is valid");
    // Where there are no pods, as on a laptop, nobody can be missing.
    let knows_pods = !observed.is_strict_at_once();
    let mut unknown: Vec<&str> = spec
        .accounts()
        .filter(|_| knows_pods)
        .filter(|named| {
            named.split_once('/').is_some_and(|(namespace, name)| !observed.has_account(namespace, name))
        })
        .collect();
    unknown.sort_unstable();
    unknown.dedup();
    let resolved = if unknown.is_empty() {
        let message = "Pods with a sidecar run under every service account that it names";
        Finding::good(ConditionType::ResolvedRefs, Reason::ResolvedRefs, message)
    } else {
        let message = format!(
            "No pod with a sidecar runs under {} now; its rules are in force all the same",
            some_of(&unknown)
        );
        Finding::bad(ConditionType::ResolvedRefs, Reason::ServiceAccountNotFound, message)
    };
    vec![accepted, resolved, enforced(observed, namespace, of, spec, selector)]
}

fn enforced(
    observed: &Observed,
    namespace: &str,
    of: &Observation,
    spec: &AccessPolicySpec,
    selector: &Selector,
) -> Finding {
    let bad = |reason, message: String| Finding::bad(ConditionType::Enforced, reason, message);
    if spec.audit {
        let message =
            "It is only tried: what it would refuse is logged and counted by the sidecars, and let in";
        return bad(Reason::Audit, message.to_owned());
    }
    let wide = observed.is_system(namespace) && spec.selector.is_none();
    if wide {
        let message = "The sidecars of the whole mesh ask it";
        return Finding::good(ConditionType::Enforced, Reason::Enforced, message);
    }
    if observed.is_strict_at_once() {
        let message = "Sidecars that know whose they are ask it";
        return Finding::good(ConditionType::Enforced, Reason::Enforced, message);
    }
    if !observed.is_injected(namespace) {
        let message = "The namespace is not labelled for injection: no sidecar is there to ask it".to_owned();
        return bad(Reason::NoSidecar, message);
    }
    let selected = || of.pods.iter().filter(|(_, pod)| selector.selects(&pod.labels));
    let bare: Vec<_> = selected().filter(|(_, pod)| !pod.injected).map(|(name, _)| name.as_str()).collect();
    if !bare.is_empty() {
        let message =
            format!("It selects pods without a sidecar, which let everybody in: {}", some_of(&bare));
        return bad(Reason::NoSidecar, message);
    }
    let message = match selected().count() {
        0 => "It selects no pod now; the sidecars of those to come will ask it",
        _ => "The sidecars of all pods that it selects ask it",
    };
    Finding::good(ConditionType::Enforced, Reason::Enforced, message)
}

fn some_of(names: &[&str]) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let first = names[..names.len() - more].join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

fn refused(problem: &str) -> Vec<Finding> {
    let message = format!("{problem}; until it is mended the pods that it selects refuse everything");
    vec![
        Finding::bad(ConditionType::Accepted, Reason::Invalid, message),
        Finding::bad(
            ConditionType::Enforced,
            Reason::Invalid,
            "It is not understood, so the pods that it selects refuse everything, unless it is only tried",
        ),
    ]
}
