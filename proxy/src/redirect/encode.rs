//! Rules as a batch of netlink messages.
//!
//! Layout: every message is `nlmsghdr`, `nfgenmsg`, attributes; an attribute is length, type, value, padded to
//! four bytes, and its value may be attributes again. Headers are in the machine's byte order, numbers in
//! attributes in network byte order, and what is loaded into a register as the packet or the kernel has it.
//! Source: `linux/netlink.h`, `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`; the constants
//! below carry their names from there, and are written out so that this module builds on any system.

use std::net::IpAddr;

use super::{
    config::Network,
    rules::{Chain, Hook, Match, Rule, Table, Verdict},
};

const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_DELTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 2;
const NFT_MSG_NEWCHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 3;
pub(super) const NFT_MSG_NEWRULE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 6;
const NFT_MSG_GETRULE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 7;

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_LOCAL_OUT: u32 = 3;
const NF_IP_PRI_NAT_DST: i32 = -100;
const NF_ACCEPT: u32 = 1;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFT_RETURN: i32 = -5;

/// The register that holds a verdict, and the one that every expression here loads, changes or compares.
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;

const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFT_META_IIF: u32 = 4;
const NFT_META_OIF: u32 = 5;
const NFT_META_SKUID: u32 = 10;
const NFT_META_NFPROTO: u32 = 15;
const NFT_META_L4PROTO: u32 = 16;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 2;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;

const IPPROTO_TCP: u8 = 6;
const RTN_LOCAL: u32 = 2;
/// The kernel gives this index to the loopback interface of every network namespace.
const LOOPBACK_IFINDEX: u32 = 1;

/// Sizes of `nlmsghdr`, which every message starts with, and of an attribute's length and type.
pub(super) const HEADER_BYTES: usize = 16;
const ATTRIBUTE_BYTES: usize = 4;

/// Messages that the kernel takes as one transaction: all of them, or none.
pub(super) struct Batch {
    /// What goes to the kernel, in one datagram.
    pub(super) bytes: Vec<u8>,
    /// Each message as `nft` would write it; its place is its sequence number.
    pub(super) messages: Vec<String>,
}

impl Batch {
    /// Sequence number of the message whose acknowledgement proves that the transaction is committed: the last
    /// one before the end. The kernel answers in order, so that any error comes before it.
    pub(super) fn acknowledged(&self) -> usize {
        self.messages.len() - 2
    }
}

/// The transaction that replaces whatever table of this name there is. It is created before it is deleted,
/// because deleting one that does not exist is an error.
pub(super) fn batch(table: &Table) -> Batch {
    let Table { name, chains } = table;
    let rules = || chains.iter().flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)));
    let add = format!("add table inet {name}");
    let mut messages = vec![
        (add.clone(), name_table(NFT_MSG_NEWTABLE, NLM_F_CREATE, name)),
        (format!("delete table inet {name}"), name_table(NFT_MSG_DELTABLE, 0, name)),
        (add, name_table(NFT_MSG_NEWTABLE, NLM_F_CREATE, name)),
    ];
    messages.extend(chains.iter().map(|chain| {
        let label = format!("add chain inet {name} {} type nat hook {}", chain.name, chain.hook);
        (label, new_chain(name, chain))
    }));
    messages.extend(rules().map(|(chain, rule)| {
        let label = format!("add rule inet {name} {} {rule}", chain.name);
        (label, new_rule(name, &chain.name, rule))
    }));
    if let Some((_, last)) = messages.last_mut() {
        last.add_flags(NLM_F_ACK);
    }
    messages.insert(0, ("begin".into(), bound(NFNL_MSG_BATCH_BEGIN)));
    messages.push(("commit".into(), bound(NFNL_MSG_BATCH_END)));

    let mut batch = Batch { bytes: Vec::new(), messages: Vec::new() };
    for (sequence, (label, message)) in (0..).zip(messages) {
        batch.bytes.extend(message.finish(sequence));
        batch.messages.push(label);
    }
    batch
}

