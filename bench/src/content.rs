//! What load and backend agree on: requests, bodies, and the header field that the Route matches.

use std::sync::LazyLock;

/// Length of a small body, in bytes.
pub const SMALL: usize = 128;
/// Length of a large body, in bytes.
pub const LARGE: usize = 64 * 1024;
/// Path of the small body.
pub const SMALL_PATH: &str = "/items/small";
/// Path of the large body.
pub const LARGE_PATH: &str = "/items/large";
/// Path of the unary gRPC method.
pub const GRPC_PATH: &str = "/bench.Items/Get";
/// Length of a gRPC message in either direction, without its prefix of 5 bytes.
pub const GRPC_MESSAGE: usize = 64;
/// Field that the matching rule of the Route asks for, and its value.
pub const ROUTED: (&str, &str) = ("x-tenant", "blue");

/// The small body.
pub static SMALL_BODY: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(SMALL));
/// The large body.
pub static LARGE_BODY: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(LARGE));
/// A gRPC message with its prefix: not compressed, and its length.
pub static GRPC_BODY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let length = u32::try_from(GRPC_MESSAGE).expect("a message is small");
    let mut body = vec![0];
    body.extend_from_slice(&length.to_be_bytes());
    body.extend(pattern(GRPC_MESSAGE));
    body
});

/// Fields that a request carries besides those that its protocol needs; about what a service sends.
pub const REQUEST_FIELDS: [(&str, &str); 5] = [
    ("user-agent", "ferrule-bench/1"),
    ("accept", "*/*"),
    ("x-request-id", "5f0c3f6e-8d1e-4a55-9a53-0d4f6b7c8e9a"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ROUTED,
];

/// Printable, and different at every offset that a swapped or lost piece is likely to begin at.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| b'a' + u8::try_from((index + index / 26) % 26).expect("below 26")).collect()
}
