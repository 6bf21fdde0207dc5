//! What a line says, and how. Whatever a peer has chosen is bounded in length and escaped: a line is always one line.

use std::{
    fmt::Write,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::Shape;
use crate::telemetry::label::GrpcStatus;

/// Bytes of a path or a host that are told.
const LONGEST: usize = 1024;
/// Bytes of an identifier that are.
const LONGEST_ID: usize = 128;

/// A request or a connection that came to its end. What is empty or absent is left out of the line.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When it began.
    pub time: SystemTime,
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// `namespace/name`, or the application's port.
    pub service: &'a str,
    /// Rule that it fell under.
    pub route: &'a str,
    /// As the client speaks it: `HTTP/1.1`, `HTTP/1.0`, `HTTP/2`, `TCP`.
    pub protocol: &'static str,
    /// As it was sent, also one that is not known.
    pub method: &'a str,
    /// Host that was asked for.
    pub host: &'a [u8],
    /// Path and query; of the query nothing is told.
    pub path: &'a str,
    /// What the client saw; 0 if it saw none.
    pub status: Option<u16>,
    /// What gRPC says.
    pub grpc: GrpcStatus,
    /// Why the proxy answered by itself or broke off.
    pub cause: &'a str,
    /// The AccessPolicy that refuses it.
    pub policy: &'a str,
    /// The AccessPolicy that would refuse it if it were in force.
    pub audited_by: &'a str,
    /// The other end of the client's connection.
    pub peer: Option<SocketAddr>,
    /// Where the last attempt went.
    pub endpoint: Option<SocketAddr>,
    /// How many there were.
    pub attempts: usize,
    /// Bytes of content from the client, and to it.
    pub request_bytes: u64,
    /// See [`Record::request_bytes`].
    pub response_bytes: u64,
    /// From beginning to end.
    pub took: Duration,
    /// From the beginning to the first byte of the endpoint's response.
    pub first_byte: Option<Duration>,
    /// The `traceparent` field; its trace id is told if it is a proper one.
    pub traceparent: Option<&'a [u8]>,
    /// The `x-request-id` field.
    pub request_id: Option<&'a [u8]>,
}

impl Default for Record<'_> {
    fn default() -> Self {
        Self {
            time: UNIX_EPOCH,
            direction: "",
            service: "",
            route: "",
            protocol: "",
            method: "",
            host: b"",
            path: "",
            status: None,
            grpc: GrpcStatus::None,
            cause: "",
            policy: "",
            audited_by: "",
            peer: None,
            endpoint: None,
            attempts: 0,
            request_bytes: 0,
            response_bytes: 0,
            took: Duration::ZERO,
            first_byte: None,
            traceparent: None,
            request_id: None,
        }
    }
}

impl Record<'_> {
    /// Whether it failed by a fault that is not the client's: the proxy says why, there is no response or one of 500 and
    /// above, or gRPC has a status that OpenTelemetry counts as a server's error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        let by_grpc = match self.grpc {
            GrpcStatus::None => false,
            GrpcStatus::Code(code) => matches!(code, 2 | 4 | 12..=15),
            GrpcStatus::Other => true,
        };
        by_grpc || !self.cause.is_empty() || self.status.is_some_and(|status| status == 0 || status >= 500)
    }

    /// Appends the line with its end.
    pub fn write(&self, shape: Shape, out: &mut String) {
        let mut line = Line { out, shape, begun: false };
        line.field("time", |out| timestamp(out, self.time));
        for (name, value) in [
            ("direction", self.direction),
            ("service", self.service),
            ("route", self.route),
            ("protocol", self.protocol),
        ] {
            line.text(name, value.as_bytes(), usize::MAX);
        }
        line.text("method", self.method.as_bytes(), LONGEST_ID);
        line.text("host", self.host, LONGEST);
        line.text("path", self.path.split(['?', '#']).next().unwrap_or_default().as_bytes(), LONGEST);
        line.number("status", self.status.map(u64::from));
        match self.grpc {
            GrpcStatus::None => {}
            GrpcStatus::Code(code) => line.number("grpc_status", Some(code.into())),
            GrpcStatus::Other => line.text("grpc_status", b"other", LONGEST_ID),
        }
        for (name, value) in [("error", self.cause), ("policy", self.policy), ("audited_by", self.audited_by)]
        {
            line.text(name, value.as_bytes(), usize::MAX);
        }
        line.display("peer", self.peer);
        line.display("endpoint", self.endpoint);
        line.number("attempts", (self.attempts > 0).then_some(self.attempts as u64));
        line.number("request_bytes", Some(self.request_bytes));
        line.number("response_bytes", Some(self.response_bytes));
        line.milliseconds("duration_ms", Some(self.took));
        line.milliseconds("first_byte_ms", self.first_byte);
        line.text("trace_id", self.traceparent.and_then(trace_id).unwrap_or_default(), LONGEST_ID);
        line.text("request_id", self.request_id.unwrap_or_default(), LONGEST_ID);
        out.push_str(match shape {
            Shape::Json => "}\n",
            Shape::Text => "\n",
        });
    }
}

