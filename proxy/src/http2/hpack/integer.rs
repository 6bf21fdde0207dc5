//! Integers and strings, the primitives of a header block (RFC 7541 §5).

use super::{HpackError, huffman};

/// The string's top bit: it is Huffman-coded.
const HUFFMAN: u8 = 0x80;

/// What is left of a header block.
#[derive(Debug)]
pub(super) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn new(block: &'a [u8]) -> Self {
        Self { rest: block }
    }

    /// The next octet, which stays where it is.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// An integer in the low `bits` of the next octet and, where they are all ones, in octets after it (§5.1).
    #[inline]
    pub(super) fn integer(&mut self, bits: u32) -> Result<u32, HpackError> {
        let (first, rest) = self.rest.split_first().ok_or(HpackError::Truncated)?;
        self.rest = rest;
        let most = (1 << bits) - 1;
        let prefix = u32::from(*first) & most;
        if prefix < most { Ok(prefix) } else { self.integer_beyond(most) }
    }

    /// The rest of an integer that doesn't fit its prefix. Five octets hold any of 32 bits; a sixth is refused
    /// even where it adds nothing, or an integer could be as long as the block.
    fn integer_beyond(&mut self, prefix: u32) -> Result<u32, HpackError> {
        let mut sum = u64::from(prefix);
        for shift in [0, 7, 14, 21, 28] {
            let (octet, rest) = self.rest.split_first().ok_or(HpackError::Truncated)?;
            self.rest = rest;
            sum += u64::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return u32::try_from(sum).map_err(|_| HpackError::IntegerOverflow);
            }
        }
        Err(HpackError::IntegerOverflow)
    }

    /// A string (§5.2): where it lies in the block, or decoded into `scratch`.
    #[inline]
    pub(super) fn string<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], HpackError>
    where
        'a: 's,
    {
        let coded = self.peek().is_some_and(|first| first & HUFFMAN != 0);
        let length = self.integer(7)? as usize;
        let (octets, rest) = self.rest.split_at_checked(length).ok_or(HpackError::Truncated)?;
        self.rest = rest;
        if coded { huffman::decode(octets, scratch) } else { Ok(octets) }
    }
}

/// Appends an integer whose prefix is the low `bits` of an octet; `flags` are the octet's other bits (§5.1).
#[inline]
pub(super) fn put_integer(value: usize, bits: u32, flags: u8, out: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    if value < most {
        out.push(flags | low_octet(value));
        return;
    }
    out.push(flags | low_octet(most));
    let mut left = value - most;
    while left >= 0x80 {
        out.push(low_octet(left) | 0x80);
        left >>= 7;
    }
    out.push(low_octet(left));
}

/// Appends a string as it is (§5.2).
#[inline]
pub(super) fn put_string(octets: &[u8], out: &mut Vec<u8>) {
    put_integer(octets.len(), 7, 0, out);
    out.extend_from_slice(octets);
}

fn low_octet(value: usize) -> u8 {
    (value & 0xff) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(octets: &[u8], bits: u32) -> Result<u32, HpackError> {
        Input::new(octets).integer(bits)
    }

    fn written(value: usize, bits: u32) -> Vec<u8> {
        let mut out = Vec::new();
        put_integer(value, bits, 0, &mut out);
        out
    }

    #[test]
    fn the_integers_of_appendix_c_1_read_and_write_as_there() {
        for (octets, bits, value) in [(&[0x0a][..], 5, 10), (&[0x1f, 0x9a, 0x0a], 5, 1337), (&[0x2a], 8, 42)]
        {
            assert_eq!(read(octets, bits), Ok(value));
            assert_eq!(written(value as usize, bits), octets);
        }
    }

    #[test]
    fn the_bits_above_the_prefix_are_no_part_of_the_integer() {
        assert_eq!(read(&[0xea], 5), Ok(10));
        assert_eq!(read(&[0xff, 0x9a, 0x0a], 5), Ok(1337));
    }

    #[test]
    fn integers_up_to_32_bits_are_read_and_larger_ones_refused() {
        assert_eq!(read(&[0x7f, 0x80, 0xff, 0xff, 0xff, 0x0f], 7), Ok(u32::MAX));
        assert_eq!(read(&[0x7f, 0x81, 0xff, 0xff, 0xff, 0x0f], 7), Err(HpackError::IntegerOverflow));
        assert_eq!(read(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f], 7), Err(HpackError::IntegerOverflow));
        let padded = [0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(read(&padded, 7), Err(HpackError::IntegerOverflow), "a sixth octet");
        assert_eq!(read(&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x00], 7), Ok(127), "five of them");
    }

    #[test]
    fn an_integer_or_string_that_leaves_the_block_is_refused() {
        assert_eq!(read(&[], 7), Err(HpackError::Truncated));
        assert_eq!(read(&[0x7f], 7), Err(HpackError::Truncated));
        assert_eq!(read(&[0x7f, 0x80], 7), Err(HpackError::Truncated));
        for octets in [&[][..], &[0x01], &[0x03, b'a', b'b'], &[0x7f, 0xff, 0xff, 0xff, 0xff, 0x0e]] {
            assert_eq!(Input::new(octets).string(&mut Vec::new()), Err(HpackError::Truncated));
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(value: u32, bits in 4_u32..=8) {
            prop_assert_eq!(read(&written(value as usize, bits), bits), Ok(value));
        }
    }
}
