//! A build without TLS makes no handshakes.

use std::{net::IpAddr, sync::Arc};

use ferrule_config::{MinVersion, identity::SpiffeId};
use tokio::net::TcpStream;

use super::{alpn::Alpn, error::Failed, expected::Accounts, material::Material, stream::TlsStream};

pub(super) fn server(
    material: &Material,
    _: MinVersion,
    _: TcpStream,
    _: &[u8],
) -> Result<TlsStream, Failed> {
    match material.never {}
}

pub(super) fn who_calls(_: &TlsStream, material: &Material) -> Result<(Alpn, SpiffeId), Failed> {
    match material.never {}
}

pub(super) fn client(
    material: &Material,
    _: &Arc<Accounts>,
    _: MinVersion,
    _: Alpn,
    _: IpAddr,
    _: TcpStream,
) -> Result<TlsStream, Failed> {
    match material.never {}
}

pub(super) fn who_answers(
    _: &TlsStream,
    material: &Material,
    _: &Arc<Accounts>,
    _: Alpn,
) -> Result<(), Failed> {
    match material.never {}
}
