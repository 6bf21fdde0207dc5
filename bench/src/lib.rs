//! The proxy and its peers side by side, on one machine.
//!
//! ```text
//!        core 1                     core 0                      core 1
//!   load ───────────▶ proxy under test (one at a time) ───────────▶ backend
//!    │  constant rate or closed loop      │                    canned answers
//!    └── reads the proxy's CPU time ──────┘
//! ```
//!
//! [`run`] starts one peer after another and has [`load`] measure it; [`report`] turns what came out into tables.
//! Load and backend speak just enough of the protocols to be cheap, and check every response: a wrong one makes
//! the measure fail. They run on Linux only: epoll, schedstat, pinning.
#![cfg(target_os = "linux")]

pub mod authority;
pub mod backend;
pub mod connection;
pub mod content;
pub mod cpu;
pub mod http1;
pub mod http2;
pub mod load;
pub mod machine;
pub mod measure;
pub mod peers;
pub mod poll;
pub mod process;
pub mod report;
pub mod run;
pub mod session;
