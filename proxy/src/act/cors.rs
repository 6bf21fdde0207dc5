//! Cross-origin resource sharing (the Fetch standard, HTTP-CORS protocol).

use ferrule_config::{self as config, HeaderChange};

use super::{Answer, single};
use crate::{message::list, route::Request};

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const ALLOW_METHODS: &str = "access-control-allow-methods";
const ALLOW_HEADERS: &str = "access-control-allow-headers";
const EXPOSE_HEADERS: &str = "access-control-expose-headers";
const MAX_AGE: &str = "access-control-max-age";
const VARY: &str = "vary";

/// Which names are allowed.
#[derive(Debug)]
enum Names {
    All,
    /// These, joined by commas.
    These(String),
}

#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<Origin>,
    methods: Names,
    headers: Names,
    exposed: String,
    credentials: bool,
    max_age: String,
}

#[derive(Debug)]
enum Origin {
    All,
    Exact(String),
    /// What it begins with, up to the host, and what it ends with, from the dot.
    Within(String, String),
}

impl Names {
    fn new(names: &[String]) -> Self {
        if names.iter().any(|name| name == "*") { Self::All } else { Self::These(names.join(", ")) }
    }
}

impl Cors {
    pub fn new(cors: &config::Cors) -> Self {
        let config::Cors { origins, methods, headers, exposed, credentials, max_age } = cors;
        let origin = |origin: &String| match origin.split_once("://*") {
            Some((scheme, rest)) => Origin::Within(format!("{scheme}://"), rest.to_owned()),
            None if origin == "*" => Origin::All,
            None => Origin::Exact(origin.clone()),
        };
        Self {
            origins: origins.iter().map(origin).collect(),
            methods: Names::new(methods),
            headers: Names::new(headers),
            exposed: exposed.join(", "),
            credentials: *credentials,
            max_age: max_age.get().as_secs().to_string(),
        }
    }

    /// The answer to a preflight request. One from an origin that is not allowed is told nothing.
    pub fn preflight(&self, request: &Request<'_>) -> Answer {
        let mut answer = Answer { status: 204, ..Answer::default() };
        let mut field = |name: &str, value: &str| answer.fields.push((name.to_owned(), value.to_owned()));
        field(VARY, "origin, access-control-request-method, access-control-request-headers");
        let Some(origin) = self.allowed(request) else { return answer };
        field(ALLOW_ORIGIN, origin);
        if self.credentials {
            field(ALLOW_CREDENTIALS, "true");
        }
        let asked = |name| single(request, name).and_then(|value| std::str::from_utf8(value).ok());
        match &self.methods {
            // With credentials a star is a name like any other, so what was asked for is named.
            Names::All => field(ALLOW_METHODS, asked("access-control-request-method").unwrap_or("*")),
            Names::These(methods) if methods.is_empty() => {}
            Names::These(methods) => field(ALLOW_METHODS, methods),
        }
        match &self.headers {
            Names::All => {
                let names = list(request.fields, "access-control-request-headers");
                let names: Vec<_> = names.filter_map(|name| std::str::from_utf8(name).ok()).collect();
                if !names.is_empty() {
                    field(ALLOW_HEADERS, &names.join(", "));
                }
            }
            Names::These(headers) if headers.is_empty() => {}
            Names::These(headers) => field(ALLOW_HEADERS, headers),
        }
        field(MAX_AGE, &self.max_age);
        answer
    }

    /// Changes to the response of a request that names its origin. What the backend says of the matter does not count.
    pub fn changes(&self, request: &Request<'_>) -> Option<HeaderChange> {
        let named = request.fields.iter().any(|field| field.name.eq_ignore_ascii_case("origin"));
        if !named {
            return None;
        }
        let names = [ALLOW_ORIGIN, ALLOW_CREDENTIALS, ALLOW_METHODS, ALLOW_HEADERS, EXPOSE_HEADERS, MAX_AGE];
        let mut changes = HeaderChange {
            remove: names.map(str::to_owned).to_vec(),
            add: vec![(VARY.to_owned(), "origin".to_owned())],
            ..HeaderChange::default()
        };
        let Some(origin) = self.allowed(request) else { return Some(changes) };
        let mut field = |name: &str, value: &str| changes.add.push((name.to_owned(), value.to_owned()));
        field(ALLOW_ORIGIN, origin);
        if self.credentials {
            field(ALLOW_CREDENTIALS, "true");
        }
        if !self.exposed.is_empty() {
            field(EXPOSE_HEADERS, &self.exposed);
        }
        Some(changes)
    }

