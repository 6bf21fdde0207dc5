//! Header fields and paths, from what users write to what proxies read.

use std::collections::BTreeSet;

use ferrule_config::{HeaderChange, HeaderMatch, HeaderValueMatch, PathMatch};

use crate::api::{FORBIDDEN_HEADERS, route};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(super) struct Invalid {
    field: String,
    problem: String,
}

/// An [`Invalid`] of this field.
pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), problem: problem.into() }
}

/// A condition on the path.
pub(super) fn path(path: &route::PathMatch, field: &str) -> Result<PathMatch, Invalid> {
    let route::PathMatch { exact, prefix } = path;
    match (exact, prefix) {
        (Some(exact), None) => {
            path_text(exact, &format!("{field}.exact"))?;
            Ok(PathMatch::Exact(exact.clone()))
        }
        (None, Some(prefix)) => {
            path_text(prefix, &format!("{field}.prefix"))?;
            // `/v2/` and `/v2` mean the same and must not differ in precedence.
            let trimmed = prefix.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(prefix);
            Ok(PathMatch::Prefix(trimmed.to_owned()))
        }
        (None, None) | (Some(_), Some(_)) => Err(invalid(field, "give exactly one of exact and prefix")),
    }
}

fn path_text(path: &str, field: &str) -> Result<(), Invalid> {
    if !path.starts_with('/') {
        return Err(invalid(field, format!("{path:?} must start with /")));
    }
    if path.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#')) {
        return Err(invalid(field, format!("{path:?} must be a path in printable ASCII, without ? and #")));
    }
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if (segment.is_empty() && !last) || matches!(segment, "." | "..") {
            return Err(invalid(
                field,
                format!("{path:?} must not contain //, /./ or /../, nor end in /. or /.."),
            ));
        }
    }
    Ok(())
}

/// Conditions on header fields; each name once.
pub(super) fn matches(headers: &[route::HeaderMatch], field: &str) -> Result<Vec<HeaderMatch>, Invalid> {
    let mut seen = BTreeSet::new();
    let mut result = Vec::with_capacity(headers.len());
    for (index, header) in headers.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let route::HeaderMatch { name, exact, present } = header;
        let name = unique(name, &mut seen, &field)?;
        let value = match (exact, present) {
            (Some(exact), None) => HeaderValueMatch::Exact(value(exact, &field)?),
            (None, Some(present)) => HeaderValueMatch::Present(*present),
            (None, None) | (Some(_), Some(_)) => {
                return Err(invalid(field, "give exactly one of exact and present"));
            }
        };
        result.push(HeaderMatch { name, value });
    }
    // All must hold, so their order has no meaning, and without one equal matches are equal.
    result.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(result)
}

/// Changes to a header section.
pub(super) fn change(change: Option<&route::HeaderChange>, field: &str) -> Result<HeaderChange, Invalid> {
    let Some(route::HeaderChange { set, add, remove }) = change else { return Ok(HeaderChange::default()) };
    let mut removed = Vec::with_capacity(remove.len());
    let mut seen = BTreeSet::new();
    for (index, name) in remove.iter().enumerate() {
        let field = format!("{field}.remove[{index}]");
        removed.push(changeable(unique(name, &mut seen, &field)?, &field)?);
    }
    Ok(HeaderChange {
        set: fields(set, &format!("{field}.set"))?,
        add: fields(add, &format!("{field}.add"))?,
        remove: removed,
    })
}

fn fields(fields: &[route::HeaderField], field: &str) -> Result<Vec<(String, String)>, Invalid> {
    let mut seen = BTreeSet::new();
    let mut result = Vec::with_capacity(fields.len());
    for (index, route::HeaderField { name, value: text }) in fields.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let name = changeable(unique(name, &mut seen, &field)?, &field)?;
        result.push((name, value(text, &field)?));
    }
    Ok(result)
}

/// A name in lower case that was not seen before.
pub(super) fn unique(name: &str, seen: &mut BTreeSet<String>, field: &str) -> Result<String, Invalid> {
    let field = &format!("{field}.name");
    let name = self::name(name, field)?;
    if !seen.insert(name.clone()) {
        let problem = format!("{name} is there twice; case is ignored in the names of header fields");
        return Err(invalid(field, problem));
    }
    Ok(name)
}

/// The name of a header field, in lower case.
pub(super) fn name(name: &str, field: &str) -> Result<String, Invalid> {
    if !is_token(name) {
        return Err(invalid(field, format!("{name:?} is not the name of a header field")));
    }
    Ok(name.to_ascii_lowercase())
}

/// Whether a text is a token of RFC 9110 §5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

fn changeable(name: String, field: &str) -> Result<String, Invalid> {
    if FORBIDDEN_HEADERS.contains(&name.as_str()) {
        let problem =
            format!("a Route may not change {name}; it frames the message or belongs to the connection");
        return Err(invalid(format!("{field}.name"), problem));
    }
    Ok(name)
}

/// The value of a header field.
pub(super) fn value(text: &str, field: &str) -> Result<String, Invalid> {
    let inner = text.bytes().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t'));
    if text.is_empty() || !inner || text.trim_ascii() != text {
        let problem = format!("{text:?} must be printable ASCII, without spaces at either end");
        return Err(invalid(format!("{field}.value"), problem));
    }
    Ok(text.to_owned())
}
