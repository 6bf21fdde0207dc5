//! The Huffman code of HPACK's strings (RFC 7541 §5.2).

mod code;

use super::HpackError;
use code::{CODES, END_OF_STRING, Found, LENGTHS, LOOKUP, LOOKUP_BITS, SHORTEST, symbol};

/// Bits that there are at least after a refill, unless the string ends.
const REFILLED: u32 = 56;

/// Bits that were taken out of the octets and not yet decoded.
struct Bits<'a> {
    rest: &'a [u8],
    /// The next bits, from the top.
    window: u64,
    /// How many of them there are.
    count: u32,
}

impl Bits<'_> {
    /// Takes [`REFILLED`] bits or more, or all that are left.
    #[inline]
    fn refill(&mut self) {
        if let Some(octets) = self.rest.first_chunk::<8>() {
            // Bits of an octet that only partly fits are put there again by the next refill, as the same bits.
            self.window |= u64::from_be_bytes(*octets) >> self.count;
            let taken = (63 - self.count) / 8;
            self.rest = &self.rest[taken as usize..];
            self.count += 8 * taken;
            return;
        }
        while self.count <= REFILLED
            && let Some((octet, rest)) = self.rest.split_first()
        {
            self.window |= u64::from(*octet) << (REFILLED - self.count);
            self.count += 8;
            self.rest = rest;
        }
    }

    #[inline]
    fn skip(&mut self, bits: u32) {
        self.window <<= bits;
        self.count -= bits;
    }

    /// As [`skip`](Self::skip), where ones follow the last bit.
    #[inline]
    fn skip_in_padding(&mut self, bits: u32) {
        self.window = !(!self.window << bits);
        self.count -= bits;
    }

    #[inline]
    fn look_up(&self) -> Found {
        LOOKUP[(self.window >> (64 - LOOKUP_BITS)) as usize]
    }

    /// The next symbol, where it is longer than a look-up.
    fn long(&self) -> (u16, u32) {
        let (symbol, length) = symbol((self.window >> 32) as u32, LOOKUP_BITS + 1);
        (symbol, u32::from(length))
    }
}

/// Decodes a string into `scratch`, which grows to at most 8/5 of the string's size and 2 octets more.
///
/// # Errors
/// [`HpackError::EndOfStringInside`] and [`HpackError::WrongPadding`].
pub fn decode<'s>(string: &[u8], scratch: &'s mut Vec<u8>) -> Result<&'s [u8], HpackError> {
    // The second octet of a look-up is written whether it is one or not.
    let bound = string.len() * 8 / SHORTEST + 2;
    if scratch.len() < bound {
        scratch.resize(bound, 0);
    }
    let mut done = 0;
    let mut bits = Bits { rest: string, window: 0, count: 0 };
    loop {
        bits.refill();
        if bits.count < REFILLED {
            break;
        }
        // No count is looked at in between: how many symbols a string's bits are can't be predicted.
        for _ in 0..REFILLED / LOOKUP_BITS as u32 {
            let found = bits.look_up();
            if found.first > 0 {
                scratch[done..done + 2].copy_from_slice(&found.octets);
                done += found.count();
                bits.skip(found.bits());
                continue;
            }
            let (symbol, length) = bits.long();
            if length > bits.count {
                break;
            }
            if symbol == END_OF_STRING {
                return Err(HpackError::EndOfStringInside);
            }
            scratch[done] = symbol as u8;
            done += 1;
            bits.skip(length);
            break;
        }
    }
    let done = decode_end(bits, scratch, done)?;
    Ok(&scratch[..done])
}

/// The last bits. Behind them the padding goes on as ones, so what is cut off is no whole code.
fn decode_end(mut bits: Bits<'_>, scratch: &mut [u8], mut done: usize) -> Result<usize, HpackError> {
    bits.window |= u64::MAX >> bits.count;
    loop {
        let found = bits.look_up();
        if found.first > 0 {
            if found.bits() <= bits.count {
                scratch[done..done + 2].copy_from_slice(&found.octets);
                done += found.count();
                bits.skip_in_padding(found.bits());
                continue;
            }
            if u32::from(found.first) > bits.count {
                break;
            }
            scratch[done] = found.octets[0];
            done += 1;
            bits.skip_in_padding(u32::from(found.first));
            continue;
        }
        let (symbol, length) = bits.long();
        if length > bits.count {
            break;
        }
        if symbol == END_OF_STRING {
            return Err(HpackError::EndOfStringInside);
        }
        scratch[done] = symbol as u8;
        done += 1;
        bits.skip_in_padding(length);
    }
    if bits.count < 8 && bits.window == u64::MAX { Ok(done) } else { Err(HpackError::WrongPadding) }
}

