//! Answers that a Route asks for.

use ferrule_config::{self as config, HeaderChange, names::ERROR_HEADER};

use super::{
    Unwritable,
    path::{self, PathRewrite},
};
use crate::route::Request;

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Names, in lower case, and values.
    pub fields: Vec<(String, String)>,
    /// Content.
    pub body: String,
    /// It is an error that was asked for: its name in metrics and in the `ferrule-error` field.
    pub cause: Option<&'static str>,
    /// It is for a call of gRPC, and this is its status: the fields are trailers too.
    pub grpc: Option<u8>,
}

impl Answer {
    /// A direct response.
    pub(super) fn fixed(fixed: &config::DirectResponse, changes: &HeaderChange) -> Self {
        let config::DirectResponse { status, body, content_type } = fixed;
        let mut answer = Self { status: *status, body: body.clone(), ..Self::default() };
        if !body.is_empty() {
            let media = content_type.as_deref().unwrap_or("text/plain; charset=utf-8");
            answer.fields.push(("content-type".into(), media.into()));
        }
        answer.add(changes);
        answer
    }

    /// An error that a fault asks for. `grpc`: to a call of gRPC, with this status.
    pub(super) fn fault(status: u16, grpc: Option<u8>) -> Self {
        const CAUSE: &str = "fault";
        let mut answer = Self { status, grpc, cause: Some(CAUSE), ..Self::default() };
        answer.fields.push((ERROR_HEADER.into(), CAUSE.into()));
        match grpc {
            Some(code) => {
                answer.fields.push(("content-type".into(), "application/grpc".into()));
                answer.fields.push(("grpc-status".into(), code.to_string()));
                answer.fields.push(("grpc-message".into(), "ferrule: a fault that a Route asks for".into()));
            }
            None => {
                answer.fields.push(("content-type".into(), "text/plain; charset=utf-8".into()));
                answer.body.push_str("ferrule: a fault that a Route asks for\n");
            }
        }
        answer
    }

    /// Makes changes to its fields.
    pub(super) fn add(&mut self, HeaderChange { set, add, remove }: &HeaderChange) {
        let is_gone = |name: &String| remove.contains(name) || set.iter().any(|(each, _)| each == name);
        self.fields.retain(|(name, _)| !is_gone(name));
        self.fields.extend(set.iter().chain(add).cloned());
    }

    /// Whether a response of this status has content, and so a length (RFC 9110 §8.6, §15.3.6 and §15.4.5).
    #[must_use]
    pub fn has_content(&self) -> bool {
        !matches!(self.status, 204 | 304)
    }

    /// Its reason phrase.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        let status = http::StatusCode::from_u16(self.status).ok();
        status.and_then(|status| status.canonical_reason()).unwrap_or_default()
    }
}

/// An answer that sends the client elsewhere.
#[derive(Debug)]
pub(super) struct Redirect {
    scheme: Option<Box<str>>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<PathRewrite>,
    status: u16,
    changes: HeaderChange,
}

impl Redirect {
    pub fn new(redirect: &config::Redirect, changes: &HeaderChange) -> Self {
        let config::Redirect { scheme, host, port, path, status } = redirect;
        Self {
            scheme: scheme.as_deref().map(Into::into),
            host: host.as_deref().map(Into::into),
            port: *port,
            path: path.as_ref().map(PathRewrite::new),
            status: *status,
            changes: changes.clone(),
        }
    }

