//! The code of Appendix B, and tables made of it while compiling.
//!
//! The code is canonical: within a length codes count up with their symbols, and every length goes on where the
//! one before it ended. So the lengths say everything.

/// Appendix B: bits of each octet's code; the last one is the end of a string.
pub(super) const LENGTHS: [u8; 257] = [
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
pub(super) const END_OF_STRING: u16 = 256;
/// Bits of the shortest code and of the longest.
pub(super) const SHORTEST: usize = 5;
const LONGEST: usize = 30;
/// Bits that one look-up takes: enough for any printable character but a few, and often for two of them.
pub(super) const LOOKUP_BITS: usize = 12;

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
pub(super) const CODES: [(u32, u8); 256] = codes();

/// What the next bits stand for, one or two whole codes; nothing where the code is longer.
pub(super) static LOOKUP: [Found; 1 << LOOKUP_BITS] = lookup();

/// One or two octets found in some bits.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) octets: [u8; 2],
    /// Bits of the first code; 0 where it doesn't fit.
    pub(super) first: u8,
    /// Bits of both, shifted left by one; the lowest bit is set if there are two.
    both: u8,
}

impl Found {
    pub(super) const fn bits(self) -> u32 {
        (self.both >> 1) as u32
    }

    pub(super) const fn count(self) -> usize {
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
pub(super) const fn symbol(top: u32, least: usize) -> (u16, u8) {
    let top = top as u64;
    let mut length = least;
    while length < LONGEST && top >= CODE.firsts[length + 1] {
        length += 1;
    }
    let above = (top - CODE.firsts[length]) >> (32 - length);
    (CODE.symbols[CODE.offsets[length] as usize + above as usize], length as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
