//! Group `datapath`: whatever an application dials works through both sidecars as it does without them.
//!
//! Each test has namespaces of its own and changes nothing of the installation, so several run at a time.

mod addresses;
mod database;
mod dialled;
mod kept;
mod messages;
mod rollout;

use std::process::ExitCode;

use ferrule_e2e::suite::{self, Test};

/// Most of what the tests do is waiting.
const AT_A_TIME: usize = 4;

fn main() -> ExitCode {
    suite::run_with(AT_A_TIME, "datapath", TESTS)
}

const TESTS: &[Test] = &[
    // The longest first.
    ("five_hundred_connections_live_for_a_minute", kept::five_hundred_connections_live_for_a_minute),
    ("a_rollout_under_load_loses_nothing", rollout::a_rollout_under_load_loses_nothing),
    ("a_database_works_from_its_first_greeting", database::a_database_works_from_its_first_greeting),
    ("names_and_addresses_lead_where_they_say", addresses::names_and_addresses_lead_where_they_say),
    ("grpc_calls_of_every_kind_pass", messages::grpc_calls_of_every_kind_pass),
    ("websocket_messages_pass_both_ways", messages::websocket_messages_pass_both_ways),
    ("each_side_may_end_its_half_of_a_connection", kept::each_side_may_end_its_half_of_a_connection),
];
