//! Group `route`: each condition and each action of a Route, asked of the node: from `kubectl apply` to the answer.
//!
//! Each test has a namespace of its own, so several run at a time.

mod actions;
mod conditions;
mod refusals;
mod retries;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use ferrule_e2e::{
    client::Client,
    shop::Shop,
    suite::{self, Test},
    wait::eventually,
    workload::report::Response,
};
use serde_json::{Value, json};

const AT_A_TIME: usize = 3;

fn main() -> ExitCode {
    suite::run_with(AT_A_TIME, "route", TESTS)
}

const TESTS: &[Test] = &[
    ("each_condition_chooses", conditions::each_condition_chooses),
    ("the_source_is_what_the_pod_is", conditions::the_source_is_what_the_pod_is),
    ("a_thousand_rules_of_a_service_hold", conditions::a_thousand_rules_of_a_service_hold),
    ("each_action_is_done", actions::each_action_is_done),
    ("faults_hit_their_share", actions::faults_hit_their_share),
    ("browsers_of_other_sites_are_answered", actions::browsers_of_other_sites_are_answered),
    ("retries_follow_the_rule", retries::retries_follow_the_rule),
    ("deadlines_are_kept_and_passed_on", retries::deadlines_are_kept_and_passed_on),
    ("what_contradicts_itself_is_refused_by_field", refusals::what_contradicts_itself_is_refused_by_field),
    ("what_only_the_operator_can_see_is_told", refusals::what_only_the_operator_can_see_is_told),
];

/// A place in the shop.
fn url(path: &str) -> String {
    format!("http://reviews:8080{path}")
}

/// A backend of this version.
fn backend(version: &str) -> Value {
    json!([{"name": format!("reviews-{version}"), "port": 8080}])
}

/// Applies a Route with these rules and one more, which makes known that it holds.
fn apply(shop: &Shop, client: &Client, rules: &[Value]) -> Result<()> {
    let mark = format!("/holds/{}", rules.len());
    let mut rules = rules.to_vec();
    rules.push(json!({
        "name": "mark", "matches": [{"path": {"exact": mark}}],
        "directResponse": {"statusCode": 200, "body": mark},
    }));
    shop.apply(&ferrule_e2e::shop::route(&json!(rules)).to_string())?;
    eventually("the Route holds", Duration::from_secs(10), || {
        let answer = client.once(&url(&mark), &[])?;
        ensure!(answer.body == mark, "{answer:?}");
        Ok(())
    })
}

/// One request, and who answered it.
fn expect_version(client: &Client, path: &str, options: &[&str], version: &str) -> Result<Response> {
    let response = client.once(&url(path), options)?;
    ensure!(
        response.status == 200 && response.header("x-version") == Some(version),
        "{path} {options:?} should be answered by {version}: {response:?}"
    );
    Ok(response)
}