/// Appends a string's code, padded with ones. The proxy itself sends strings as they are, see [`super::Encoder`].
pub fn encode(string: &[u8], out: &mut Vec<u8>) {
    let mut window = 0_u64;
    let mut count = 0;
    for octet in string {
        let (code, length) = CODES[usize::from(*octet)];
        window = window << length | u64::from(code);
        count += u32::from(length);
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((window >> count) as u32).to_be_bytes());
        }
    }
    let octets = count.div_ceil(8);
    if octets > 0 {
        let padded = (window << 32 | u64::from(u32::MAX)) >> count;
        out.extend_from_slice(&(padded as u32).to_be_bytes()[..octets as usize]);
    }
}

/// Size of a string's code in octets.
#[must_use]
pub fn encoded_len(string: &[u8]) -> usize {
    string.iter().map(|octet| usize::from(LENGTHS[usize::from(*octet)])).sum::<usize>().div_ceil(8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(string: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(string, &mut out);
        out
    }

    fn decoded(string: &[u8]) -> Result<Vec<u8>, HpackError> {
        decode(string, &mut Vec::new()).map(<[u8]>::to_vec)
    }

    #[test]
    fn every_octet_survives_alone_and_between_others() {
        for octet in 0..=255 {
            for string in
                [&[octet][..], &[octet; 2], &[octet; 9], b"0", &[b'a', octet, b'0', octet, b'w', b'w']]
            {
                assert_eq!(decoded(&encoded(string)).as_deref(), Ok(string));
                assert_eq!(encoded_len(string), encoded(string).len());
            }
        }
    }

    #[test]
    fn the_end_of_string_inside_a_string_is_refused() {
        assert_eq!(decoded(&[0xff; 4]), Err(HpackError::EndOfStringInside));
        assert_eq!(decoded(&[0xff; 20]), Err(HpackError::EndOfStringInside));
        // "a", then 30 ones, then padding.
        assert_eq!(decoded(&[0x1f, 0xff, 0xff, 0xff, 0xff]), Err(HpackError::EndOfStringInside));
    }

    #[test]
    fn padding_is_up_to_seven_ones_and_nothing_else() {
        assert_eq!(decoded(&[0x1f]).as_deref(), Ok(&b"a"[..]));
        assert_eq!(decoded(&[]).as_deref(), Ok(&b""[..]));
        // "0101" is four codes of five bits, four bits short of three octets.
        let whole = encoded(b"0101");
        assert_eq!(whole, [0x00, 0x40, 0x1f]);
        for last in 0x10..0x1f {
            assert_eq!(decoded(&[0x00, 0x40, last]), Err(HpackError::WrongPadding), "{last:#x}");
        }
        assert_eq!(decoded(&[0xff]), Err(HpackError::WrongPadding), "eight ones");
        assert_eq!(decoded(&[0x1f, 0xff]), Err(HpackError::WrongPadding), "eleven ones");
        assert_eq!(decoded(&[0xff, 0xff, 0xff]), Err(HpackError::WrongPadding), "24 ones");
        assert_eq!(decoded(&[0xfe]), Err(HpackError::WrongPadding), "the head of a longer code");
        let mut long = encoded(&[b'0'; 64]);
        long.push(0xff);
        assert_eq!(decoded(&long), Err(HpackError::WrongPadding), "a whole octet after whole codes");
    }

    #[test]
    fn a_string_needs_no_more_space_than_promised() {
        let mut scratch = Vec::new();
        let coded = encoded(&[b'0'; 1000]);
        assert_eq!(decode(&coded, &mut scratch).map(<[u8]>::len), Ok(1000));
        assert!(scratch.len() <= coded.len() * 8 / 5 + 2);
    }

    /// One code after another, bit by bit, as the RFC tells it.
    fn decoded_slowly(string: &[u8]) -> Result<Vec<u8>, HpackError> {
        let bits: Vec<u32> = string
            .iter()
            .flat_map(|octet| (0..8).rev().map(move |bit| u32::from(octet >> bit & 1)))
            .collect();
        let mut out = Vec::new();
        let (mut code, mut length) = (0, 0);
        for bit in bits {
            (code, length) = (code << 1 | bit, length + 1);
            if (code, length) == (0x3fff_ffff, 30) {
                return Err(HpackError::EndOfStringInside);
            }
            if let Some(octet) = CODES.iter().position(|each| *each == (code, length)) {
                out.push(octet as u8);
                (code, length) = (0, 0);
            }
        }
        if length < 8 && code == (1 << length) - 1 { Ok(out) } else { Err(HpackError::WrongPadding) }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(string: Vec<u8>) {
            prop_assert_eq!(decoded(&encoded(&string)), Ok(string));
        }

        #[test]
        fn look_ups_read_any_octets_as_one_bit_after_another_does(
            string in prop::collection::vec(prop_oneof![any::<u8>(), 0x00_u8..0x90, 0xf0_u8..=0xff], 0..40),
        ) {
            prop_assert_eq!(decoded(&string), decoded_slowly(&string));
        }
    }
}