/// A line that is being written. Writing to a string can't fail.
struct Line<'a> {
    out: &'a mut String,
    shape: Shape,
    begun: bool,
}

impl Line<'_> {
    fn name(&mut self, name: &str) {
        let _ = match (self.shape, self.begun) {
            (Shape::Json, false) => write!(self.out, "{{\"{name}\":"),
            (Shape::Json, true) => write!(self.out, ",\"{name}\":"),
            (Shape::Text, false) => write!(self.out, "{name}="),
            (Shape::Text, true) => write!(self.out, " {name}="),
        };
        self.begun = true;
    }

    /// A value that needs no escaping.
    fn field(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        self.name(name);
        let quote = if self.shape == Shape::Json { "\"" } else { "" };
        self.out.push_str(quote);
        write(self.out);
        self.out.push_str(quote);
    }

    fn display(&mut self, name: &str, value: Option<SocketAddr>) {
        if let Some(value) = value {
            self.field(name, |out| {
                let _ = write!(out, "{value}");
            });
        }
    }

    fn text(&mut self, name: &str, value: &[u8], longest: usize) {
        if value.is_empty() {
            return;
        }
        self.name(name);
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
        if self.shape == Shape::Text && value.len() <= longest && value.iter().all(|&byte| plain(byte)) {
            self.out.extend(value.iter().map(|&byte| char::from(byte)));
            return;
        }
        self.out.push('"');
        escape(self.out, &value[..value.len().min(longest)]);
        if value.len() > longest {
            self.out.push('…');
        }
        self.out.push('"');
    }

    fn number(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.name(name);
            let _ = write!(self.out, "{value}");
        }
    }

    fn milliseconds(&mut self, name: &str, value: Option<Duration>) {
        if let Some(value) = value {
            self.name(name);
            let micros = value.as_micros();
            let _ = write!(self.out, "{}.{:03}", micros / 1000, micros % 1000);
        }
    }
}

