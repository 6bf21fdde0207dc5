//! What a rule does beside sending requests to a backend, from what users write to what proxies read.

use ferrule_config::{
    Abort, Cors, Delay, DirectResponse, Duration, Fault, FaultStatus, Match, PathMatch, PathRewrite,
    Redirect, Rewrite,
};

use crate::api::{GRPC_STATUSES, Percent, route};

use super::header::{self, Invalid, invalid};

/// Longest body of a direct response, in bytes.
const MAX_BODY: usize = 4096;
/// Longest delay of a fault.
const MAX_DELAY: Duration = Duration::from_millis(300_000);
/// Longest time for which a browser may remember the answer to a preflight request.
const MAX_AGE: Duration = Duration::from_millis(86_400_000);

/// Another host or path on the way to the backend, for requests that fall under one of these matches.
pub(super) fn rewrite(
    rewrite: Option<&route::Rewrite>,
    matches: &[Match],
    field: &str,
) -> Result<Option<Rewrite>, Invalid> {
    let Some(route::Rewrite { hostname, path }) = rewrite else { return Ok(None) };
    if hostname.is_none() && path.is_none() {
        return Err(invalid(field, "give hostname, path or both"));
    }
    if let Some(host) = hostname.as_ref().filter(|host| !is_host(host)) {
        let problem = format!("{host:?} must be a host, and a port if need be");
        return Err(invalid(format!("{field}.hostname"), problem));
    }
    let path = path.as_ref().map(|path| path_rewrite(path, matches, &format!("{field}.path"))).transpose()?;
    Ok(Some(Rewrite { host: hostname.clone(), path }))
}

/// An answer that sends the client elsewhere.
pub(super) fn redirect(
    redirect: Option<&route::Redirect>,
    matches: &[Match],
    field: &str,
) -> Result<Option<Redirect>, Invalid> {
    let Some(redirect) = redirect else { return Ok(None) };
    let route::Redirect { scheme, hostname, port, path, status_code } = redirect;
    if scheme.is_none() && hostname.is_none() && port.is_none() && path.is_none() {
        return Err(invalid(field, "give scheme, hostname, port or path, or it leads to itself"));
    }
    if let Some(host) = hostname.as_ref().filter(|host| !is_host(host) || host.contains(':')) {
        return Err(invalid(format!("{field}.hostname"), format!("{host:?} must be a host without a port")));
    }
    if !matches!(status_code, 301 | 302 | 303 | 307 | 308) {
        return Err(invalid(format!("{field}.statusCode"), "must be 301, 302, 303, 307 or 308"));
    }
    let scheme = scheme.map(|scheme| match scheme {
        route::Scheme::Http => "http".to_owned(),
        route::Scheme::Https => "https".to_owned(),
    });
    let path = path.as_ref().map(|path| path_rewrite(path, matches, &format!("{field}.path"))).transpose()?;
    Ok(Some(Redirect { scheme, host: hostname.clone(), port: *port, path, status: *status_code }))
}

fn path_rewrite(
    rewrite: &route::PathRewrite,
    matches: &[Match],
    field: &str,
) -> Result<PathRewrite, Invalid> {
    match (&rewrite.full, &rewrite.prefix) {
        (Some(full), None) => {
            header::path_text(full, &format!("{field}.full"))?;
            Ok(PathRewrite::Full(full.clone()))
        }
        (None, Some(prefix)) => {
            header::path_text(prefix, &format!("{field}.prefix"))?;
            let prefixed = |each: &Match| matches!(each.path, Some(PathMatch::Prefix(_)));
            if !matches.iter().all(prefixed) {
                let problem = "is for rules whose every match has path.prefix: what else would it replace?";
                return Err(invalid(format!("{field}.prefix"), problem));
            }
            Ok(PathRewrite::Prefix(prefix.clone()))
        }
        _ => Err(invalid(field, "give exactly one of full and prefix")),
    }
}

/// A host, and maybe a port.
fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "80"));
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(inner)
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// An answer of the sidecar itself.
pub(super) fn direct_response(
    response: Option<&route::DirectResponse>,
    field: &str,
) -> Result<Option<DirectResponse>, Invalid> {
    let Some(response) = response else { return Ok(None) };
    let route::DirectResponse { status_code, body, content_type } = response;
    if !(200..=599).contains(status_code) {
        return Err(invalid(format!("{field}.statusCode"), "must be 200 to 599"));
    }
    let body = body.clone().unwrap_or_default();
    if body.len() > MAX_BODY {
        let problem = format!("has {} bytes, and may have {MAX_BODY}", body.len());
        return Err(invalid(format!("{field}.body"), problem));
    }
    if matches!(status_code, 204 | 205 | 304) && !body.is_empty() {
        return Err(invalid(
            format!("{field}.body"),
            format!("a response with status {status_code} has none"),
        ));
    }
    let content_type = content_type
        .as_deref()
        .map(|text| header::value(text, &format!("{field}.contentType")))
        .transpose()?;
    Ok(Some(DirectResponse { status: *status_code, body, content_type }))
}

