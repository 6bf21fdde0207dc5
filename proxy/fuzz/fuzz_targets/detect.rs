//! The choice of protocol: a verdict is never taken back by more bytes.
#![no_main]

use ferrule_proxy::detect::{Verdict, detect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut decided = Verdict::Undecided;
    for end in 0..=bytes.len() {
        let verdict = detect(&bytes[..end]);
        assert!(decided == Verdict::Undecided || verdict == decided, "{decided:?}, then {verdict:?}");
        decided = verdict;
    }
});
