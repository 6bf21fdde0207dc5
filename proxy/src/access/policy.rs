//! The decision: pure. All policies that hold for the pod are one here.
//!
//! ```text
//!   a deny that is in force matches ───────────────────────────────────▶ refused
//!   there are allows in force, and none of them matches ───────────────▶ refused
//!   were those that are only tried in force as well, one of the above ─▶ audited: told, and let in
//!   all else ──────────────────────────────────────────────────────────▶ allowed
//! ```
//!
//! Where a condition can't be told it is met for `deny` and not for `allow`: conditions on requests of a connection that
//! carries bytes (a client may have hidden requests in them), and those on a path that can be read in two ways.

use std::{borrow::Cow, sync::Arc};

use ferrule_config::access::{
    Access, AccessPolicy, AccessRule, HeaderCheck, HeaderCondition, Operation, Pattern, Source,
};

use super::{
    path,
    subject::{Asked, Subject},
};
use crate::message::Field;

/// All policies of a pod.
#[derive(Debug, Default)]
pub struct Policy {
    denies: Vec<Rule>,
    allows: Vec<Rule>,
    /// Of those in force with `allow`, the first by name.
    allowing: Option<Arc<str>>,
    /// The same of those that are only tried.
    allowing_tried: Option<Arc<str>>,
    is_any_tried: bool,
    asks_about_paths: bool,
    needs_fields: bool,
}

#[derive(Debug)]
struct Rule {
    policy: Arc<str>,
    tried: bool,
    /// The policy says something that this version does not know.
    unknown: bool,
    from: Vec<Source>,
    to: Vec<Operation>,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in.
    Allowed,
    /// It is let in; were all that is only tried in force it would be refused.
    Audited(Refusal),
    /// It is refused.
    Refused(Refusal),
}

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whose rule that is, as `namespace/name`. Where nothing allows it: of those that allow anything the first by name.
    pub policy: Arc<str>,
    /// How that comes.
    pub why: Why,
}

/// How a refusal comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is denied.
    Denied,
    /// Nothing allows it.
    NotAllowed,
    /// A policy says something that this version does not know.
    NotUnderstood,
}

impl Why {
    /// Label in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NotAllowed => "not-allowed",
            Self::NotUnderstood => "not-understood",
        }
    }
}

/// What a rule does, and so what becomes of a condition that can't be told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

impl Policy {
    /// Of these, which all select the pod. Their order makes no difference.
    #[must_use]
    pub fn new<'a>(access: impl IntoIterator<Item = &'a Access>) -> Self {
        let mut sorted: Vec<_> = access.into_iter().collect();
        sorted.sort_by_key(|access| access.name());
        let mut policy = Self::default();
        for access in sorted {
            let name: Arc<str> = access.name().into();
            match access {
                Access::Policy(one) => policy.add(&name, one),
                Access::Unknown(unknown) => {
                    policy.is_any_tried |= unknown.audit;
                    let everything = AccessRule::default();
                    policy.denies.push(Rule::new(&name, unknown.audit, true, &everything));
                }
            }
        }
        let rules = || policy.denies.iter().chain(&policy.allows);
        let operations = || rules().flat_map(|rule| &rule.to);
        policy.asks_about_paths =
            operations().any(|asks| !asks.paths.is_empty() || !asks.grpc_methods.is_empty());
        policy.needs_fields =
            operations().any(|asks| !asks.headers.is_empty() || !asks.grpc_methods.is_empty());
        policy
    }

    fn add(&mut self, name: &Arc<str>, policy: &AccessPolicy) {
        let AccessPolicy { name: _, selector: _, allow, deny, audit } = policy;
        self.is_any_tried |= audit;
        self.denies.extend(deny.iter().map(|rule| Rule::new(name, *audit, false, rule)));
        let Some(allow) = allow else { return };
        self.allows.extend(allow.iter().map(|rule| Rule::new(name, *audit, false, rule)));
        let first = if *audit { &mut self.allowing_tried } else { &mut self.allowing };
        first.get_or_insert_with(|| Arc::clone(name));
    }

    /// Whether nobody is ever refused or told of.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.denies.is_empty() && self.allowing.is_none() && self.allowing_tried.is_none()
    }

    /// Whether a decision on a request needs its header fields.
    #[must_use]
    pub fn needs_fields(&self) -> bool {
        self.needs_fields
    }

    /// Decides on a request, or on a connection that carries none.
    #[must_use]
    pub fn decide(&self, subject: &Subject<'_>, asked: Option<&Asked<'_>>) -> Verdict {
        if self.is_empty() {
            return Verdict::Allowed;
        }
        let request = asked.map(|asked| Request::new(asked, self.asks_about_paths));
        let request = request.as_ref();
        if let Some(refusal) = self.refusal(subject, request, false) {
            return Verdict::Refused(refusal);
        }
        if !self.is_any_tried {
            return Verdict::Allowed;
        }
        self.refusal(subject, request, true).map_or(Verdict::Allowed, Verdict::Audited)
    }

    /// Why it is refused if only those in force count, or with those that are tried.
    fn refusal(&self, subject: &Subject<'_>, request: Option<&Request<'_>>, tried: bool) -> Option<Refusal> {
        let counts = |rule: &&Rule| tried || !rule.tried;
        let mut denies = self.denies.iter().filter(counts);
        if let Some(rule) = denies.find(|rule| rule.matches(Effect::Deny, subject, request)) {
            let why = if rule.unknown { Why::NotUnderstood } else { Why::Denied };
            return Some(Refusal { policy: Arc::clone(&rule.policy), why });
        }
        let allowing_tried = self.allowing_tried.as_ref().filter(|_| tried);
        let policy = allowing_tried.or(self.allowing.as_ref())?;
        let mut allows = self.allows.iter().filter(counts);
        if allows.any(|rule| rule.matches(Effect::Allow, subject, request)) {
            return None;
        }
        Some(Refusal { policy: Arc::clone(policy), why: Why::NotAllowed })
    }
}

