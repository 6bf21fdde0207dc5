//! When a request is sent again, from what users write to what proxies read.

use ferrule_config::{Backoff, Duration, MAX_RETRIES, Retry, RetryBudget, RetryOn, Timeouts};

use crate::api::route;

use super::{
    act,
    header::{Invalid, invalid},
};

/// Most that may be waited before another attempt, and bounds of a budget's window.
const MAX_BACKOFF: Duration = Duration::from_millis(60_000);
const WINDOW: (Duration, Duration) = (Duration::from_millis(1000), Duration::from_millis(60_000));
/// Most retries a second that a budget has in any case.
const MAX_PER_SECOND: u32 = 1000;

/// When a request is sent again, of a rule with these time limits.
pub(super) fn retry(
    retry: Option<&route::Retry>,
    timeouts: &Timeouts,
    field: &str,
) -> Result<Option<Retry>, Invalid> {
    let Some(retry) = retry else { return Ok(None) };
    let route::Retry { attempts, per_try_timeout, on, codes, grpc_codes, backoff, budget, non_idempotent } =
        retry;
    if *attempts > MAX_RETRIES {
        return Err(invalid(format!("{field}.attempts"), format!("must be 0 to {MAX_RETRIES}")));
    }
    let per_try_timeout = per_try_timeout.filter(|limit| !limit.is_zero());
    if let (Some(all), Some(one)) = (timeouts.request, per_try_timeout)
        && one > all
    {
        let problem = format!("{one} must not exceed the {all} of timeouts.request");
        return Err(invalid(format!("{field}.perTryTimeout"), problem));
    }
    for (index, code) in codes.iter().enumerate() {
        if !matches!(code, 429 | 500..=599) {
            return Err(invalid(
                format!("{field}.codes[{index}]"),
                format!("{code} must be 429 or 500 to 599"),
            ));
        }
    }
    if !grpc_codes.is_empty() && !non_idempotent {
        let problem = "calls of gRPC are POST requests that may have been processed; say nonIdempotent: true if they \
                       may be sent again";
        return Err(invalid(format!("{field}.grpcCodes"), problem));
    }
    let mut grpc = Vec::with_capacity(grpc_codes.len());
    for (index, name) in grpc_codes.iter().enumerate() {
        grpc.push(act::grpc_status(name, &format!("{field}.grpcCodes[{index}]"))?);
    }
    Ok(Some(Retry {
        attempts: *attempts,
        per_try_timeout,
        on: on.iter().copied().map(condition).collect(),
        codes: codes.clone(),
        grpc_codes: grpc,
        backoff: backoff.map(|backoff| self::backoff(backoff, field)).transpose()?,
        budget: budget.map(|budget| self::budget(budget, field)).transpose()?,
        non_idempotent: *non_idempotent,
    }))
}

fn condition(on: route::RetryOn) -> RetryOn {
    match on {
        route::RetryOn::ConnectFailure => RetryOn::ConnectFailure,
        route::RetryOn::Refused => RetryOn::Refused,
        route::RetryOn::Reset => RetryOn::Reset,
        route::RetryOn::Timeout => RetryOn::Timeout,
    }
}

fn backoff(route::Backoff { base, max }: route::Backoff, field: &str) -> Result<Backoff, Invalid> {
    if base > max {
        return Err(invalid(format!("{field}.backoff.base"), format!("{base} must not exceed max, {max}")));
    }
    if max > MAX_BACKOFF {
        return Err(invalid(format!("{field}.backoff.max"), format!("{max} must be at most {MAX_BACKOFF}")));
    }
    Ok(Backoff { base, max })
}

fn budget(budget: route::RetryBudget, field: &str) -> Result<RetryBudget, Invalid> {
    let route::RetryBudget { percent, min_per_second, window } = budget;
    if min_per_second > MAX_PER_SECOND {
        let problem = format!("must be 0 to {MAX_PER_SECOND}");
        return Err(invalid(format!("{field}.budget.minPerSecond"), problem));
    }
    if window < WINDOW.0 || window > WINDOW.1 {
        let problem = format!("{window} must be {} to {}", WINDOW.0, WINDOW.1);
        return Err(invalid(format!("{field}.budget.window"), problem));
    }
    Ok(RetryBudget { share: percent.hundredths(), min_per_second, window })
}
