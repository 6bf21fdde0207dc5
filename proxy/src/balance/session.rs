//! Sessions: the client keeps which endpoint answered it, in a cookie or a header field. Pure.
//!
//! What it keeps is [`Endpoint::id`](super::Endpoint::id) in sixteen hexadecimal digits, so no proxy has to remember
//! anything, and all of them read the same.

use ferrule_config::{HeaderChange, Session, SessionKeeper};

use super::key;
use crate::message::Field;

/// The endpoint that the request's session is kept at; `None` for a new session and for what is none.
#[must_use]
pub fn read(session: &Session, fields: &[Field<'_>]) -> Option<u64> {
    let value = match session.kept_in {
        SessionKeeper::Cookie => key::cookie(fields, &session.name)?,
        SessionKeeper::Header => {
            fields.iter().find(|field| field.name.eq_ignore_ascii_case(&session.name))?.value
        }
    };
    let is_id = value.len() == 16 && value.iter().all(u8::is_ascii_hexdigit);
    let text = str::from_utf8(value).ok().filter(|_| is_id)?;
    u64::from_str_radix(text, 16).ok()
}

/// The field, name and value, that tells the client which endpoint to keep.
///
/// A cookie holds for the whole host, is not for scripts, and does not travel with requests from other sites (RFC 6265
/// §4.1.2, and `SameSite=Lax`, which browsers have taken as the default).
#[must_use]
pub fn field(session: &Session, id: u64) -> (String, String) {
    let Session { kept_in, name, ttl } = session;
    match kept_in {
        SessionKeeper::Header => (name.clone(), format!("{id:016x}")),
        SessionKeeper::Cookie => {
            let age = ttl.map(|ttl| format!("; Max-Age={}", ttl.get().as_secs())).unwrap_or_default();
            ("set-cookie".to_owned(), format!("{name}={id:016x}; Path=/; HttpOnly; SameSite=Lax{age}"))
        }
    }
}

/// The changes of a response that also tell the client which endpoint to keep. An application's own cookies stay; a
/// header field of the session's name is replaced, for two of them would say two things.
#[must_use]
pub fn added(session: &Session, id: u64, changes: &HeaderChange) -> HeaderChange {
    let mut changes = changes.clone();
    let field = field(session, id);
    match session.kept_in {
        SessionKeeper::Cookie => changes.add.push(field),
        SessionKeeper::Header => changes.set.push(field),
    }
    changes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session(kept_in: SessionKeeper) -> Session {
        Session { kept_in, name: "ferrule-session".into(), ttl: None }
    }

    #[test]
    fn a_cookie_says_how_long_and_for_whom_it_is() {
        let ttl = Some(ferrule_config::Duration::from_millis(90_000));
        let (name, value) = field(&Session { ttl, ..session(SessionKeeper::Cookie) }, 0xab);
        assert_eq!(name, "set-cookie");
        assert_eq!(value, "ferrule-session=00000000000000ab; Path=/; HttpOnly; SameSite=Lax; Max-Age=90");
    }

    #[test]
    fn what_is_no_id_is_no_session() {
        let header = session(SessionKeeper::Header);
        for value in ["", "ab", "zzzzzzzzzzzzzzzz", "+0000000000000ab", "00000000000000000000ab", "é"] {
            let fields = [Field { name: "Ferrule-Session", value: value.as_bytes() }];
            assert_eq!(read(&header, &fields), None, "{value}");
        }
    }

    #[test]
    fn a_session_is_added_to_the_changes_of_the_rule() {
        let rule = HeaderChange { add: vec![("a".into(), "b".into())], ..HeaderChange::default() };
        let changes = added(&session(SessionKeeper::Cookie), 1, &rule);
        assert_eq!(changes.add.len(), 2);
        let changes = added(&session(SessionKeeper::Header), 1, &rule);
        assert_eq!(changes.set, [("ferrule-session".into(), "0000000000000001".into())]);
    }

    proptest! {
        #[test]
        fn what_the_client_keeps_is_read_back(id: u64) {
            let header = session(SessionKeeper::Header);
            let (name, value) = field(&header, id);
            let fields = [Field { name: &name, value: value.as_bytes() }];
            prop_assert_eq!(read(&header, &fields), Some(id));
            let cookie = session(SessionKeeper::Cookie);
            let (_, value) = field(&cookie, id);
            let kept = value.split(';').next().expect("a pair");
            let fields = [Field { name: "cookie", value: kept.as_bytes() }];
            prop_assert_eq!(read(&cookie, &fields), Some(id));
        }
    }
}
