//! The frames that carry no message: priorities, resets, settings, windows, GOAWAY (RFC 9113 §6.3 to §6.9).

use std::time::Instant;

use super::{Core, Role, setting};
use crate::http2::{
    flood::Nuisance,
    frame::{self, Code, ConnectionError, Header, MAX_31, MAX_PAYLOAD},
    streams::Ended,
};

impl Core {
    pub(super) fn priority(
        &mut self,
        header: Header,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        // Its meaning is gone (§5.3.2), its rules are not. An idle stream is no place for a stream error, for nobody
        // may send RST_STREAM on it (§6.4): the connection's it is then, as §5.4.1 allows.
        let fault = |code| ConnectionError::new(code, "wrong PRIORITY on an idle stream");
        let idle = self.is_idle(header.stream);
        if header.length != 5 {
            if idle {
                return Err(fault(Code::FRAME_SIZE_ERROR));
            }
            return self.stream_fault(header.stream, Code::FRAME_SIZE_ERROR, now);
        }
        if frame::number(payload) == header.stream {
            if idle {
                return Err(fault(Code::PROTOCOL_ERROR));
            }
            return self.stream_fault(header.stream, Code::PROTOCOL_ERROR, now);
        }
        self.flood.note(Nuisance::Empty, now)
    }

    pub(super) fn reset_received(
        &mut self,
        id: u32,
        code: Code,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("RST_STREAM on an idle stream"));
        }
        match self.role {
            Role::Server => self.flood.note(Nuisance::Reset, now)?,
            Role::Client if self.streams.find(id).is_none() => self.flood.note(Nuisance::Empty, now)?,
            Role::Client => {}
        }
        if let Some(entry) = self.streams.find(id)
            && entry.ended.is_none()
        {
            let refused = code == Code::REFUSED_STREAM && self.role == Role::Client && !entry.opened;
            entry.ended = Some(if refused { Ended::Refused } else { Ended::ByPeer(code) });
            entry.wake_all();
        }
        Ok(())
    }

    pub(super) fn settings(&mut self, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        self.flood.note(Nuisance::Settings, now)?;
        for (name, value) in frame::settings(payload) {
            match name {
                setting::HEADER_TABLE_SIZE => self.encoder.set_max_table_size(value as usize),
                setting::ENABLE_PUSH if value > 1 || (value == 1 && self.role == Role::Client) => {
                    return Err(ConnectionError::protocol("ENABLE_PUSH is neither 0 nor 1"));
                }
                setting::MAX_CONCURRENT_STREAMS => self.peer_streams = value,
                setting::INITIAL_WINDOW_SIZE => self.initial_window(value)?,
                setting::MAX_FRAME_SIZE if !(MAX_PAYLOAD as u32..=0xff_ffff).contains(&value) => {
                    return Err(ConnectionError::protocol("MAX_FRAME_SIZE is out of range"));
                }
                _ => {}
            }
        }
        frame::write_settings_ack(&mut self.out);
        Ok(())
    }

    /// §6.9.2: the difference applies to all streams, and may make their windows negative.
    pub(super) fn initial_window(&mut self, value: u32) -> Result<(), ConnectionError> {
        if value > MAX_31 {
            return Err(ConnectionError::new(
                Code::FLOW_CONTROL_ERROR,
                "INITIAL_WINDOW_SIZE is above 2^31-1",
            ));
        }
        let difference = i64::from(value) - self.peer_window;
        self.peer_window = i64::from(value);
        for (_, entry) in self.streams.iter_mut() {
            entry.send_window += difference;
            if entry.send_window > i64::from(MAX_31) {
                return Err(ConnectionError::new(
                    Code::FLOW_CONTROL_ERROR,
                    "a stream's window passes 2^31-1",
                ));
            }
            if difference > 0 {
                entry.wake_sender();
            }
        }
        Ok(())
    }

    pub(super) fn window_update(
        &mut self,
        id: u32,
        increment: u32,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        self.flood.note(Nuisance::WindowUpdate, now)?;
        let most = i64::from(MAX_31);
        if id == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE of 0"));
            }
            let blocked = self.send_window <= 0;
            self.send_window += i64::from(increment);
            if self.send_window > most {
                return Err(ConnectionError::new(
                    Code::FLOW_CONTROL_ERROR,
                    "the connection's window passes 2^31-1",
                ));
            }
            if blocked {
                self.wake_senders();
            }
            return Ok(());
        }
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("WINDOW_UPDATE on an idle stream"));
        }
        if increment == 0 {
            return self.stream_fault(id, Code::PROTOCOL_ERROR, now);
        }
        let Some(entry) = self.streams.find(id) else { return Ok(()) };
        if entry.ended.is_some() {
            return Ok(());
        }
        entry.send_window += i64::from(increment);
        if entry.send_window > most {
            return self.stream_fault(id, Code::FLOW_CONTROL_ERROR, now);
        }
        entry.wake_sender();
        Ok(())
    }

    pub(super) fn goaway(&mut self, last: u32) {
        self.goaway_received = true;
        if self.role == Role::Client {
            for (id, entry) in self.streams.iter_mut().filter(|(id, _)| *id > last) {
                debug_assert!(id > last, "filtered");
                if entry.ended.is_none() {
                    entry.ended = Some(Ended::Refused);
                    entry.wake_all();
                }
            }
        }
    }
}
