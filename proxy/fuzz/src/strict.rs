//! A second parser of HTTP/1.1, written from the grammar of RFC 9112 alone and sharing nothing with the proxy's. It is
//! slow, copies everything, and refuses whatever the grammar does not have.

/// A message as it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The three parts of the start line.
    pub start: [String; 3],
    /// Names in lower case, values without the space around them.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Content without its framing.
    pub content: Vec<u8>,
}

/// What the bytes are a sequence of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Requests,
    /// Responses; to HEAD or not.
    Responses {
        to_head: bool,
    },
}

/// All messages that the bytes are.
///
/// # Errors
/// What is wrong with the first that is none; also when bytes are left.
pub fn parse(mut rest: &[u8], kind: Kind) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        messages.push(message(&mut rest, kind)?);
    }
    Ok(messages)
}

fn message(rest: &mut &[u8], kind: Kind) -> Result<Message, String> {
    let start = start_line(line(rest)?, kind)?;
    let fields = fields(rest)?;
    let values = |name: &str| {
        fields.iter().filter(|(each, _)| each == name).map(|(_, value)| value).collect::<Vec<_>>()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    if kind == Kind::Requests && values("host").len() != 1 {
        return Err("not one Host".into());
    }
    let bodiless = match kind {
        Kind::Requests => false,
        Kind::Responses { to_head } => {
            to_head || start[1].starts_with('1') || ["204", "304"].contains(&start[1].as_str())
        }
    };
    let content = match (codings.as_slice(), lengths.as_slice()) {
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") => {
            if bodiless {
                Vec::new()
            } else {
                chunked(rest)?
            }
        }
        ([], [length]) => {
            let text = std::str::from_utf8(length).map_err(|_| "length")?;
            if text.is_empty() || !text.chars().all(|digit| ('0'..='9').contains(&digit)) {
                return Err(format!("length {text:?}"));
            }
            let length: u128 = text.trim_start_matches('0').parse().unwrap_or(0);
            if bodiless { Vec::new() } else { take(rest, length)? }
        }
        ([], []) if kind == Kind::Requests || bodiless => Vec::new(),
        ([], []) => std::mem::take(rest).to_vec(),
        _ => return Err("more than one framing".into()),
    };
    Ok(Message { start, fields, content })
}

fn start_line(line: &[u8], kind: Kind) -> Result<[String; 3], String> {
    let text = String::from_utf8_lossy(line).into_owned();
    let mut parts = text.splitn(3, ' ').map(str::to_owned);
    let mut next = || parts.next().ok_or(format!("start line {text:?}"));
    let start = [next()?, next()?, next()?];
    match kind {
        Kind::Requests => {
            let target = start[1].bytes().all(|byte| (0x21..=0x7e).contains(&byte));
            if !is_token(start[0].as_bytes()) || start[1].is_empty() || !target || start[2] != "HTTP/1.1" {
                return Err(format!("request line {text:?}"));
            }
        }
        Kind::Responses { .. } => {
            let code = start[1].len() == 3 && start[1].bytes().all(|byte| byte.is_ascii_digit());
            if start[0] != "HTTP/1.1" || !code || line.iter().any(|&byte| is_control(byte)) {
                return Err(format!("status line {text:?}"));
            }
        }
    }
    Ok(start)
}

fn fields(rest: &mut &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut fields = Vec::new();
    loop {
        let line = line(rest)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let colon = line.iter().position(|&byte| byte == b':').ok_or("no colon")?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) || value.iter().any(|&byte| is_control(byte)) {
            return Err(format!("field {}", line.escape_ascii()));
        }
        fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
    }
}

fn chunked(rest: &mut &[u8]) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    loop {
        let size = line(rest)?;
        if size.is_empty() || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("chunk size {}", size.escape_ascii()));
        }
        let size = size.iter().try_fold(0u128, |size, &digit| {
            size.checked_mul(16)?.checked_add(u128::from((digit as char).to_digit(16)?))
        });
        let size = size.ok_or("chunk size is too large")?;
        if size == 0 {
            for (name, _) in fields(rest)? {
                if ["content-length", "transfer-encoding", "host"].contains(&name.as_str()) {
                    return Err(format!("trailer {name}"));
                }
            }
            return Ok(content);
        }
        content.extend(take(rest, size)?);
        if !line(rest)?.is_empty() {
            return Err("chunk goes on".into());
        }
    }
}

/// The next line without its CR LF; it has no other CR or LF.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let end = rest.windows(2).position(|two| two == b"\r\n").ok_or("a line does not end")?;
    let line = &rest[..end];
    if line.contains(&b'\r') || line.contains(&b'\n') {
        return Err("bare CR or LF".into());
    }
    *rest = &rest[end + 2..];
    Ok(line)
}

fn take(rest: &mut &[u8], length: u128) -> Result<Vec<u8>, String> {
    let length =
        usize::try_from(length).ok().filter(|&length| length <= rest.len()).ok_or("content is cut off")?;
    let (content, after) = rest.split_at(length);
    *rest = after;
    Ok(content.to_vec())
}

fn is_token(bytes: &[u8]) -> bool {
    const OTHERS: &[u8] = b"!#$%&'*+-.^_`|~";
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || OTHERS.contains(byte))
}

fn is_control(byte: u8) -> bool {
    byte == 0x7f || (byte < 0x20 && byte != b'\t')
}
