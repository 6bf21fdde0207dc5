//! The Huffman code of HPACK's strings (RFC 7541 §5.2 and Appendix B).
//!
//! The code is canonical: within a length codes count up with their symbols, and every length goes on where the
//! one before it ended. So the lengths say everything, and the tables below are made of them while compiling.

use super::HpackError;

/// Appendix B: bits of each octet's code; the last one is the end of a string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
    30,
];

/// The symbol that is no octet.
const END_OF_STRING: u16 = 256;
/// Bits of the shortest code and of the longest.
const SHORTEST: usize = 5;
const LONGEST: usize = 30;
/// Bits that one look-up takes: enough for any printable character but a few, and often for two of them.
const LOOKUP_BITS: usize = 12;

/// The code, by length and in order.
struct Code {
    /// Symbols in the order of their codes.
    symbols: [u16; 257],
    /// Where the symbols of each length begin in `symbols`.
    offsets: [u16; LONGEST + 1],
    /// First code of each length, in the top bits of 32.
    firsts: [u64; LONGEST + 2],
}

const CODE: Code = code();

/// The code of each octet, in the low bits, and its length.
const CODES: [(u32, u8); 256] = codes();

/// What the next bits stand for, one or two whole codes; nothing where the code is longer.
static LOOKUP: [Found; 1 << LOOKUP_BITS] = lookup();

/// One or two octets found in some bits.
#[derive(Clone, Copy)]
struct Found {
    octets: [u8; 2],
    /// Bits of the first code; 0 where it doesn't fit.
    first: u8,
    /// Bits of both, shifted left by one; the lowest bit is set if there are two.
    both: u8,
}

impl Found {
    const fn bits(self) -> u32 {
        (self.both >> 1) as u32
    }

    const fn count(self) -> usize {
        1 + (self.both & 1) as usize
    }
}

const fn code() -> Code {
    let mut code = Code { symbols: [0; 257], offsets: [0; LONGEST + 1], firsts: [0; LONGEST + 2] };
    let mut placed = 0;
    let mut next = 0;
    let mut length = SHORTEST;
    while length <= LONGEST {
        code.offsets[length] = placed as u16;
        code.firsts[length] = next;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.symbols[placed] = symbol as u16;
                placed += 1;
                next += 1 << (32 - length);
            }
            symbol += 1;
        }
        length += 1;
    }
    code.firsts[LONGEST + 1] = next;
    code
}

const fn codes() -> [(u32, u8); 256] {
    let mut codes = [(0, 0); 256];
    let mut length = SHORTEST;
    let mut place = 0;
    while place < 256 {
        while length < LONGEST && code_offset(length + 1) <= place {
            length += 1;
        }
        let first = CODE.firsts[length] >> (32 - length);
        let above = (place - CODE.offsets[length] as usize) as u64;
        codes[CODE.symbols[place] as usize] = ((first + above) as u32, length as u8);
        place += 1;
    }
    codes
}

const fn code_offset(length: usize) -> usize {
    CODE.offsets[length] as usize
}

const fn lookup() -> [Found; 1 << LOOKUP_BITS] {
    let mut table = [Found { octets: [0; 2], first: 0, both: 0 }; 1 << LOOKUP_BITS];
    let mut bits = 0;
    while bits < table.len() {
        let top = (bits as u32) << (32 - LOOKUP_BITS);
        let (one, first) = symbol(top, SHORTEST);
        if first as usize <= LOOKUP_BITS {
            let (two, second) = symbol(top << first, SHORTEST);
            table[bits] = if (first + second) as usize <= LOOKUP_BITS {
                Found { octets: [one as u8, two as u8], first, both: ((first + second) << 1) | 1 }
            } else {
                Found { octets: [one as u8, 0], first, both: first << 1 }
            };
        }
        bits += 1;
    }
    table
}

/// The symbol whose code begins these bits, and the code's length, which is `least` or more.
const fn symbol(top: u32, least: usize) -> (u16, u8) {
    let top = top as u64;
    let mut length = least;
    while length < LONGEST && top >= CODE.firsts[length + 1] {
        length += 1;
    }
    let above = (top - CODE.firsts[length]) >> (32 - length);
    (CODE.symbols[CODE.offsets[length] as usize + above as usize], length as u8)
}

/// Bits that were taken out of the octets and not yet decoded.
struct Bits<'a> {
    rest: &'a [u8],
    /// The next bits, from the top.
    window: u64,
    /// How many of them there are.
    count: u32,
}

impl Bits<'_> {
    /// At least 56 bits, or all that are left.
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
        while self.count <= 56
            && let Some((octet, rest)) = self.rest.split_first()
        {
            self.window |= u64::from(*octet) << (56 - self.count);
            self.count += 8;
            self.rest = rest;
        }
    }

    #[inline]
    fn skip(&mut self, bits: u32) {
        self.window <<= bits;
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
        if bits.count < u64::BITS / 2 {
            break;
        }
        while bits.count >= u64::BITS / 2 {
            let found = bits.look_up();
            if found.first > 0 {
                scratch[done..done + 2].copy_from_slice(&found.octets);
                done += found.count();
                bits.skip(found.bits());
            } else {
                let (symbol, length) = bits.long();
                if symbol == END_OF_STRING {
                    return Err(HpackError::EndOfStringInside);
                }
                scratch[done] = symbol as u8;
                done += 1;
                bits.skip(length);
            }
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
                bits.skip(found.bits());
                continue;
            }
            if u32::from(found.first) > bits.count {
                break;
            }
            scratch[done] = found.octets[0];
            done += 1;
            bits.skip(u32::from(found.first));
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
    }
    let padding = bits.window | (u64::MAX >> bits.count);
    if bits.count < 8 && padding == u64::MAX { Ok(done) } else { Err(HpackError::WrongPadding) }
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
    fn the_257_codes_fill_the_code_space_exactly() {
        let kraft: u64 = LENGTHS.iter().map(|length| 1 << (LONGEST - usize::from(*length))).sum();
        assert_eq!(kraft, 1 << LONGEST);
        assert_eq!(CODE.firsts[LONGEST + 1], 1 << 32);
    }

    #[test]
    fn codes_are_those_of_appendix_b() {
        for (octet, code, length) in [
            (0, 0x1ff8, 13),
            (1, 0x7f_ffd8, 23),
            (10, 0x3fff_fffc, 30),
            (b' ', 0x14, 6),
            (b'0', 0x0, 5),
            (b'<', 0x7ffc, 15),
            (b'\\', 0x7_fff0, 19),
            (b'a', 0x3, 5),
            (b'z', 0x7b, 7),
            (b'~', 0x1ffd, 13),
            (127, 0xfff_fffc, 28),
            (128, 0xf_ffe6, 20),
            (249, 0xfff_fffe, 28),
            (255, 0x3ff_ffee, 26),
        ] {
            assert_eq!(CODES[usize::from(octet)], (code, length), "octet {octet}");
        }
        assert_eq!(symbol(u32::MAX, LOOKUP_BITS + 1), (END_OF_STRING, 30));
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