/// Faults for a share of the requests.
pub(super) fn fault(fault: Option<&route::Fault>, field: &str) -> Result<Option<Fault>, Invalid> {
    let Some(route::Fault { delay, abort }) = fault else { return Ok(None) };
    if delay.is_none() && abort.is_none() {
        return Err(invalid(field, "give delay, abort or both"));
    }
    let delay = match delay {
        Some(route::Delay { duration, .. }) if *duration > MAX_DELAY => {
            return Err(invalid(
                format!("{field}.delay.duration"),
                format!("{duration} must be at most {MAX_DELAY}"),
            ));
        }
        Some(route::Delay { duration, percentage }) => {
            Some(Delay { share: share(*percentage), time: *duration })
        }
        None => None,
    };
    let abort = match abort {
        Some(route::Abort { http_status, grpc_status, percentage }) => {
            let status = abort_status(*http_status, grpc_status.as_deref(), &format!("{field}.abort"))?;
            Some(Abort { share: share(*percentage), status })
        }
        None => None,
    };
    Ok(Some(Fault { delay, abort }))
}

fn abort_status(http: Option<u16>, grpc: Option<&str>, field: &str) -> Result<FaultStatus, Invalid> {
    match (http, grpc) {
        (Some(status @ 400..=599), None) => Ok(FaultStatus::Http(status)),
        (Some(_), None) => Err(invalid(format!("{field}.httpStatus"), "must be 400 to 599")),
        (None, Some(name)) => grpc_status(name, &format!("{field}.grpcStatus")).map(FaultStatus::Grpc),
        _ => Err(invalid(field, "give exactly one of httpStatus and grpcStatus")),
    }
}

/// The number of a status of gRPC that is an error.
pub(super) fn grpc_status(name: &str, field: &str) -> Result<u8, Invalid> {
    let code = (1..).zip(GRPC_STATUSES).find(|(_, known)| *known == name).map(|(code, _)| code);
    code.ok_or_else(|| invalid(field, format!("{name:?} is no status of gRPC that says of an error")))
}

fn share(percentage: Percent) -> u16 {
    percentage.hundredths()
}

/// Which other sites' pages may make requests.
pub(super) fn cors(cors: Option<&route::Cors>, field: &str) -> Result<Option<Cors>, Invalid> {
    let Some(cors) = cors else { return Ok(None) };
    let route::Cors {
        allow_origins,
        allow_methods,
        allow_headers,
        expose_headers,
        allow_credentials,
        max_age,
    } = cors;
    if allow_origins.is_empty() {
        return Err(invalid(format!("{field}.allowOrigins"), "name at least one origin"));
    }
    for (index, origin) in allow_origins.iter().enumerate() {
        if origin != "*" && !is_origin(origin) {
            let problem = format!("{origin:?} must be an origin like https://shop.example, or *");
            return Err(invalid(format!("{field}.allowOrigins[{index}]"), problem));
        }
    }
    let lists =
        [("allowMethods", allow_methods), ("allowHeaders", allow_headers), ("exposeHeaders", expose_headers)];
    for (list, names) in lists {
        for (index, name) in names.iter().enumerate() {
            if !header::is_token(name) {
                return Err(invalid(format!("{field}.{list}[{index}]"), format!("{name:?} is not a name")));
            }
        }
    }
    if *max_age > MAX_AGE {
        return Err(invalid(format!("{field}.maxAge"), format!("{max_age} must be at most {MAX_AGE}")));
    }
    Ok(Some(Cors {
        origins: allow_origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
        methods: allow_methods.clone(),
        headers: allow_headers.clone(),
        exposed: expose_headers.clone(),
        credentials: *allow_credentials,
        max_age: *max_age,
    }))
}

/// A scheme, a host, which may begin with `*.`, and a port if need be.
fn is_origin(origin: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let letters = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    letters && is_host(host.strip_prefix("*.").unwrap_or(host))
}
