//! What a path means to policies: whoever reads it in another way comes to the same.
#![no_main]

use ferrule_proxy::access::meaning;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    let Some(meaning) = meaning(path) else { return };
    let meaning = meaning.as_bytes();
    let path = path.as_bytes();
    let readings = [
        decoded(path),
        resolved(&decoded(path)),
        decoded(&resolved(path)),
        resolved(&decoded(&decoded(path))),
        resolved(&decoded(&without_parameters(path))),
        resolved(&without_parameters(&decoded(path))),
        resolved(&slashed(&decoded(path))),
    ];
    for reading in readings {
        assert_eq!(reading, meaning);
    }
});

/// Percent-decoded once; what is no encoded octet stays.
fn decoded(path: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut out = Vec::new();
    let mut index = 0;
    while index < path.len() {
        let pair = (path[index] == b'%').then(|| Some((path.get(index + 1)?, path.get(index + 2)?))).flatten();
        match pair.and_then(|(high, low)| Some((digit(high)? * 16 + digit(low)?) as u8)) {
            Some(octet) => {
                out.push(octet);
                index += 3;
            }
            None => {
                out.push(path[index]);
                index += 1;
            }
        }
    }
    out
}

/// Slashes merged and dots resolved (RFC 3986 §5.2.4).
fn resolved(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let all: Vec<_> = path.split(|&byte| byte == b'/').skip(1).collect();
    for segment in &all {
        match *segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut out = Vec::new();
    for segment in &segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if segments.is_empty() || matches!(all.last(), Some(&(b"" | b"." | b".."))) {
        out.push(b'/');
    }
    out
}

/// Each segment without what follows its first semicolon.
fn without_parameters(path: &[u8]) -> Vec<u8> {
    let segments: Vec<_> = path
        .split(|&byte| byte == b'/')
        .map(|segment| segment.split(|&byte| byte == b';').next().unwrap_or_default())
        .collect();
    segments.join(&b'/')
}

/// Backslashes taken for slashes.
fn slashed(path: &[u8]) -> Vec<u8> {
    path.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect()
}