/// The question for all rules of a table.
pub(super) fn dump_rules(table: &str) -> Vec<u8> {
    let mut message = Message::new(NFT_MSG_GETRULE, NLM_F_DUMP, NFPROTO_INET, 0);
    message.text(NFTA_RULE_TABLE, table);
    message.finish(0)
}

fn bound(kind: u16) -> Message {
    Message::new(kind, 0, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES)
}

fn name_table(kind: u16, flags: u16, name: &str) -> Message {
    let mut message = Message::new(kind, flags, NFPROTO_INET, 0);
    message.text(NFTA_TABLE_NAME, name);
    message
}

fn new_chain(table: &str, chain: &Chain) -> Message {
    let hook = match chain.hook {
        Hook::Prerouting => NF_INET_PRE_ROUTING,
        Hook::Output => NF_INET_LOCAL_OUT,
    };
    let mut message = Message::new(NFT_MSG_NEWCHAIN, NLM_F_CREATE, NFPROTO_INET, 0);
    message.text(NFTA_CHAIN_TABLE, table);
    message.text(NFTA_CHAIN_NAME, &chain.name);
    message.nested(NFTA_CHAIN_HOOK, |message| {
        message.number(NFTA_HOOK_HOOKNUM, hook);
        message.number(NFTA_HOOK_PRIORITY, NF_IP_PRI_NAT_DST.cast_unsigned());
    });
    message.number(NFTA_CHAIN_POLICY, NF_ACCEPT);
    message.text(NFTA_CHAIN_TYPE, "nat");
    message
}

fn new_rule(table: &str, chain: &str, rule: &Rule) -> Message {
    let mut message = Message::new(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, NFPROTO_INET, 0);
    message.text(NFTA_RULE_TABLE, table);
    message.text(NFTA_RULE_CHAIN, chain);
    message.nested(NFTA_RULE_EXPRESSIONS, |message| {
        message.matches(&rule.matches);
        message.verdict(rule.verdict);
    });
    message
}

