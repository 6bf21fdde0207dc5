//! `httpGet`, with redirects inside the pod followed.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use ferrule_config::{
    names::ports,
    probe::{Check, Probe},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header, uri::PathAndQuery,
};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{
    body::Incoming,
    client::conn::http1,
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;

use super::{MAX_BODY, ProbeFailed, Probes, tls};

/// As many as the kubelet follows.
const MAX_REDIRECTS: usize = 10;
/// What belongs to the kubelet's connection and not to its request.
const OF_CONNECTION: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::CONTENT_LENGTH,
];

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    tls: bool,
    port: u16,
    target: String,
}

/// Asks with the fields of the kubelet's request.
pub(super) async fn get(
    probes: &Probes,
    probe: &Probe,
    fields: &HeaderMap,
) -> Result<Response<Full<Bytes>>, ProbeFailed> {
    let mut place =
        Place { tls: probe.check == Check::Https, port: probe.port.get(), target: probe.target.clone() };
    for _ in 0..=MAX_REDIRECTS {
        let response = once(probes, &place, fields).await?;
        let location =
            response.headers().get(header::LOCATION).filter(|_| response.status().is_redirection());
        match location.and_then(|location| place.redirected(location.to_str().ok()?, &probes.own)) {
            Some(next) => place = next,
            None => return Ok(handed_on(response).await),
        }
    }
    Err(ProbeFailed::Redirects)
}

async fn once(probes: &Probes, place: &Place, fields: &HeaderMap) -> Result<Response<Incoming>, ProbeFailed> {
    let mut request = Request::new(Empty::<Bytes>::new());
    let target = PathAndQuery::try_from(place.target.as_str());
    *request.uri_mut() = Uri::from(target.map_err(|error| ProbeFailed::Answer(error.to_string()))?);
    let own_host = format!(":{}", ports::ADMIN);
    for (name, value) in fields {
        // The admin port's own name stands for none that the pod has set.
        let admin = name == header::HOST && value.as_bytes().ends_with(own_host.as_bytes());
        if !admin && !OF_CONNECTION.contains(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    if !request.headers().contains_key(header::HOST) {
        let host = HeaderValue::try_from(probes.authority(place.port));
        request
            .headers_mut()
            .insert(header::HOST, host.map_err(|error| ProbeFailed::Answer(error.to_string()))?);
    }
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    let stream = probes.connect(place.port).await?;
    if place.tls {
        send(TokioIo::new(tls::connect(stream).await.map_err(ProbeFailed::Tls)?), request).await
    } else {
        send(TokioIo::new(stream), request).await
    }
}

async fn send(
    io: impl Read + Write + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, ProbeFailed> {
    let (mut sender, connection) = http1::handshake(io).await?;
    // Ends when the response has been read or is dropped.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// Status, type and the beginning of the body. A redirect that leads out of the pod is handed on without its location: the
/// kubelet takes it for success, as it does where it is led away itself.
async fn handed_on(response: Response<Incoming>) -> Response<Full<Bytes>> {
    let (head, mut body) = response.into_parts();
    let mut start = BytesMut::new();
    while start.len() < MAX_BODY {
        let Some(Ok(frame)) = body.frame().await else { break };
        let Ok(data) = frame.into_data() else { break };
        start.extend_from_slice(&data[..data.len().min(MAX_BODY - start.len())]);
    }
    let is_final = head.status.as_u16() >= 200;
    let mut response = Response::new(Full::new(start.freeze()));
    *response.status_mut() = if is_final { head.status } else { StatusCode::SERVICE_UNAVAILABLE };
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    response
}

impl Place {
    /// Where a `Location` leads, if that is in the pod.
    fn redirected(&self, location: &str, own: &[IpAddr]) -> Option<Self> {
        let uri: Uri = location.parse().ok()?;
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        let Some(host) = uri.host() else {
            return target.starts_with('/').then(|| Self { target, ..self.clone() });
        };
        let ip: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        if !own.contains(&ip) {
            return None;
        }
        let tls = uri.scheme_str().map_or(self.tls, |scheme| scheme == "https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Some(Self { tls, port, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_followed_inside_of_the_pod() {
        let place = Place { tls: false, port: 8080, target: "/a".into() };
        let own = [[10, 0, 0, 7].into(), [0xFD00, 0, 0, 0, 0, 0, 0, 7].into()];
        let to = |location: &str| {
            let place = place.redirected(location, &own)?;
            Some(format!("{} {} {}", place.tls, place.port, place.target))
        };
        assert_eq!(to("/b?c").as_deref(), Some("false 8080 /b?c"));
        assert_eq!(to("http://10.0.0.7:8080/b").as_deref(), Some("false 8080 /b"));
        assert_eq!(to("https://10.0.0.7/b").as_deref(), Some("true 443 /b"));
        assert_eq!(to("http://[fd00::7]:81").as_deref(), Some("false 81 /"));
        assert_eq!(to("http://shop/b"), None);
        assert_eq!(to("https://10.0.0.8/b"), None);
        assert_eq!(to("not a location"), None);
    }
}
