//! A checksum of bodies, so that a byte lost or changed on the way is noticed.

/// FNV-1a with 64 bits, as hexadecimal digits.
#[must_use]
pub fn checksum(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// A body of this many bytes in which neighbours differ, so that a shifted one has another checksum.
#[must_use]
pub fn pattern(length: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(length).collect()
}
