//! As much of HTTP/1.1 as a benchmark needs: requests without a body, responses with a `Content-Length`.

pub mod client;
pub mod server;

/// Fields of a head that are looked at; more is an error.
const MAX_FIELDS: usize = 32;

/// The position after the blank line, searching on from `from`.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let start = from.saturating_sub(3);
    bytes[start..].windows(4).position(|window| window == b"\r\n\r\n").map(|at| start + at + 4)
}

#[cfg(test)]
mod tests {
    use super::{
        client::{self, Persistence},
        server,
    };
    use crate::{
        content,
        session::{After, Client as _, Server as _},
    };

    #[test]
    fn client_and_server_understand_each_other_whatever_the_pieces() {
        for step in [1, 3, 7, 100, 1 << 20] {
            let mut client =
                client::Client::new(content::LARGE_PATH, &content::LARGE_BODY, Persistence::Keep);
            let mut server = server::Server::default();
            let (mut request, mut response, mut done) = (Vec::new(), Vec::new(), 0);
            client.start(&mut request);
            client.start(&mut request);
            for piece in request.chunks(step) {
                assert_eq!(server.receive(piece, &mut response), Ok(After::Open));
            }
            for piece in response.chunks(step) {
                done += client.receive(piece, &mut Vec::new()).expect("the response is right");
            }
            assert_eq!(done, 2, "in pieces of {step}");
        }
    }

    #[test]
    fn a_request_that_closes_is_answered_and_closed() {
        let mut client = client::Client::new(content::SMALL_PATH, &content::SMALL_BODY, Persistence::Close);
        let (mut request, mut response) = (Vec::new(), Vec::new());
        client.start(&mut request);
        assert_eq!(server::Server::default().receive(&request, &mut response), Ok(After::Close));
        assert_eq!(client.receive(&response, &mut Vec::new()), Ok(1));
    }

    #[test]
    fn a_wrong_status_or_body_is_an_error() {
        let client = || client::Client::new(content::SMALL_PATH, &content::SMALL_BODY, Persistence::Keep);
        let mut sink = Vec::new();
        let bad =
            client().receive(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 128\r\n\r\n", &mut sink);
        assert!(bad.is_err_and(|error| error.contains("503")));
        let short = client().receive(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", &mut sink);
        assert!(short.is_err());
        let mut other = b"HTTP/1.1 200 OK\r\nContent-Length: 128\r\n\r\n".to_vec();
        other.extend([b'x'; 128]);
        assert!(client().receive(&other, &mut sink).is_err());
        assert!(client().receive(b"HTTP/1.1 200 OK\r\n\r\n", &mut sink).is_err());
    }

    #[test]
    fn another_path_is_not_found() {
        let mut out = Vec::new();
        let answered = server::Server::default().receive(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n", &mut out);
        assert_eq!(answered, Ok(After::Open));
        assert!(out.starts_with(b"HTTP/1.1 404 "));
    }
}
