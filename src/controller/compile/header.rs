//! Header fields, parameters and paths, from what users write to what proxies read.

use std::collections::BTreeSet;

use ferrule_config::{HeaderChange, HeaderMatch, PathMatch, Pattern, QueryMatch, ValueMatch};

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
    let route::PathMatch { exact, prefix, regex } = path;
    match (exact, prefix, regex) {
        (Some(exact), None, None) => {
            path_text(exact, &format!("{field}.exact"))?;
            Ok(PathMatch::Exact(exact.clone()))
        }
        (None, Some(prefix), None) => {
            path_text(prefix, &format!("{field}.prefix"))?;
            // `/v2/` and `/v2` mean the same and must not differ in precedence.
            let trimmed = prefix.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(prefix);
            Ok(PathMatch::Prefix(trimmed.to_owned()))
        }
        (None, None, Some(regex)) => Ok(PathMatch::Regex(pattern(regex, &format!("{field}.regex"))?)),
        _ => Err(invalid(field, "give exactly one of exact, prefix and regex")),
    }
}

/// A regular expression that the proxy can compile.
fn pattern(text: &str, field: &str) -> Result<String, Invalid> {
    Pattern::new(text).map_err(|error| invalid(field, format!("{text:?}: {error}")))?;
    Ok(text.to_owned())
}

/// A path that a request can have.
pub(super) fn path_text(path: &str, field: &str) -> Result<(), Invalid> {
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
        let route::HeaderMatch { name, exact, prefix, regex, present } = header;
        let name = unique(name, &mut seen, &field)?;
        let text = |text: &Option<String>| text.as_deref().map(|text| value(text, &field)).transpose();
        let value = condition(text(exact)?, text(prefix)?, regex.as_deref(), *present, &field)?;
        result.push(HeaderMatch { name, value });
    }
    // All must hold, so their order has no meaning, and without one equal matches are equal.
    result.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(result)
}

/// Conditions on parameters of the query; each name once.
pub(super) fn query(parameters: &[route::QueryMatch], field: &str) -> Result<Vec<QueryMatch>, Invalid> {
    let mut seen = BTreeSet::new();
    let mut result = Vec::with_capacity(parameters.len());
    for (index, parameter) in parameters.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let route::QueryMatch { name, exact, prefix, regex, present } = parameter;
        if name.is_empty() || !in_query(name) || name.contains('=') {
            return Err(invalid(
                format!("{field}.name"),
                format!("{name:?} is not the name of a query parameter"),
            ));
        }
        if !seen.insert(name) {
            return Err(invalid(format!("{field}.name"), format!("{name} is there twice")));
        }
        for text in [exact, prefix].into_iter().flatten() {
            if !in_query(text) {
                let problem = format!("{text:?} must be written as it stands in a URL, and without &");
                return Err(invalid(&field, problem));
            }
        }
        let value = condition(exact.clone(), prefix.clone(), regex.as_deref(), *present, &field)?;
        result.push(QueryMatch { name: name.clone(), value });
    }
    result.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(result)
}

fn condition(
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<&str>,
    present: Option<bool>,
    field: &str,
) -> Result<ValueMatch, Invalid> {
    match (exact, prefix, regex, present) {
        (Some(exact), None, None, None) => Ok(ValueMatch::Exact(exact)),
        (None, Some(prefix), None, None) => Ok(ValueMatch::Prefix(prefix)),
        (None, None, Some(regex), None) => Ok(ValueMatch::Regex(pattern(regex, &format!("{field}.regex"))?)),
        (None, None, None, Some(present)) => Ok(ValueMatch::Present(present)),
        _ => Err(invalid(field, "give exactly one of exact, prefix, regex and present")),
    }
}

/// Whether a text can be a part of a query and of no more than one parameter.
fn in_query(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'&' | b'#'))
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
