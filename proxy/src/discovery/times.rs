//! How long discovery waits for what.

use std::time::Duration;

/// How long discovery waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// `FERRULE_LIMIT_DESTINATION_IDLE`: a destination that nobody uses for this long is dropped, with its watches.
    /// Default: 10 min. At least 1 s.
    pub idle: Duration,
    /// `FERRULE_DISCOVERY_CHECK`: time between two checks of all that is held against the API server's lists; it
    /// varies by a quarter either way. Default: 5 min. At least 1 s.
    pub check: Duration,
    /// How long a watch may lag behind such a list before that counts as news that were lost.
    pub grace: Duration,
    /// How long demand has to be the same before watches are joined.
    pub settle: Duration,
    /// A watch without a line for this long is begun again. The API server sends a bookmark a minute.
    pub quiet: Duration,
    /// A connection on which nothing came for `.0` is pinged, and dead when that is not answered within `.1`.
    pub ping: (Duration, Duration),
    /// Longest time for connecting to the API server, TLS included.
    pub connect: Duration,
    /// Longest time without a byte of an answer.
    pub answer: Duration,
    /// First and longest pause after an error.
    pub backoff: (Duration, Duration),
}

impl Default for Times {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(600),
            check: Duration::from_secs(300),
            grace: Duration::from_secs(2),
            settle: Duration::from_secs(2),
            quiet: Duration::from_secs(90),
            ping: (Duration::from_secs(10), Duration::from_secs(10)),
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            backoff: (Duration::from_millis(200), Duration::from_secs(5)),
        }
    }
}
