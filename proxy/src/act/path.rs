//! Another path or host for a request.

use ferrule_config as config;

use super::Unwritable;
use crate::route::Request;

/// Another path.
#[derive(Debug)]
pub(super) enum PathRewrite {
    Full(Box<str>),
    /// In the place of the prefix that matched; without a slash at its end.
    Prefix(Box<str>),
}

impl PathRewrite {
    pub fn new(rewrite: &config::PathRewrite) -> Self {
        match rewrite {
            config::PathRewrite::Full(path) => Self::Full(path.as_str().into()),
            config::PathRewrite::Prefix(prefix) => {
                Self::Prefix(prefix.strip_suffix('/').unwrap_or(prefix).into())
            }
        }
    }

    /// Path and query of a request, of whose path so many bytes are the prefix that matched.
    ///
    /// A path that begins with two slashes is refused unless the request's own did: some take what follows for a host
    /// (RFC 3986 §4.2), so it would be a way to have the client or the backend look elsewhere.
    pub fn target(&self, request: &Request<'_>, prefix: usize) -> Result<String, Unwritable> {
        let path = request.path;
        // `*` and the authority of CONNECT are none.
        if !path.starts_with('/') {
            return Err(Unwritable);
        }
        let mut target = String::with_capacity(path.len() + 64);
        match self {
            Self::Full(full) => target.push_str(full),
            Self::Prefix(replacement) => {
                target.push_str(replacement);
                target.push_str(path.get(prefix..).unwrap_or_default());
                if target.is_empty() {
                    target.push('/');
                }
            }
        }
        if target.starts_with("//") && !path.starts_with("//") {
            return Err(Unwritable);
        }
        with_query(&mut target, request);
        Ok(target)
    }
}

/// Path and query of a request, as they are.
pub(super) fn unchanged(request: &Request<'_>) -> String {
    let mut target = request.path.to_owned();
    with_query(&mut target, request);
    target
}

fn with_query(target: &mut String, request: &Request<'_>) {
    if let Some(query) = request.query {
        target.push('?');
        target.push_str(query);
    }
}

/// A request as it is sent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Path and query; nothing for a request that is for no path.
    pub target: Option<String>,
    /// Host, and maybe a port; nothing if it is as it was.
    pub host: Option<Box<str>>,
}

impl Rewritten {
    pub(super) fn new(
        request: &Request<'_>,
        host: Option<&str>,
        path: Option<&PathRewrite>,
        prefix: usize,
    ) -> Result<Self, Unwritable> {
        let target = match path {
            _ if !request.path.starts_with('/') => None,
            Some(path) => Some(path.target(request, prefix)?),
            None => Some(unchanged(request)),
        };
        // Where CONNECT goes is its target, and not the host of a request.
        let host = host.filter(|_| request.method != "CONNECT");
        Ok(Self { target, host: host.map(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(rewrite: config::PathRewrite, path: &str, prefix: usize) -> Result<String, Unwritable> {
        let request = Request { path, query: Some("q=1"), ..Request::default() };
        PathRewrite::new(&rewrite).target(&request, prefix)
    }

    fn replaced(prefix: &str, with: &str, path: &str) -> Result<String, Unwritable> {
        target(config::PathRewrite::Prefix(with.into()), path, prefix.len())
    }

    #[test]
    fn a_prefix_is_replaced_by_segments_and_the_query_stays() {
        assert_eq!(replaced("/v2", "/new", "/v2/x").as_deref(), Ok("/new/x?q=1"));
        assert_eq!(replaced("/v2", "/new/", "/v2/x").as_deref(), Ok("/new/x?q=1"));
        assert_eq!(replaced("/v2", "/new", "/v2").as_deref(), Ok("/new?q=1"));
        assert_eq!(replaced("/v2", "/new", "/v2/").as_deref(), Ok("/new/?q=1"));
        assert_eq!(replaced("/v2", "/", "/v2/x").as_deref(), Ok("/x?q=1"));
        assert_eq!(replaced("/v2", "/", "/v2").as_deref(), Ok("/?q=1"));
        assert_eq!(replaced("/v2", "/", "/v2/").as_deref(), Ok("/?q=1"));
        assert_eq!(replaced("", "/new", "/x").as_deref(), Ok("/new/x?q=1"));
    }

    #[test]
    fn a_whole_path_is_replaced_and_the_query_stays() {
        let full = || config::PathRewrite::Full("/a/b".into());
        assert_eq!(target(full(), "/anything", 0).as_deref(), Ok("/a/b?q=1"));
    }

    #[test]
    fn a_path_does_not_become_a_host() {
        assert_eq!(replaced("/v2", "/", "/v2//evil.example/x"), Err(Unwritable));
        assert_eq!(replaced("/v2", "/a", "/v2//evil.example").as_deref(), Ok("/a//evil.example?q=1"));
    }

    #[test]
    fn what_is_for_no_path_gets_none() {
        let request = Request { method: "OPTIONS", path: "*", ..Request::default() };
        let rewrite = PathRewrite::Full("/a".into());
        let rewritten = Rewritten::new(&request, Some("h"), Some(&rewrite), 0).expect("writable");
        assert_eq!(rewritten, Rewritten { target: None, host: Some("h".into()) });
        let request = Request { method: "CONNECT", path: "cart:80", ..Request::default() };
        let rewritten = Rewritten::new(&request, Some("h"), Some(&rewrite), 0).expect("writable");
        assert_eq!(rewritten, Rewritten { target: None, host: None });
    }
}
