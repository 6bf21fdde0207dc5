//! As much of HTTP/2 (RFC 9113) as a benchmark needs: no HEADERS block is decoded, for both sides know what the
//! other one says, and small bodies never meet a stream's window. Settings, pings and the connection's window
//! are honoured.

mod block;
pub mod client;
mod frame;
pub mod server;

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A GET and a small body.
    Get,
    /// A unary gRPC call: a message each way, and trailers.
    Unary,
}

#[cfg(test)]
mod tests {
    use super::{Shape, client::Client, server::Server};
    use crate::session::{After, Client as _, Server as _};

    #[test]
    fn client_and_server_understand_each_other_whatever_the_pieces() {
        for (shape, step) in [(Shape::Get, 1), (Shape::Get, 1000), (Shape::Unary, 1), (Shape::Unary, 5)] {
            let (mut client, mut server) = (Client::new(shape), Server::new(shape));
            let (mut to_server, mut to_client, mut done) = (Vec::new(), Vec::new(), 0);
            client.open(&mut to_server);
            for _ in 0..2000 {
                client.start(&mut to_server);
                for piece in std::mem::take(&mut to_server).chunks(step) {
                    assert_eq!(server.receive(piece, &mut to_client), Ok(After::Open));
                }
                for piece in std::mem::take(&mut to_client).chunks(step) {
                    done += client.receive(piece, &mut to_server).expect("the response is right");
                }
            }
            assert_eq!(done, 2000, "{shape:?} in pieces of {step}");
        }
    }

    #[test]
    fn an_answer_of_another_shape_is_an_error() {
        let (mut client, mut server) = (Client::new(Shape::Unary), Server::new(Shape::Get));
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        client.open(&mut to_server);
        client.start(&mut to_server);
        server.receive(&to_server, &mut to_client).expect("a request is a request");
        assert!(client.receive(&to_client, &mut Vec::new()).is_err());
    }

    #[test]
    fn http1_is_not_taken_for_http2() {
        let refused = Server::new(Shape::Get).receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &mut Vec::new());
        assert!(refused.is_err());
        let refused = Client::new(Shape::Get).receive(b"HTTP/1.1 400 Bad Request\r\n\r\n", &mut Vec::new());
        assert!(refused.is_err());
    }
}