impl Rule {
    fn new(policy: &Arc<str>, tried: bool, unknown: bool, rule: &AccessRule) -> Self {
        let AccessRule { from, to } = rule.clone();
        Self { policy: Arc::clone(policy), tried, unknown, from, to }
    }

    fn matches(&self, effect: Effect, subject: &Subject<'_>, request: Option<&Request<'_>>) -> bool {
        (self.from.is_empty() || self.from.iter().any(|source| calls(source, subject)))
            && (self.to.is_empty()
                || self.to.iter().any(|operation| does(operation, effect, subject, request)))
    }
}

fn calls(source: &Source, subject: &Subject<'_>) -> bool {
    let Source { identity, namespace, service_account, cidr } = source;
    let proved = |pattern: &Option<Pattern>, meets: fn(&Pattern, &Subject<'_>) -> bool| {
        pattern.as_ref().is_none_or(|pattern| meets(pattern, subject))
    };
    proved(identity, |pattern, subject| {
        subject.identity.is_some_and(|id| {
            let domain = id.trust_domain().as_str();
            pattern.matches(&["spiffe://", domain, "/ns/", id.namespace(), "/sa/", id.service_account()])
        })
    }) && proved(namespace, |pattern, subject| {
        subject.identity.is_some_and(|id| pattern.matches(&[id.namespace()]))
    }) && proved(service_account, |pattern, subject| {
        subject.identity.is_some_and(|id| pattern.matches(&[id.namespace(), "/", id.service_account()]))
    }) && cidr.is_none_or(|cidr| cidr.contains(subject.address))
}

fn does(operation: &Operation, effect: Effect, subject: &Subject<'_>, request: Option<&Request<'_>>) -> bool {
    if !operation.ports.is_empty() && !operation.ports.contains(&subject.port) {
        return false;
    }
    if !operation.asks_about_requests() {
        return true;
    }
    let Some(request) = request else { return effect == Effect::Deny };
    let Operation { ports: _, methods, paths, headers, grpc_methods } = operation;
    (methods.is_empty() || methods.iter().any(|method| request.has_method(method, effect)))
        && (paths.is_empty() || request.has_path(paths, effect))
        && headers.iter().all(|condition| has_header(condition, request.asked.fields, effect))
        && (grpc_methods.is_empty() || request.calls(grpc_methods, effect))
}

/// A request, and what its path means.
struct Request<'a> {
    asked: &'a Asked<'a>,
    /// Nothing if it can be read in two ways, or if nobody wants to know.
    path: Option<Cow<'a, str>>,
}

impl<'a> Request<'a> {
    fn new(asked: &'a Asked<'a>, asks_about_paths: bool) -> Self {
        // The target of CONNECT is no path.
        let has_path = asks_about_paths && asked.method != "CONNECT";
        let path = if has_path { path::meaning(asked.path) } else { None };
        Self { asked, path }
    }

    /// Methods are told apart by case (RFC 9110 §9.1), but not by every server.
    fn has_method(&self, method: &str, effect: Effect) -> bool {
        match effect {
            Effect::Allow => self.asked.method == method,
            Effect::Deny => self.asked.method.eq_ignore_ascii_case(method),
        }
    }

    fn has_path(&self, patterns: &[Pattern], effect: Effect) -> bool {
        let Some(path) = &self.path else { return effect == Effect::Deny };
        patterns.iter().any(|pattern| pattern.matches(&[path]))
    }

    /// A gRPC method is a path (gRPC over HTTP/2, "Requests"). What is denied is denied whatever the content is said to be: a
    /// server may take other encodings at the same path.
    fn calls(&self, patterns: &[Pattern], effect: Effect) -> bool {
        let Some(path) = &self.path else { return effect == Effect::Deny };
        let method = path.strip_prefix('/').unwrap_or(path);
        let is_grpc = || {
            let mut types =
                self.asked.fields.iter().filter(|field| field.name.eq_ignore_ascii_case("content-type"));
            let one = types.next().is_some_and(|field| is_grpc(field.value));
            one && types.next().is_none() && self.asked.method == "POST"
        };
        patterns.iter().any(|pattern| pattern.matches(&[method])) && (effect == Effect::Deny || is_grpc())
    }
}

/// `application/grpc`, with a message format or parameters perhaps; not `application/grpc-web`, which is another protocol.
fn is_grpc(content_type: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let Some((this, rest)) = content_type.split_at_checked(TYPE.len()) else { return false };
    this.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
}

/// Of several fields of the name all must meet it for `allow` and one for `deny`: nobody knows which an application reads.
fn has_header(condition: &HeaderCondition, fields: &[Field<'_>], effect: Effect) -> bool {
    let mut values = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case(&condition.name))
        .map(|field| field.value);
    let mut meets = |check: &dyn Fn(&[u8]) -> bool| match effect {
        Effect::Allow => {
            let Some(first) = values.next() else { return false };
            check(first) && values.all(check)
        }
        Effect::Deny => values.any(check),
    };
    match &condition.value {
        HeaderCheck::Exact(exact) => meets(&|value| value == exact.as_bytes()),
        HeaderCheck::Prefix(prefix) => meets(&|value| value.starts_with(prefix.as_bytes())),
        HeaderCheck::Present(present) => values.next().is_some() == *present,
    }
}

#[cfg(test)]
mod tests;