/// As JSON has it (RFC 8259 §7). Everything that a terminal or a reader of lines might take for more than a character is
/// escaped; bytes that are no UTF-8 are told as the replacement character.
fn escape(out: &mut String, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                char if char.is_control() || is_invisible(char) => {
                    let mut units = [0; 2];
                    for unit in char.encode_utf16(&mut units) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                char => out.push(char),
            }
        }
        if !chunk.invalid().is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Separators of lines and paragraphs, marks that turn the direction of text, and what has no width.
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Of a proper `traceparent` (W3C Trace Context §3.2): version, trace id, parent id, flags.
fn trace_id(traceparent: &[u8]) -> Option<&[u8]> {
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &[u8]| part.iter().all(|&byte| byte == b'0');
    let mut parts = traceparent.split(|&byte| byte == b'-');
    let mut part = |length| parts.next().filter(|part| part.len() == length && hex(part));
    let (version, trace, parent, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let known = match version {
        b"00" => parts.next().is_none(),
        b"ff" => false,
        _ => true,
    };
    (known && !zero(trace) && !zero(parent)).then_some(trace)
}

/// In UTC, to the millisecond (RFC 3339). Days to a date by Howard Hinnant's `civil_from_days`.
fn timestamp(out: &mut String, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years begin in March here, so that the leap day is the last.
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since.subsec_millis()
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(shape: Shape, record: &Record<'_>) -> String {
        let mut out = String::new();
        record.write(shape, &mut out);
        out
    }

    fn full() -> Record<'static> {
        Record {
            time: UNIX_EPOCH + Duration::from_millis(1_709_210_096_789),
            direction: "outbound",
            service: "shop/cart",
            route: "shop/cart/0",
            protocol: "HTTP/1.1",
            method: "GET",
            host: b"cart",
            path: "/a b?token=secret",
            status: Some(503),
            grpc: GrpcStatus::Code(14),
            cause: "connect",
            policy: "shop/closed",
            audited_by: "shop/tried",
            peer: Some(([10, 0, 0, 1], 4711).into()),
            endpoint: Some((std::net::Ipv6Addr::LOCALHOST, 80).into()),
            attempts: 2,
            request_bytes: 3,
            response_bytes: 4,
            took: Duration::from_micros(12_034),
            first_byte: Some(Duration::from_micros(900)),
            traceparent: Some(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            request_id: Some(b"id \"1\""),
        }
    }

    #[test]
    fn both_shapes_tell_the_same() {
        assert_eq!(
            line(Shape::Json, &full()),
            "{\"time\":\"2024-02-29T12:34:56.789Z\",\"direction\":\"outbound\",\"service\":\"shop/cart\",\
             \"route\":\"shop/cart/0\",\"protocol\":\"HTTP/1.1\",\"method\":\"GET\",\"host\":\"cart\",\"path\":\"/a b\",\
             \"status\":503,\"grpc_status\":14,\"error\":\"connect\",\"policy\":\"shop/closed\",\
             \"audited_by\":\"shop/tried\",\"peer\":\"10.0.0.1:4711\",\"endpoint\":\"[::1]:80\",\"attempts\":2,\"request_bytes\":3,\"response_bytes\":4,\"duration_ms\":12.034,\"first_byte_ms\":0.900,\
             \"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"request_id\":\"id \\\"1\\\"\"}\n"
        );
        assert_eq!(
            line(Shape::Text, &full()),
            "time=2024-02-29T12:34:56.789Z direction=outbound service=shop/cart route=shop/cart/0 protocol=HTTP/1.1 \
             method=GET host=cart path=\"/a b\" status=503 grpc_status=14 error=connect policy=shop/closed \
             audited_by=shop/tried peer=10.0.0.1:4711 \
             endpoint=[::1]:80 attempts=2 request_bytes=3 response_bytes=4 duration_ms=12.034 first_byte_ms=0.900 \
             trace_id=4bf92f3577b34da6a3ce929d0e0e4736 request_id=\"id \\\"1\\\"\"\n"
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = String::new();
            timestamp(&mut out, UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn only_a_proper_trace_context_has_a_trace_id() {
        const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let id = |text: &str| trace_id(text.as_bytes()).map(|id| id.to_vec());
        assert_eq!(id(&format!("00-{ID}-00f067aa0ba902b7-01")), Some(ID.into()));
        assert_eq!(id(&format!("cc-{ID}-00f067aa0ba902b7-01-what-comes")), Some(ID.into()));
        for wrong in [
            String::new(),
            format!("00-{ID}-00f067aa0ba902b7"),
            format!("00-{ID}-00f067aa0ba902b7-01-more"),
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{ID}-{}-01", "0".repeat(16)),
            format!("00-{ID}x-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(id(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let path = format!("/{}", "a".repeat(5000));
        let text = line(Shape::Text, &Record { path: &path, host: &[b'h'; 5000], ..full() });
        assert!(text.len() < 3 * LONGEST, "{}", text.len());
        assert!(text.contains("a…\""));
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_and_json_is_json(
            path in ".{0,40}", host in prop::collection::vec(any::<u8>(), 0..40), id in prop::collection::vec(any::<u8>(), 1..40),
            method in "\\PC{0,9}",
        ) {
            let record = Record { path: &path, host: &host, request_id: Some(&id), method: &method, ..full() };
            for shape in [Shape::Json, Shape::Text] {
                let text = line(shape, &record);
                let text = text.strip_suffix('\n').expect("an end");
                prop_assert!(text.chars().all(|char| !char.is_control() && !is_invisible(char)), "{text:?}");
            }
            let parsed: serde_json::Value = serde_json::from_str(&line(Shape::Json, &record)).expect("JSON");
            prop_assert_eq!(parsed["request_id"].as_str(), Some(&*String::from_utf8_lossy(&id)));
            let told = path.split(['?', '#']).next().filter(|path| !path.is_empty());
            prop_assert_eq!(parsed["path"].as_str(), told);
            prop_assert_eq!(&parsed["status"], 503);
        }
    }
}
