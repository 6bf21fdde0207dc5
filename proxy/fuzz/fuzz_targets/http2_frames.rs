//! Frames of a peer, in both roles: no panic, what is answered and kept stays in proportion to what came, and how the
//! bytes were cut changes nothing.
#![no_main]

use std::time::Instant;

use ferrule_proxy::{
    http2::{
        core::{Core, Role},
        frame::{self, HEADER, MAX_PAYLOAD, PREFACE},
        hpack::Field,
        streams::Entry,
    },
    limits::Http2Limits,
};
use libfuzzer_sys::fuzz_target;

/// First byte of an input: its bits say how it is used.
const CLIENT: u8 = 1;
const GREETED: u8 = 2;
const STREAMS: u8 = 0b1_1100;

fuzz_target!(|input: &[u8]| {
    let &[flags, seed, ref bytes @ ..] = input else { return };
    let bytes = [greeting(flags), bytes.to_vec()].concat();
    let now = Instant::now();
    let [whole, cut] = [None, Some(seed)].map(|seed| {
        let mut core = begin(flags, now);
        let begun = core.out.len();
        let outcome = feed(&mut core, &bytes, seed, now, |_| {});
        // The shortest frame has 9 bytes, the longest answer to one is RST_STREAM with 13 and WINDOW_UPDATE with 13.
        assert!(core.out.len() <= begun + 4 * bytes.len() + 256, "{} for {}", core.out.len(), bytes.len());
        let accepted = std::mem::take(&mut core.accepted);
        (outcome, core.out.clone(), accepted, core.exceeded.clone(), kept(&mut core))
    });
    assert_eq!(whole, cut);

    // The same while the streams are used.
    let mut core = begin(flags, now);
    let _ = feed(&mut core, &bytes, Some(seed), now, |core| use_streams(core, seed));
    for id in ids(&mut core) {
        core.forget(id);
    }
    assert!(core.streams.is_empty());
});

/// Without a preface and SETTINGS nothing else is looked at.
fn greeting(flags: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    if flags & GREETED != 0 {
        if flags & CLIENT == 0 {
            bytes.extend_from_slice(PREFACE);
        }
        frame::write_settings(&mut bytes, &[]);
    }
    bytes
}

fn begin(flags: u8, now: Instant) -> Core {
    let role = if flags & CLIENT == 0 { Role::Server } else { Role::Client };
    let mut core = Core::new(role, Http2Limits::default(), now);
    if role == Role::Client {
        for index in 0..(flags & STREAMS) >> 2 {
            let id = core.open(index % 2 == 1).expect("a new connection takes streams");
            core.send_section(id, index % 4 < 2, |each| {
                each(Field::new(b":method", b"GET"));
                each(Field::new(b":scheme", b"http"));
                each(Field::new(b":authority", b"a"));
                each(Field::new(b":path", b"/"));
            });
        }
    }
    core
}

/// What a connection's driver does with what it reads, in pieces as `seed` has it.
fn feed(
    core: &mut Core,
    bytes: &[u8],
    seed: Option<u8>,
    now: Instant,
    mut between: impl FnMut(&mut Core),
) -> Result<(), u32> {
    let mut pending = Vec::new();
    let mut rest = bytes;
    let mut random = seed.map(u32::from);
    while !rest.is_empty() {
        let length = match &mut random {
            None => rest.len(),
            Some(random) => {
                *random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (*random >> 24) as usize % 24 + 1
            }
        };
        let (piece, tail) = rest.split_at(length.min(rest.len()));
        rest = tail;
        pending.extend_from_slice(piece);
        match core.receive(&pending, now) {
            Ok(used) => drop(pending.drain(..used)),
            Err(error) => {
                core.fail(error);
                return Err(error.code.0);
            }
        }
        assert!(pending.len() < HEADER + MAX_PAYLOAD, "a complete frame was left");
        between(core);
    }
    Ok(())
}

fn ids(core: &mut Core) -> Vec<u32> {
    core.streams.iter_mut().map(|(id, _)| id).collect()
}

/// What the streams hold, in words.
fn kept(core: &mut Core) -> Vec<String> {
    let show = |(id, entry): (u32, &mut Entry)| {
        let held = entry.data.len() + entry.handed_out as usize;
        assert!(held <= Http2Limits::default().stream_window as usize);
        let Entry { interim, head, data, trailers, opened, received_end, sent_end, ended, .. } = entry;
        let Entry { expected, receive_window, send_window, .. } = entry;
        format!(
            "{id} {interim:?} {head:?} {data:?} {trailers:?} {opened} {received_end} {sent_end} {ended:?} \
             {expected:?} {receive_window} {send_window}"
        )
    };
    core.streams.iter_mut().map(show).collect()
}

/// Takes what there is, answers, and gives up some streams.
fn use_streams(core: &mut Core, seed: u8) {
    core.accepted.clear();
    for id in ids(core) {
        core.settle(id);
        let Some(entry) = core.streams.find(id) else { continue };
        let count = entry.data.len();
        entry.data.clear();
        entry.handed_out = count as u32;
        let (has_head, complete) = (entry.head.take().is_some(), entry.is_complete());
        if has_head {
            core.send_section(id, false, |each| each(Field::new(b":status", b"200")));
        }
        core.send_content(id, &[seed; 1000], count == 0 && seed % 2 == 0);
        if complete || (u32::from(seed) + id) % 7 == 0 {
            core.forget(id);
        }
    }
    core.out.clear();
}
