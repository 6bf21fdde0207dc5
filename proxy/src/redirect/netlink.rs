//! The socket to nf_tables: one batch out, the kernel's answer in.
//!
//! The socket needs no address: an unconnected netlink socket sends to the kernel, which gives it a port id on
//! the first message.

use std::{
    io::{self, Read},
    time::Duration,
};

use socket2::Socket;

use super::{
    Error,
    encode::{self, Batch, HEADER_BYTES, NFT_MSG_NEWRULE},
};

/// nf_tables answers while it handles the request; this only keeps a surprise from hanging the pod for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// As large as the kernel makes a datagram of a dump.
const DATAGRAM_BYTES: usize = 32 * 1024;

/// From `linux/netlink.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Sends the batch and waits until the kernel has committed it.
pub(super) fn commit(batch: &Batch) -> Result<(), Error> {
    let socket = connect()?;
    // The kernel takes a batch in one datagram only. As far as the system's limit allows it, make room.
    let room = socket.set_send_buffer_size(batch.bytes.len() * 2);
    room.and_then(|()| socket.send(&batch.bytes)).map_err(|source| Error::Transport { source })?;
    loop {
        for answer in receive(&socket)? {
            let Answer::Status { sequence, error } = answer else { continue };
            if let Some(source) = error {
                let message =
                    batch.messages.get(sequence).cloned().unwrap_or_else(|| format!("message {sequence}"));
                return Err(Error::Refused { message, source });
            }
            if sequence == batch.acknowledged() {
                return Ok(());
            }
        }
    }
}

/// How many rules the kernel has in the table of this name and family `inet`.
pub(super) fn count_rules(table: &str) -> Result<usize, Error> {
    let socket = connect()?;
    socket.send(&encode::dump_rules(table)).map_err(|source| Error::Transport { source })?;
    let mut rules = 0;
    loop {
        for answer in receive(&socket)? {
            match answer {
                Answer::Rule => rules += 1,
                Answer::Status { error: Some(source), .. } => {
                    return Err(Error::Refused { message: format!("list table inet {table}"), source });
                }
                Answer::Status { error: None, .. } => {}
                Answer::Done => return Ok(rules),
            }
        }
    }
}

/// The cause that most likely lies behind an error, and what helps.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "the container needs uid 0 and the capability NET_ADMIN (securityContext.runAsUser: 0, \
             capabilities.add: [NET_ADMIN]); as another user the capability has no effect"
        }
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
            "the node's kernel lacks a part of nf_tables; load the modules nf_tables, nft_chain_nat, nft_redir, \
             nft_fib_inet and nf_nat on the node (Linux 5.2 or newer)"
        }
        Some(libc::EMSGSIZE) => {
            "there are more exclusions than fit into one transaction; name networks instead of single addresses, \
             or raise net.core.wmem_max on the node"
        }
        Some(libc::EBUSY) => "something else in this pod edits nftables at the same time; try again",
        Some(libc::EAGAIN) => "the kernel did not answer in time",
        _ => "see the kernel log of the node",
    }
}

fn connect() -> Result<Socket, Error> {
    let socket = open().map_err(|source| Error::Open { source })?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(|source| Error::Open { source })?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn open() -> io::Result<Socket> {
    use socket2::{Domain, Protocol, Type};

    let protocol = Protocol::from(libc::NETLINK_NETFILTER);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    Ok(socket)
}

#[cfg(not(target_os = "linux"))]
fn open() -> io::Result<Socket> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has nf_tables"))
}

/// What the kernel says.
enum Answer {
    /// A message was carried out, or not.
    Status { sequence: usize, error: Option<io::Error> },
    /// One rule of a dump.
    Rule,
    /// The dump is at its end.
    Done,
}

/// The answers of one datagram.
fn receive(mut socket: &Socket) -> Result<Vec<Answer>, Error> {
    let mut datagram = vec![0; DATAGRAM_BYTES];
    let length = socket.read(&mut datagram).map_err(|source| Error::Transport { source })?;
    Ok(parse(&datagram[..length]))
}

fn parse(mut datagram: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some(length) = number(datagram, 0) {
        let length = length as usize;
        let (Some(message), true) = (datagram.get(..length), length >= HEADER_BYTES) else { break };
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        match kind {
            NFT_MSG_NEWRULE => answers.push(Answer::Rule),
            NLMSG_DONE => answers.push(Answer::Done),
            NLMSG_ERROR => {
                // nlmsgerr: a negated errno, or 0 for "carried out".
                let code = number(message, HEADER_BYTES).unwrap_or_default().cast_signed();
                let error = (code != 0).then(|| io::Error::from_raw_os_error(code.wrapping_neg()));
                let sequence = number(message, 8).unwrap_or_default() as usize;
                answers.push(Answer::Status { sequence, error });
            }
            _ => {}
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// The number at this place, in the machine's byte order.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, sequence: u32, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + rest.len()).expect("short");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn an_error_carries_the_sequence_number_of_its_message() {
        let datagram = message(NLMSG_ERROR, 7, &(-libc::EPERM).to_ne_bytes());
        let answers = parse(&datagram);
        let [Answer::Status { sequence: 7, error: Some(error) }] = &answers[..] else {
            panic!("not one error of message 7");
        };
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn a_datagram_may_hold_several_answers() {
        let mut datagram = message(NFT_MSG_NEWRULE, 0, &[1, 2, 3, 4]);
        datagram.extend(message(NLMSG_ERROR, 3, &0i32.to_ne_bytes()));
        datagram.extend(message(NLMSG_DONE, 0, &[0; 4]));
        let answers = parse(&datagram);
        assert!(matches!(
            answers[..],
            [Answer::Rule, Answer::Status { sequence: 3, error: None }, Answer::Done]
        ));
    }

    #[test]
    fn a_refusal_names_message_cause_and_remedy() {
        let source = io::Error::from_raw_os_error(libc::EPERM);
        let text = Error::Refused { message: "add table inet ferrule".into(), source }.to_string();
        for part in ["add table inet ferrule", "not permitted", "NET_ADMIN"] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_makes_the_parser_panic(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
