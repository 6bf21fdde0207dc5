//! What `rustls` says of a handshake that has failed, in our own words.

use std::{error::Error as _, io};

use rustls::{AlertDescription, CertificateError, Error};

use super::{error::Failed, expected::PlainReason, verify::Objection};
use crate::cause::Cause;

impl Failed {
    /// What `rustls` says. `begun`: the peer has answered in TLS.
    pub(super) fn of(error: &Error, begun: bool) -> Self {
        match error {
            Error::InvalidCertificate(error) => of_certificate(error),
            Error::NoCertificatesPresented => Self::new(Cause::TlsIdentity, "the peer shows no certificate"),
            Error::AlertReceived(alert) => of_alert(*alert, begun),
            Error::InvalidMessage(_) if !begun => Self {
                unproved: Some(PlainReason::PeerNotTls),
                ..Self::new(Cause::TlsHandshake, "the peer does not answer in TLS: has it a sidecar?")
            },
            other => Self::new(Cause::TlsHandshake, other),
        }
    }

    /// A failure of the connection below. `begun`: the peer has answered in TLS.
    pub(super) fn broken(error: &io::Error, begun: bool) -> Self {
        let closed = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        );
        let unproved = (closed && !begun).then_some(PlainReason::PeerClosed);
        let failed =
            Self::new(Cause::TlsHandshake, format_args!("the connection broke in the handshake: {error}"));
        Self { unproved, ..failed }
    }
}

fn of_certificate(error: &CertificateError) -> Failed {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Failed::new(Cause::TlsExpired, format_args!("the peer's certificate has expired ({error})"))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            let hint = "is a clock wrong?";
            Failed::new(
                Cause::TlsNotYetValid,
                format_args!("the peer's certificate is not valid yet: {hint}"),
            )
        }
        CertificateError::Other(other) => {
            let objection = other.0.downcast_ref::<Objection>();
            match (objection, other.source()) {
                (Some(objection), _) => Failed::new(Cause::TlsIdentity, objection),
                (None, Some(source)) => Failed::new(Cause::TlsUntrusted, source),
                (None, None) => Failed::new(Cause::TlsUntrusted, error),
            }
        }
        other => {
            Failed::new(Cause::TlsUntrusted, format_args!("the peer's certificate is not trusted: {other}"))
        }
    }
}

/// What the peer says. Only before it has answered can somebody else have said it.
fn of_alert(alert: AlertDescription, begun: bool) -> Failed {
    let says = |cause, what: &str| Failed::new(cause, format_args!("the peer {what} (alert {alert:?})"));
    match alert {
        AlertDescription::CertificateUnobtainable if !begun => Failed {
            unproved: Some(PlainReason::PeerNoIdentity),
            ..says(Cause::TlsNoIdentity, "has no certificate itself yet, or encryption is disabled for it")
        },
        AlertDescription::NoApplicationProtocol if !begun => {
            Failed { unproved: Some(PlainReason::PeerNotTls), ..says(Cause::TlsHandshake, "is no sidecar") }
        }
        AlertDescription::CertificateExpired => says(
            Cause::TlsExpired,
            "takes this sidecar's certificate for expired or not yet valid: is a clock wrong?",
        ),
        AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::DecryptError => {
            says(Cause::TlsUntrusted, "does not trust this sidecar's certificate")
        }
        AlertDescription::CertificateRequired
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::UnsupportedCertificate => {
            says(Cause::TlsIdentity, "does not accept this sidecar's identity")
        }
        _ => says(Cause::TlsHandshake, "refuses the handshake"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_proved_nothing_may_be_spoken_to_plain() {
        let unproved = |error: &Error, begun| Failed::of(error, begun).unproved;
        let none = Error::AlertReceived(AlertDescription::CertificateUnobtainable);
        assert_eq!(unproved(&none, false), Some(PlainReason::PeerNoIdentity));
        assert_eq!(unproved(&none, true), None);
        for error in [
            Error::InvalidCertificate(CertificateError::UnknownIssuer),
            Error::InvalidCertificate(CertificateError::Expired),
            Error::AlertReceived(AlertDescription::UnknownCA),
            Error::AlertReceived(AlertDescription::HandshakeFailure),
            Error::AlertReceived(AlertDescription::ProtocolVersion),
        ] {
            assert_eq!(unproved(&error, false), None, "{error}");
            assert_eq!(unproved(&error, true), None, "{error}");
        }
    }

    #[test]
    fn only_who_closes_before_it_has_answered_may_be_spoken_to_plain() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(Failed::broken(&reset, false).unproved, Some(PlainReason::PeerClosed));
        assert_eq!(Failed::broken(&reset, true).unproved, None);
        let slow = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(Failed::broken(&slow, false).unproved, None);
    }
}