/// A message under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, family: u8, resource: u16) -> Self {
        // nlmsghdr: length and sequence number are known at the end; port id 0 is the kernel.
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        // nfgenmsg: family, version 0, resource.
        bytes.extend([family, 0]);
        bytes.extend(resource.to_be_bytes());
        Self(bytes)
    }

    fn add_flags(&mut self, flags: u16) {
        let old = u16::from_ne_bytes([self.0[6], self.0[7]]);
        self.0[6..8].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("a message holds one rule, far below 4 GiB");
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }

    fn attribute(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; ATTRIBUTE_BYTES]);
        fill(self);
        let length =
            u16::try_from(self.0.len() - start).expect("an attribute holds one rule, far below 64 KiB");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.attribute(kind | NLA_F_NESTED, fill);
    }

    fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |message| message.0.extend(value));
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |message| {
            message.0.extend(value.as_bytes());
            message.0.push(0);
        });
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn matches(&mut self, matches: &Match) {
        match matches {
            Match::Tcp => self.protocol(NFT_CMP_EQ),
            Match::NotTcp => self.protocol(NFT_CMP_NEQ),
            Match::SocketUid(uid) => {
                self.load_meta(NFT_META_SKUID);
                self.compare(NFT_CMP_EQ, &uid.to_ne_bytes());
            }
            Match::ToLoopback => {
                self.load_meta(NFT_META_OIF);
                self.compare(NFT_CMP_EQ, &LOOPBACK_IFINDEX.to_ne_bytes());
            }
            Match::FromLoopback => {
                self.load_meta(NFT_META_IIF);
                self.compare(NFT_CMP_EQ, &LOOPBACK_IFINDEX.to_ne_bytes());
            }
            Match::DestinationLocal => self.destination_is_local(NFT_CMP_EQ),
            Match::DestinationElsewhere => self.destination_is_local(NFT_CMP_NEQ),
            Match::DestinationPort(port) => {
                self.protocol(NFT_CMP_EQ);
                self.load_payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
                self.compare(NFT_CMP_EQ, &port.to_be_bytes());
            }
            Match::DestinationNetwork(network) => self.destination_in(*network),
        }
    }

    fn verdict(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Return => self.expression("immediate", |message| {
                message.number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
                message.nested(NFTA_IMMEDIATE_DATA, |message| {
                    message.nested(NFTA_DATA_VERDICT, |message| {
                        message.number(NFTA_VERDICT_CODE, NFT_RETURN.cast_unsigned());
                    });
                });
            }),
            Verdict::Redirect(port) => {
                self.expression("immediate", |message| {
                    message.number(NFTA_IMMEDIATE_DREG, NFT_REG_1);
                    message.data(NFTA_IMMEDIATE_DATA, &port.to_be_bytes());
                });
                self.expression("redir", |message| message.number(NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1));
            }
        }
    }

    fn protocol(&mut self, operator: u32) {
        self.load_meta(NFT_META_L4PROTO);
        self.compare(operator, &[IPPROTO_TCP]);
    }

    fn destination_is_local(&mut self, operator: u32) {
        self.expression("fib", |message| {
            message.number(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
            message.number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
            message.number(NFTA_FIB_DREG, NFT_REG_1);
        });
        self.compare(operator, &RTN_LOCAL.to_ne_bytes());
    }

    fn destination_in(&mut self, network: Network) {
        // Where an IP header has its destination: RFC 791 §3.1, RFC 8200 §3.
        let (family, offset, address) = match network.address() {
            IpAddr::V4(v4) => (NFPROTO_IPV4, 16, v4.octets().to_vec()),
            IpAddr::V6(v6) => (NFPROTO_IPV6, 24, v6.octets().to_vec()),
        };
        let length = u32::from(network.bits() / 8);
        self.load_meta(NFT_META_NFPROTO);
        self.compare(NFT_CMP_EQ, &[family]);
        self.load_payload(NFT_PAYLOAD_NETWORK_HEADER, offset, length);
        if network.prefix() < network.bits() {
            self.expression("bitwise", |message| {
                message.number(NFTA_BITWISE_SREG, NFT_REG_1);
                message.number(NFTA_BITWISE_DREG, NFT_REG_1);
                message.number(NFTA_BITWISE_LEN, length);
                message.data(NFTA_BITWISE_MASK, &mask(network.prefix(), address.len()));
                message.data(NFTA_BITWISE_XOR, &vec![0; address.len()]);
            });
        }
        self.compare(NFT_CMP_EQ, &address);
    }

    fn load_meta(&mut self, key: u32) {
        self.expression("meta", |message| {
            message.number(NFTA_META_KEY, key);
            message.number(NFTA_META_DREG, NFT_REG_1);
        });
    }

    fn load_payload(&mut self, base: u32, offset: u32, length: u32) {
        self.expression("payload", |message| {
            message.number(NFTA_PAYLOAD_DREG, NFT_REG_1);
            message.number(NFTA_PAYLOAD_BASE, base);
            message.number(NFTA_PAYLOAD_OFFSET, offset);
            message.number(NFTA_PAYLOAD_LEN, length);
        });
    }

    fn compare(&mut self, operator: u32, value: &[u8]) {
        self.expression("cmp", |message| {
            message.number(NFTA_CMP_SREG, NFT_REG_1);
            message.number(NFTA_CMP_OP, operator);
            message.data(NFTA_CMP_DATA, value);
        });
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.nested(NFTA_LIST_ELEM, |message| {
            message.text(NFTA_EXPR_NAME, name);
            message.nested(NFTA_EXPR_DATA, fill);
        });
    }

    fn data(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.bytes(NFTA_DATA_VALUE, value));
    }
}

/// This many bytes whose first `prefix` bits are set.
fn mask(prefix: u8, bytes: usize) -> Vec<u8> {
    let whole = usize::from(prefix / 8);
    let partial = !(0xffu8 >> (prefix % 8));
    let all = std::iter::repeat_n(0xff, whole).chain([partial]).chain(std::iter::repeat(0));
    all.take(bytes).collect()
}

#[cfg(test)]
mod tests;
