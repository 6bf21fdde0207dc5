//! The bytes, taken apart again.

use proptest::prelude::*;

use super::*;
use crate::redirect::Config;

/// Type, flags, sequence number and the rest of each message.
fn messages(mut bytes: &[u8]) -> Vec<(u16, u16, u32, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let number = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let half = |at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().expect("two bytes"));
        let (message, rest) = bytes.split_at(number(0) as usize);
        found.push((half(4), half(6), number(8), &message[HEADER_BYTES..]));
        bytes = rest;
    }
    found
}

/// The attributes and all that they hold, as `type=(…)` or `type=hex`.
fn tree(mut bytes: &[u8]) -> String {
    let mut text = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
        let value = &bytes[ATTRIBUTE_BYTES..length];
        text.push(if kind & NLA_F_NESTED == 0 {
            let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{kind}={hex}")
        } else {
            format!("{}=({})", kind & !NLA_F_NESTED, tree(value))
        });
        bytes = &bytes[length.next_multiple_of(4)..];
    }
    text.join(" ")
}

fn expressions(matches: Match) -> String {
    let mut message = Message(Vec::new());
    message.matches(&matches);
    tree(&message.0)
}

#[test]
fn the_batch_creates_deletes_and_creates_the_table_before_it_fills_it() {
    let batch = batch(&Table::redirect(&Config::default()));
    let kinds: Vec<_> = messages(&batch.bytes).iter().map(|message| message.0).collect();
    let head = [
        NFNL_MSG_BATCH_BEGIN,
        NFT_MSG_NEWTABLE,
        NFT_MSG_DELTABLE,
        NFT_MSG_NEWTABLE,
        NFT_MSG_NEWCHAIN,
        NFT_MSG_NEWCHAIN,
    ];
    assert_eq!(kinds[..6], head);
    assert!(kinds[6..kinds.len() - 1].iter().all(|kind| *kind == NFT_MSG_NEWRULE));
    assert_eq!(kinds.last(), Some(&NFNL_MSG_BATCH_END));
}

#[test]
fn only_the_last_rule_asks_for_an_acknowledgement() {
    let batch = batch(&Table::redirect(&Config::default()));
    let asking: Vec<_> = messages(&batch.bytes)
        .iter()
        .filter(|(_, flags, ..)| flags & NLM_F_ACK != 0)
        .map(|(_, _, sequence, _)| *sequence as usize)
        .collect();
    assert_eq!(asking, [batch.acknowledged()]);
    assert_eq!(
        batch.messages[batch.acknowledged()],
        "add rule inet ferrule prerouting meta l4proto tcp redirect to :15102"
    );
}

#[test]
fn sequence_numbers_lead_to_the_text_of_the_message() {
    let batch = batch(&Table::redirect(&Config::default()));
    let sequences: Vec<_> = messages(&batch.bytes).iter().map(|message| message.2 as usize).collect();
    assert_eq!(sequences, (0..batch.messages.len()).collect::<Vec<_>>());
}

// What follows was compared with `nft --debug=mnl` on a little-endian machine; the tree has the bytes of
// register data in the machine's order, so these tests are for such machines.
#[cfg(target_endian = "little")]
mod as_nft_writes_it {
    use super::*;

    fn meta(key: &str) -> String {
        // "meta\0"
        format!("1=(1=6d65746100 2=(2=000000{key} 1=00000001))")
    }

    fn cmp(operator: u8, value: &str) -> String {
        // "cmp\0"
        format!("1=(1=636d7000 2=(1=00000001 2=000000{operator:02x} 3=(1={value})))")
    }

    fn payload(base: u8, offset: u8, length: u8) -> String {
        // "payload\0"
        let numbers = format!("2=000000{base:02x} 3=000000{offset:02x} 4=000000{length:02x}");
        format!("1=(1=7061796c6f616400 2=(1=00000001 {numbers}))")
    }

    #[test]
    fn protocol_uid_and_interface() {
        assert_eq!(expressions(Match::Tcp), format!("{} {}", meta("10"), cmp(0, "06")));
        assert_eq!(expressions(Match::NotTcp), format!("{} {}", meta("10"), cmp(1, "06")));
        assert_eq!(expressions(Match::SocketUid(15100)), format!("{} {}", meta("0a"), cmp(0, "fc3a0000")));
        assert_eq!(expressions(Match::ToLoopback), format!("{} {}", meta("05"), cmp(0, "01000000")));
        assert_eq!(expressions(Match::FromLoopback), format!("{} {}", meta("04"), cmp(0, "01000000")));
    }

    #[test]
    fn destination_port() {
        let expected = format!("{} {} {} {}", meta("10"), cmp(0, "06"), payload(2, 2, 2), cmp(0, "0035"));
        assert_eq!(expressions(Match::DestinationPort(53)), expected);
    }

    #[test]
    fn destination_address_and_network() {
        let address = Match::DestinationNetwork("10.0.0.1".parse().expect("valid"));
        let v4 = format!("{} {} {}", meta("0f"), cmp(0, "02"), payload(1, 16, 4));
        assert_eq!(expressions(address), format!("{v4} {}", cmp(0, "0a000001")));

        let network = Match::DestinationNetwork("fd00::/9".parse().expect("valid"));
        let v6 = format!("{} {} {}", meta("0f"), cmp(0, "0a"), payload(1, 24, 16));
        let (zeros, mask) = ("00".repeat(16), format!("ff80{}", "00".repeat(14)));
        // "bitwise\0"
        let bitwise = "1=(1=6269747769736500 2=(1=00000001 2=00000001 3=00000010";
        let bitwise = format!("{bitwise} 4=(1={mask}) 5=(1={zeros})))");
        assert_eq!(
            expressions(network),
            format!("{v6} {bitwise} {}", cmp(0, &format!("fd{}", "00".repeat(15))))
        );
    }

    #[test]
    fn destination_type() {
        // "fib\0"
        let fib = "1=(1=66696200 2=(3=00000002 2=00000003 1=00000001))";
        assert_eq!(expressions(Match::DestinationLocal), format!("{fib} {}", cmp(0, "02000000")));
        assert_eq!(expressions(Match::DestinationElsewhere), format!("{fib} {}", cmp(1, "02000000")));
    }

    #[test]
    fn verdicts() {
        let verdict = |verdict| {
            let mut message = Message(Vec::new());
            message.verdict(verdict);
            tree(&message.0)
        };
        // "immediate\0" and "redir\0"
        let immediate = "1=(1=696d6d65646961746500 2=";
        assert_eq!(verdict(Verdict::Return), format!("{immediate}(1=00000000 2=(2=(1=fffffffb))))"));
        let redir = "1=(1=726564697200 2=(1=00000001))";
        let expected = format!("{immediate}(1=00000001 2=(1=3afd))) {redir}");
        assert_eq!(verdict(Verdict::Redirect(15101)), expected);
    }
}

proptest! {
    #[test]
    fn a_mask_has_as_many_ones_as_the_prefix_says(prefix in 0..=128u8) {
        let bits = mask(prefix, 16).try_into().map(u128::from_be_bytes).expect("sixteen bytes");
        prop_assert_eq!(bits.leading_ones(), u32::from(prefix));
        prop_assert_eq!(bits.count_ones(), u32::from(prefix));
    }
}
