//! The beginning and the end of handshakes on both sides.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use ferrule_config::{MinVersion, identity::SpiffeId};
use rustls::{
    ClientConnection, Connection, ServerConnection,
    pki_types::{ServerName, UnixTime},
};
use tokio::net::TcpStream;

use super::{alpn::Alpn, error::Failed, expected::Accounts, material::Material, stream::TlsStream, verify};
use crate::cause::Cause;

/// Begins one with a client. `read`: what was read of it.
pub(super) fn server(
    material: &Material,
    min_version: MinVersion,
    client: TcpStream,
    read: &[u8],
) -> Result<TlsStream, Failed> {
    let server = ServerConnection::new(material.server(min_version));
    let server = server.map_err(|error| Failed::new(Cause::TlsHandshake, error))?;
    Ok(TlsStream::new(client, Connection::Server(server), read))
}

/// Who a client has proved to be, and what it brings.
pub(super) fn who_calls(stream: &TlsStream, material: &Material) -> Result<(Alpn, SpiffeId), Failed> {
    let tls = stream.tls();
    let alpn = tls.alpn_protocol().and_then(Alpn::of);
    let alpn = alpn.ok_or_else(|| Failed::new(Cause::TlsHandshake, "the client names no protocol"))?;
    Ok((alpn, identity(&tls, material, None)?))
}

/// Begins one with an endpoint. `name`: what tickets are kept by; it is never sent.
pub(super) fn client(
    material: &Material,
    accounts: &Arc<Accounts>,
    min_version: MinVersion,
    alpn: Alpn,
    name: IpAddr,
    endpoint: TcpStream,
) -> Result<TlsStream, Failed> {
    let config = material.client(accounts, min_version, alpn);
    let client = config.and_then(|config| ClientConnection::new(config, ServerName::from(name)));
    let client = client.map_err(|error| Failed::new(Cause::TlsHandshake, error))?;
    Ok(TlsStream::new(endpoint, Connection::Client(client), &[]))
}

/// Whether an endpoint is one of these accounts and takes what it is offered.
pub(super) fn who_answers(
    stream: &TlsStream,
    material: &Material,
    accounts: &Arc<Accounts>,
    alpn: Alpn,
) -> Result<(), Failed> {
    let tls = stream.tls();
    if tls.alpn_protocol() != Some(alpn.name()) {
        let detail = "the endpoint takes up another protocol than it was offered";
        return Err(Failed::new(Cause::TlsHandshake, detail));
    }
    identity(&tls, material, Some(accounts)).map(drop)
}

/// A resumed connection shows no certificate: the one that it was verified by is looked at again.
fn identity(
    tls: &Connection,
    material: &Material,
    accounts: Option<&Arc<Accounts>>,
) -> Result<SpiffeId, Failed> {
    let leaf = tls.peer_certificates().and_then(<[_]>::first);
    let leaf = leaf.ok_or_else(|| Failed::of(&rustls::Error::NoCertificatesPresented, true))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(now);
    verify::again(leaf, material.id.trust_domain(), accounts, now).map_err(|error| Failed::of(&error, true))
}