    /// What the request's origin is told to be, if it is allowed.
    fn allowed<'a>(&self, request: &Request<'a>) -> Option<&'a str> {
        let origin = std::str::from_utf8(single(request, "origin")?).ok()?;
        let is_text = origin.bytes().all(|byte| byte.is_ascii_graphic());
        let allowed = self.origins.iter().any(|each| match each {
            Origin::All => true,
            Origin::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            Origin::Within(scheme, rest) => {
                let lower = origin.to_ascii_lowercase();
                let host =
                    lower.strip_prefix(scheme.as_str()).and_then(|host| host.strip_suffix(rest.as_str()));
                // Labels and nothing else: what else could stand there would make another origin of it.
                host.is_some_and(|labels| {
                    !labels.is_empty()
                        && labels.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
                })
            }
        });
        let all = self.origins.iter().any(|each| matches!(each, Origin::All));
        (allowed && is_text).then_some(if all && !self.credentials { "*" } else { origin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Field;

    fn cors(origins: &[&str], methods: &[&str], headers: &[&str], credentials: bool) -> Cors {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Cors::new(&config::Cors {
            origins: owned(origins),
            methods: owned(methods),
            headers: owned(headers),
            exposed: owned(&["x-total"]),
            credentials,
            max_age: config::Duration::from_millis(5000),
        })
    }

    fn preflight(cors: &Cors, origin: &str) -> Vec<(String, String)> {
        let fields = [
            Field { name: "Origin", value: origin.as_bytes() },
            Field { name: "Access-Control-Request-Method", value: b"PUT" },
            Field { name: "Access-Control-Request-Headers", value: b"x-a,x-b" },
        ];
        let request = Request { method: "OPTIONS", path: "/", fields: &fields, ..Request::default() };
        assert_eq!(super::super::preflight_method(&request), Some("PUT"));
        cors.preflight(&request).fields
    }

    fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
        fields.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_is_told_what_it_may() {
        let cors = cors(&["https://shop.example"], &["PUT", "DELETE"], &["x-a"], true);
        let fields = preflight(&cors, "https://shop.example");
        assert_eq!(value(&fields, ALLOW_ORIGIN), Some("https://shop.example"));
        assert_eq!(value(&fields, ALLOW_METHODS), Some("PUT, DELETE"));
        assert_eq!(value(&fields, ALLOW_HEADERS), Some("x-a"));
        assert_eq!(value(&fields, ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(value(&fields, MAX_AGE), Some("5"));
        assert_eq!(preflight(&cors, "https://evil.example").len(), 1, "nothing but vary");
        assert_eq!(preflight(&cors, "https://shop.example.evil").len(), 1);
    }

    #[test]
    fn a_star_names_what_was_asked_for() {
        let all = cors(&["*"], &["*"], &["*"], true);
        let fields = preflight(&all, "https://any.example");
        assert_eq!(value(&fields, ALLOW_ORIGIN), Some("https://any.example"));
        assert_eq!(value(&fields, ALLOW_METHODS), Some("PUT"));
        assert_eq!(value(&fields, ALLOW_HEADERS), Some("x-a, x-b"));
        let open = cors(&["*"], &[], &[], false);
        assert_eq!(value(&preflight(&open, "https://any.example"), ALLOW_ORIGIN), Some("*"));
    }

    #[test]
    fn a_wildcard_is_for_labels_alone() {
        let cors = cors(&["https://*.shop.example"], &[], &[], false);
        let allowed = |origin: &str| value(&preflight(&cors, origin), ALLOW_ORIGIN).is_some();
        assert!(allowed("https://a.shop.example") && allowed("https://A.b.shop.example"));
        assert!(!allowed("https://shop.example") && !allowed("http://a.shop.example"));
        assert!(!allowed("https://evil.example/.shop.example") && !allowed("https://evil:1.shop.example"));
    }

    #[test]
    fn a_response_says_what_the_rule_says_and_not_what_the_backend_does() {
        let cors = cors(&["https://shop.example"], &[], &[], false);
        let changes = |origin: &'static [u8]| {
            let fields = [Field { name: "origin", value: origin }];
            cors.changes(&Request { fields: &fields, ..Request::default() }).expect("changes")
        };
        let good = changes(b"https://shop.example");
        assert_eq!(value(&good.add, ALLOW_ORIGIN), Some("https://shop.example"));
        assert_eq!(value(&good.add, EXPOSE_HEADERS), Some("x-total"));
        assert!(good.remove.iter().any(|name| name == ALLOW_ORIGIN));
        assert!(value(&changes(b"https://evil.example").add, ALLOW_ORIGIN).is_none());
        assert!(cors.changes(&Request::default()).is_none());
    }
}
