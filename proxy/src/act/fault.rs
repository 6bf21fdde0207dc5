//! Faults for a share of the requests.

use std::time::Duration;

use ferrule_config::{self as config, FaultStatus};

use super::{Answer, single};
use crate::route::Request;

/// The whole, in hundredths of a percent.
const ALL: u32 = 10_000;

#[derive(Debug)]
pub(super) struct Fault {
    delay: Option<(u32, Duration)>,
    abort: Option<(u32, FaultStatus)>,
}

impl Fault {
    pub fn new(fault: &config::Fault) -> Self {
        let config::Fault { delay, abort } = fault;
        Self {
            delay: delay.as_ref().map(|delay| (u32::from(delay.share), delay.time.get())),
            abort: abort.as_ref().map(|abort| (u32::from(abort.share), abort.status)),
        }
    }

    /// How long a request is delayed.
    pub fn delay(&self, random: &mut impl FnMut(u32) -> u32) -> Option<Duration> {
        self.delay.filter(|(share, _)| hits(*share, random)).map(|(_, time)| time)
    }

    /// The error that a request is answered with.
    pub fn abort(&self, request: &Request<'_>, random: &mut impl FnMut(u32) -> u32) -> Option<Answer> {
        let (_, status) = self.abort.filter(|(share, _)| hits(*share, random))?;
        Some(match status {
            FaultStatus::Http(status) => Answer::fault(status, None),
            FaultStatus::Grpc(code) => {
                let content = single(request, "content-type");
                if content.is_some_and(|content| content.starts_with(b"application/grpc")) {
                    Answer::fault(200, Some(code))
                } else {
                    Answer::fault(http_status(code), None)
                }
            }
        })
    }
}

fn hits(share: u32, random: &mut impl FnMut(u32) -> u32) -> bool {
    share >= ALL || random(ALL) < share
}

/// The status of HTTP that stands for one of gRPC (google.rpc.Code).
fn http_status(code: u8) -> u16 {
    match code {
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Field;

    fn abort(share: u16, status: FaultStatus) -> Fault {
        Fault::new(&config::Fault { delay: None, abort: Some(config::Abort { share, status }) })
    }

    #[test]
    fn exactly_the_share_is_hit() {
        let fault = abort(25, FaultStatus::Http(503));
        let hit = (0..ALL).filter(|point| fault.abort(&Request::default(), &mut |_| *point).is_some());
        assert_eq!(hit.count(), 25);
        let nobody = abort(0, FaultStatus::Http(503));
        assert!(nobody.abort(&Request::default(), &mut |_| 0).is_none());
        let all = abort(10_000, FaultStatus::Http(503));
        assert!(all.abort(&Request::default(), &mut |_| panic!("no chance about it")).is_some());
    }

    #[test]
    fn each_is_answered_in_its_own_language() {
        let fault = abort(10_000, FaultStatus::Grpc(14));
        let call = [Field { name: "content-type", value: b"application/grpc+proto" }];
        let answer = |fields| {
            let request = Request { fields, ..Request::default() };
            fault.abort(&request, &mut |_| 0).expect("an answer")
        };
        let to_grpc = answer(&call);
        assert_eq!((to_grpc.status, to_grpc.grpc, to_grpc.body.as_str()), (200, Some(14), ""));
        assert_eq!((answer(&[]).status, answer(&[]).grpc), (503, None));
    }
}
