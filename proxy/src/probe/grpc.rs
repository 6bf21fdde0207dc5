//! `grpc`: `grpc.health.v1.Health/Check`.

use bytes::{BufMut as _, Bytes, BytesMut};
use ferrule_config::probe::Probe;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{MAX_BODY, ProbeFailed, Probes, text};

/// `HealthCheckResponse.SERVING`.
const SERVING: u8 = 1;

pub(super) async fn check(probes: &Probes, probe: &Probe) -> Result<Response<Full<Bytes>>, ProbeFailed> {
    let port = probe.port.get();
    let stream = probes.connect(port).await?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let uri = format!("http://{}/grpc.health.v1.Health/Check", probes.authority(port));
    let request = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("ferrule-proxy/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(asking(&probe.service())))
        .map_err(|error| ProbeFailed::Answer(error.to_string()))?;
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await;
    connection.abort();
    let body = body.map_err(|error| ProbeFailed::Answer(error.to_string()))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    if head.status != StatusCode::OK {
        return Err(ProbeFailed::Answer(format!("HTTP status {}", head.status)));
    }
    let status = grpc_status(&trailers).or_else(|| grpc_status(&head.headers));
    match (status.as_deref(), serving(&body.to_bytes())) {
        (Some("0"), Some(SERVING)) => Ok(text(StatusCode::OK, "serving\n".into())),
        (Some("0"), state) => {
            let state = state.map_or("no health".to_owned(), |state| format!("health {state}"));
            Err(ProbeFailed::Answer(format!("{state}, and not SERVING")))
        }
        (Some(status), _) => Err(ProbeFailed::Answer(format!("gRPC status {status}"))),
        (None, _) => Err(ProbeFailed::Answer("no gRPC status".to_owned())),
    }
}

fn grpc_status(fields: &HeaderMap) -> Option<String> {
    fields.get("grpc-status")?.to_str().ok().map(str::to_owned)
}

/// A message of one frame: `HealthCheckRequest { service }`.
fn asking(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0A);
        varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

fn varint(to: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        to.put_u8((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8((value & 0x7F) as u8);
}

/// The field `status` of a `HealthCheckResponse`, which is its first and only one; 0 where it is left out.
fn serving(body: &[u8]) -> Option<u8> {
    let [0, a, b, c, d, message @ ..] = body else { return None };
    if usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])) != Ok(message.len()) {
        return None;
    }
    match message {
        [] => Some(0),
        [0x08, status, ..] if *status < 0x80 => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_protobuf_has_them() {
        assert_eq!(asking("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(asking("ab")[..], [0, 0, 0, 0, 4, 0x0A, 2, b'a', b'b']);
        let long = "x".repeat(200);
        assert_eq!(asking(&long)[..8], [0, 0, 0, 0, 203, 0x0A, 0xC8, 1]);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 2]), Some(2));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(serving(&[0, 0, 0, 0, 9, 8, 1]), None);
        assert_eq!(serving(&[1, 0, 0, 0, 2, 8, 1]), None);
        assert_eq!(serving(b"no"), None);
    }
}
