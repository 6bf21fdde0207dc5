//! What the test programs `testserver` and `testclient` are made of.
//!
//! They know nothing of the mesh, and they speak HTTP/1.1 by themselves rather than through a library: a
//! library hides just what the tests look at, such as the case and order of header fields, or a connection
//! that ends in the middle of a response.

pub mod clock;
pub mod datagram;
pub mod digest;
pub mod dns;
pub mod fetch;
pub mod http1;
pub mod lines;
pub mod load;
pub mod report;
pub mod server;
pub mod tcp;
