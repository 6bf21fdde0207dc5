//! What a rule does with a request beside sending it to a backend: pure but for chance, which is passed in.
//!
//! ```text
//!   request ─▶ preflight? ─▶ fault? ─▶ redirect, direct response? ─▶ rewrite ─▶ to a backend
//!                  │           │                 │
//!                  └───────────┴──── Answer ◀────┘
//! ```

mod answer;
mod cors;
mod fault;
mod path;

use std::time::Duration;

use ferrule_config::{self as config, HeaderChange};

pub use self::{answer::Answer, path::Rewritten};
use self::{cors::Cors, fault::Fault, path::PathRewrite};
use crate::route::{Found, Request};

/// What a rule does beside sending requests to a backend.
#[derive(Debug)]
pub struct Actions {
    cors: Option<Cors>,
    fault: Option<Fault>,
    instead: Option<Instead>,
    rewrite: Option<Rewrite>,
}

/// An answer in the place of a backend's.
#[derive(Debug)]
enum Instead {
    Redirect(answer::Redirect),
    Fixed(Answer),
}

/// Another host or path on the way to the backend.
#[derive(Debug)]
struct Rewrite {
    host: Option<Box<str>>,
    path: Option<PathRewrite>,
}

/// What becomes of a request.
#[derive(Debug, Default)]
pub struct Acted {
    /// Wait so long first.
    pub delay: Option<Duration>,
    /// This is the answer; nothing is sent anywhere.
    pub answer: Option<Answer>,
    /// It is sent on so.
    pub rewritten: Option<Rewritten>,
    /// Further changes to the response's head.
    pub response_headers: Option<HeaderChange>,
}

/// The path that a request would have is one that none must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritable;

impl Actions {
    /// The actions of a rule; none if it only sends requests on.
    #[must_use]
    pub fn new(rule: &config::Rule) -> Option<Self> {
        let config::Rule { rewrite, redirect, direct_response, fault, cors, response_headers, .. } = rule;
        let instead = match (redirect, direct_response) {
            (Some(redirect), _) => Some(Instead::Redirect(answer::Redirect::new(redirect, response_headers))),
            (None, Some(fixed)) => Some(Instead::Fixed(Answer::fixed(fixed, response_headers))),
            (None, None) => None,
        };
        let rewrite = rewrite.as_ref().map(|config::Rewrite { host, path }| Rewrite {
            host: host.as_deref().map(Into::into),
            path: path.as_ref().map(PathRewrite::new),
        });
        let actions = Self {
            cors: cors.as_ref().map(Cors::new),
            fault: fault.as_ref().map(Fault::new),
            instead,
            rewrite,
        };
        let Self { cors, fault, instead, rewrite } = &actions;
        let any = cors.is_some() || fault.is_some() || instead.is_some() || rewrite.is_some();
        any.then_some(actions)
    }

    /// Whether it answers preflight requests.
    #[must_use]
    pub fn answers_preflights(&self) -> bool {
        self.cors.is_some()
    }

    /// The answer to a preflight request (the Fetch standard, CORS-preflight fetch).
    #[must_use]
    pub fn preflight(&self, request: &Request<'_>) -> Option<Answer> {
        self.cors.as_ref().map(|cors| cors.preflight(request))
    }

    /// What becomes of a request that fell under the rule. `random(n)` gives a uniform number in `0..n`.
    ///
    /// # Errors
    /// [`Unwritable`]: the request is to be refused.
    pub fn act(
        &self,
        request: &Request<'_>,
        found: Found,
        mut random: impl FnMut(u32) -> u32,
    ) -> Result<Acted, Unwritable> {
        let mut acted = Acted::default();
        if let Some(cors) = &self.cors {
            acted.response_headers = cors.changes(request);
        }
        if let Some(fault) = &self.fault {
            acted.delay = fault.delay(&mut random);
            acted.answer = fault.abort(request, &mut random);
        }
        if acted.answer.is_some() {
            return Ok(acted);
        }
        match &self.instead {
            Some(Instead::Fixed(answer)) => acted.answer = Some(answer.clone()),
            Some(Instead::Redirect(redirect)) => acted.answer = Some(redirect.answer(request, found.prefix)?),
            None => {}
        }
        if let (Some(answer), Some(changes)) = (&mut acted.answer, &acted.response_headers) {
            answer.add(changes);
        }
        if let Some(Rewrite { host, path }) = &self.rewrite {
            acted.rewritten = Some(Rewritten::new(request, host.as_deref(), path.as_ref(), found.prefix)?);
        }
        Ok(acted)
    }
}

/// A field of the request, if it is there once.
fn single<'a>(request: &Request<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = request.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    let first = values.next()?;
    values.next().is_none().then_some(first.value)
}

/// Whether the request is a preflight request, and for which method.
#[must_use]
pub fn preflight_method<'a>(request: &Request<'a>) -> Option<&'a str> {
    if request.method != "OPTIONS" {
        return None;
    }
    single(request, "origin")?;
    std::str::from_utf8(single(request, "access-control-request-method")?).ok()
}