    /// The answer to a request, of whose path so many bytes are the prefix that matched.
    pub fn answer(&self, request: &Request<'_>, prefix: usize) -> Result<Answer, Unwritable> {
        let target = match &self.path {
            Some(path) => path.target(request, prefix)?,
            None => path::unchanged(request),
        };
        let own = std::str::from_utf8(request.authority).unwrap_or_default();
        let (own_host, own_port) = split(own);
        let host = self.host.as_deref().unwrap_or(own_host);
        let scheme = self.scheme.as_deref().unwrap_or("http");
        let keeps_port = self.scheme.is_none() && self.host.is_none();
        let default = if scheme == "https" { 443 } else { 80 };
        let port = match self.port {
            Some(port) if port == default => String::new(),
            Some(port) => format!(":{port}"),
            None if keeps_port => own_port.to_owned(),
            None => String::new(),
        };
        // A target of another form has no path to go to; nor is there a host to be named to one who named none.
        if !target.starts_with('/') || host.is_empty() {
            return Err(Unwritable);
        }
        let mut answer = Answer { status: self.status, ..Answer::default() };
        answer.fields.push(("location".into(), format!("{scheme}://{host}{port}{target}")));
        answer.add(&self.changes);
        Ok(answer)
    }
}

/// Host, and a colon and the port if there is one.
fn split(authority: &str) -> (&str, &str) {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => authority.split_at(colon),
        _ => (authority, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(redirect: config::Redirect, path: &str, authority: &str) -> Result<String, Unwritable> {
        let request =
            Request { path, query: Some("a=b"), authority: authority.as_bytes(), ..Request::default() };
        let redirect = Redirect::new(&redirect, &HeaderChange::default());
        redirect.answer(&request, 3).map(|answer| answer.fields[0].1.clone())
    }

    fn redirect() -> config::Redirect {
        config::Redirect { status: 302, ..config::Redirect::default() }
    }

    #[test]
    fn a_redirect_changes_what_it_names_and_nothing_else() {
        let scheme = config::Redirect { scheme: Some("https".into()), ..redirect() };
        assert_eq!(location(scheme.clone(), "/v2/x", "cart:8080").as_deref(), Ok("https://cart/v2/x?a=b"));
        let port = config::Redirect { port: Some(8443), ..scheme.clone() };
        assert_eq!(location(port, "/v2/x", "cart:8080").as_deref(), Ok("https://cart:8443/v2/x?a=b"));
        let port = config::Redirect { port: Some(443), ..scheme };
        assert_eq!(location(port, "/v2/x", "cart").as_deref(), Ok("https://cart/v2/x?a=b"));
        let path = config::Redirect { path: Some(config::PathRewrite::Prefix("/new".into())), ..redirect() };
        assert_eq!(location(path, "/v2/x", "cart:8080").as_deref(), Ok("http://cart:8080/new/x?a=b"));
        let host = config::Redirect { host: Some("shop.example".into()), ..redirect() };
        assert_eq!(location(host, "/v2/x", "cart:8080").as_deref(), Ok("http://shop.example/v2/x?a=b"));
        let port = config::Redirect { port: Some(81), ..redirect() };
        assert_eq!(location(port, "/v2/x", "[::1]:8080").as_deref(), Ok("http://[::1]:81/v2/x?a=b"));
    }

    #[test]
    fn a_redirect_leads_to_no_host_that_the_client_made_up_in_its_path() {
        let port = config::Redirect { port: Some(81), ..redirect() };
        assert_eq!(
            location(port.clone(), "//evil.example", "cart").as_deref(),
            Ok("http://cart:81//evil.example?a=b")
        );
        let root = config::Redirect { path: Some(config::PathRewrite::Prefix("/".into())), ..redirect() };
        assert_eq!(location(root, "/v2//evil.example", "cart"), Err(Unwritable));
        assert_eq!(location(port, "/v2/x", ""), Err(Unwritable));
    }

    #[test]
    fn a_direct_response_has_a_type_and_the_rules_fields() {
        let fixed = config::DirectResponse { status: 200, body: "[]".into(), content_type: None };
        let changes = HeaderChange { set: vec![("x-a".into(), "1".into())], ..HeaderChange::default() };
        let answer = Answer::fixed(&fixed, &changes);
        let names: Vec<_> = answer.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["content-type", "x-a"]);
        assert_eq!(answer.reason(), "OK");
    }
}
