//! One line of a watch.

use std::borrow::Cow;

use serde::{Deserialize, de::DeserializeOwned};

use super::{error::ApiError, object::version};

/// What a line of a watch says.
#[derive(Debug)]
pub(super) enum Line<T> {
    /// An object was added or changed.
    Put(T),
    /// An object is gone, or matches the selector no more.
    Gone(T),
    /// Nothing, but that all up to its version was told.
    Bookmark,
}

/// What must be known of a line before the object in it is read.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    object: PeekObject,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PeekObject {
    metadata: PeekMetadata,
    /// Of a Status.
    code: u16,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PeekMetadata {
    resource_version: String,
}

#[derive(Deserialize)]
struct Whole<T> {
    object: T,
}

/// Reads a line, and the version that it brings the watch to.
///
/// # Errors
/// [`ApiError::Gone`] when the watch's version is too old to go on from, other errors that the server tells, and
/// what is not understood.
pub(super) fn read<T: DeserializeOwned>(line: &[u8]) -> Result<(Line<T>, u64), ApiError> {
    let Peek { kind, object } = serde_json::from_slice(line)?;
    if kind == "ERROR" {
        let PeekObject { code, message, .. } = object;
        return Err(if code == 410 { ApiError::Gone } else { ApiError::Watch { code, message } });
    }
    let version = version(&object.metadata.resource_version)?;
    let whole = || serde_json::from_slice::<Whole<T>>(line).map(|whole| whole.object);
    let line = match &*kind {
        "ADDED" | "MODIFIED" => Line::Put(whole()?),
        "DELETED" => Line::Gone(whole()?),
        _ => Line::Bookmark,
    };
    Ok((line, version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::objects::ConfigMap;

    #[test]
    fn every_line_has_a_version() {
        let put = br#"{"type":"MODIFIED","object":{"metadata":{"name":"a","resourceVersion":"7"}}}"#;
        assert!(matches!(read::<ConfigMap>(put), Ok((Line::Put(map), 7)) if map.metadata.name == "a"));
        let gone = br#"{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"8"}}}"#;
        assert!(matches!(read::<ConfigMap>(gone), Ok((Line::Gone(_), 8))));
        let bookmark = br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#;
        assert!(matches!(read::<ConfigMap>(bookmark), Ok((Line::Bookmark, 9))));
        let none = br#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#;
        assert!(matches!(read::<ConfigMap>(none), Err(ApiError::Version(_))));
    }

    #[test]
    fn a_version_that_is_too_old_is_told_from_other_errors() {
        let expired = br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
        assert!(matches!(read::<ConfigMap>(expired), Err(ApiError::Gone)));
        let other = br#"{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd"}}"#;
        assert!(matches!(read::<ConfigMap>(other), Err(ApiError::Watch { code: 500, .. })));
    }
}
