//! Group `main`: from a label and a Route to traffic that obeys them, and what happens when parts go away.
//!
//! One installation is shared; the tests run in the order given here, each in namespaces of its own.

mod faults;
mod identity;
mod injection;
mod installation;
mod propagation;
mod protocols;
mod roads;
mod routing;
mod validation;

use std::process::ExitCode;

use ferrule_e2e::suite::{self, Test};

fn main() -> ExitCode {
    suite::run("main", TESTS)
}

const TESTS: &[Test] = &[
    ("the_chart_lints_and_renders", installation::the_chart_lints_and_renders),
    ("two_operators_run_and_one_leads", installation::two_operators_run_and_one_leads),
    (
        "requests_pass_both_sidecars_and_are_counted_once",
        roads::requests_pass_both_sidecars_and_are_counted_once,
    ),
    ("applications_see_what_the_other_sent", roads::applications_see_what_the_other_sent),
    ("bodies_of_all_framings_arrive_whole", roads::bodies_of_all_framings_arrive_whole),
    ("a_pod_without_the_mesh_reaches_a_meshed_one", roads::a_pod_without_the_mesh_reaches_a_meshed_one),
    ("invalid_routes_are_refused_by_field", validation::invalid_routes_are_refused_by_field),
    (
        "invalid_balancer_policies_are_refused_by_field",
        validation::invalid_balancer_policies_are_refused_by_field,
    ),
    ("explain_reads_like_documentation", validation::explain_reads_like_documentation),
    (
        "a_route_without_target_is_not_accepted_and_others_work",
        validation::a_route_without_target_is_not_accepted_and_others_work,
    ),
    ("weights_split_requests", routing::weights_split_requests),
    ("headers_choose_the_version", routing::headers_choose_the_version),
    ("a_rule_changes_headers_and_bounds_time", routing::a_rule_changes_headers_and_bounds_time),
    (
        "a_change_is_in_force_everywhere_within_a_second",
        propagation::a_change_is_in_force_everywhere_within_a_second,
    ),
    ("tcp_passes_whoever_speaks_first", protocols::tcp_passes_whoever_speaks_first),
    ("an_ipv6_service_address_is_meshed", protocols::an_ipv6_service_address_is_meshed),
    (
        "pod_addresses_and_the_api_server_are_reachable",
        protocols::pod_addresses_and_the_api_server_are_reachable,
    ),
    ("a_job_ends", injection::a_job_ends),
    ("pods_are_injected_only_where_asked", injection::pods_are_injected_only_where_asked),
    ("a_bad_annotation_is_refused", injection::a_bad_annotation_is_refused),
    ("injected_pods_get_certificates", identity::injected_pods_get_certificates),
    ("scaling_loses_no_request", faults::scaling_loses_no_request),
    ("a_rolling_restart_loses_no_request", faults::a_rolling_restart_loses_no_request),
    (
        "without_the_operator_traffic_and_discovery_go_on",
        faults::without_the_operator_traffic_and_discovery_go_on,
    ),
    ("a_corrupted_config_map_is_mended", faults::a_corrupted_config_map_is_mended),
    ("a_proxy_keeps_its_last_good_configuration", faults::a_proxy_keeps_its_last_good_configuration),
    (
        "an_upgrade_updates_the_resource_definitions",
        installation::an_upgrade_updates_the_resource_definitions,
    ),
    ("uninstalling_leaves_pods_working", installation::uninstalling_leaves_pods_working),
    // Last: the cluster's own controllers need a while to find back after it.
    ("without_the_api_server_traffic_goes_on", faults::without_the_api_server_traffic_goes_on),
];
