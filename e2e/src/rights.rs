//! Who may do what in the cluster, by the chart and by the API server: `charts/rights.txt` is what was agreed to.
//!
//! ```text
//!   ACCOUNT           WHERE           GROUP  RESOURCE    NAME                 VERBS
//!   ferrule-operator  ferrule-system  -      secrets     ferrule-identity-ca  get list update watch
//! ```

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// What stands for a name that the user gives in the chart's values.
pub const GIVEN: &str = "(identity.authoritySecret)";
/// Who the service accounts of labelled namespaces are: sidecars have those of their pods.
const SIDECARS: &str = "sidecars";
/// The role that the operator binds, and not the chart.
const SIDECARS_ROLE: &str = "ferrule-proxy";

/// The lines of a table that rights are compared with; comments and empty lines are none.
#[must_use]
pub fn lines(table: &str) -> BTreeSet<String> {
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The same of roles and their bindings, whatever else is among the objects.
///
/// # Errors
/// For what a table has no line for: a role that nobody has, a wildcard, a URL.
pub fn table(objects: &[Value]) -> Result<BTreeSet<String>> {
    let mut verbs: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for role in objects.iter().filter(|object| matches!(kind(object), "Role" | "ClusterRole")) {
        let holders = holders(objects, role)?;
        for rule in role["rules"].as_array().into_iter().flatten() {
            ensure!(rule["nonResourceURLs"].is_null(), "{}: a right to URLs", name(role));
            let names = strings(&rule["resourceNames"]);
            let names = if names.is_empty() { vec!["-"] } else { names };
            for (holder, group, resource, name) in product(&holders, rule, &names) {
                let group = if group.is_empty() { "-" } else { group };
                let granted = strings(&rule["verbs"]);
                ensure!(![group, resource].contains(&"*") && !granted.contains(&"*"), "{rule}: a wildcard");
                verbs.entry(format!("{holder} {group} {resource} {name}")).or_default().extend(granted);
            }
        }
    }
    let line = |(right, verbs): (String, BTreeSet<&str>)| {
        format!("{right} {}", verbs.into_iter().collect::<Vec<_>>().join(" "))
    };
    Ok(verbs.into_iter().map(line).collect())
}

/// Account and where, of everybody who has a role.
fn holders(objects: &[Value], role: &Value) -> Result<BTreeSet<String>> {
    let mut holders = BTreeSet::new();
    for binding in objects {
        let place = match kind(binding) {
            "ClusterRoleBinding" => "cluster",
            "RoleBinding" => namespace(binding),
            _ => continue,
        };
        let to = &binding["roleRef"];
        let same_place = kind(role) == "ClusterRole" || namespace(role) == place;
        if to["kind"] != kind(role) || to["name"] != name(role) || !same_place {
            continue;
        }
        for subject in binding["subjects"].as_array().into_iter().flatten() {
            let account = match subject["kind"].as_str() {
                Some("ServiceAccount") => subject["name"].as_str().context("a subject has a name")?,
                Some("Group") if name(binding) == SIDECARS_ROLE => SIDECARS,
                _ => bail!("{} binds {subject}", name(binding)),
            };
            holders.insert(format!("{account} {place}"));
        }
    }
    if holders.is_empty() && name(role) == SIDECARS_ROLE {
        holders.insert(format!("{SIDECARS} cluster"));
    }
    ensure!(!holders.is_empty(), "{} {}: nobody has it", kind(role), name(role));
    Ok(holders)
}

fn product<'a>(
    holders: &'a BTreeSet<String>,
    rule: &'a Value,
    names: &'a [&'a str],
) -> Vec<(&'a str, &'a str, &'a str, &'a str)> {
    let mut all = Vec::new();
    for holder in holders {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                all.extend(names.iter().map(|name| (holder.as_str(), group, resource, *name)));
            }
        }
    }
    all
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::json;

    use super::*;

    /// Roles and bindings of the chart with every option turned on. Helm is not needed for these: they have conditions,
    /// and three kinds of values. The cluster tests compare the same table with what Helm has made of it.
    fn chart() -> Vec<Value> {
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/ferrule/templates");
        let mut objects = Vec::new();
        for entry in fs::read_dir(templates).expect("templates") {
            let text = fs::read_to_string(entry.expect("an entry").path()).expect("readable");
            for document in text.split("\n---\n") {
                let kinds = ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"];
                if !kinds.iter().any(|kind| document.lines().any(|line| line == format!("kind: {kind}"))) {
                    continue;
                }
                let lines = document.lines().filter(|line| !line.trim_start().starts_with("{{"));
                let lines = lines.filter(|line| !line.contains(": {{- "));
                let plain = lines.collect::<Vec<_>>().join("\n");
                let plain = plain.replace("{{ .Release.Namespace }}", "ferrule-system");
                let plain = plain.replace("{{ . }}", &format!("\"{GIVEN}\""));
                assert!(!plain.contains("{{"), "not understood: {plain}");
                objects
                    .push(serde_saphyr::from_str(&plain).unwrap_or_else(|error| panic!("{error}: {plain}")));
            }
        }
        objects
    }

    #[test]
    fn the_chart_grants_what_was_agreed_to_and_nothing_else() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/rights.txt");
        let agreed = lines(&fs::read_to_string(path).expect("charts/rights.txt"));
        let granted = table(&chart()).expect("a table");
        let new: Vec<_> = granted.difference(&agreed).collect();
        let gone: Vec<_> = agreed.difference(&granted).collect();
        assert!(
            new.is_empty() && gone.is_empty(),
            "charts/rights.txt is to change with the chart, and the change to be looked at.\ngranted and not agreed to: \
             {new:#?}\nagreed to and not granted: {gone:#?}"
        );
    }

    #[test]
    fn secrets_are_read_in_the_operator_s_namespace_alone_and_by_name() {
        for right in table(&chart()).expect("a table").iter().filter(|right| right.contains(" secrets ")) {
            let words: Vec<_> = right.split(' ').collect();
            assert_eq!(words[..4], ["ferrule-operator", "ferrule-system", "-", "secrets"], "{right}");
            assert!(words[4] != "-" || words[5..] == ["create"], "{right}");
        }
    }

    #[test]
    fn sidecars_change_nothing() {
        let granted = table(&chart()).expect("a table");
        let of_sidecars: Vec<_> = granted.iter().filter(|right| right.starts_with(SIDECARS)).collect();
        assert!(!of_sidecars.is_empty());
        for right in of_sidecars {
            let verbs: Vec<_> = right.split(' ').skip(5).collect();
            assert!(verbs.iter().all(|verb| ["get", "list", "watch"].contains(verb)), "{right}");
        }
    }

    fn granting(rule: Value) -> Result<BTreeSet<String>> {
        let role = json!({ "kind": "ClusterRole", "metadata": { "name": "r" }, "rules": [rule] });
        let binding = json!({
            "kind": "ClusterRoleBinding", "metadata": { "name": "b" },
            "roleRef": { "kind": "ClusterRole", "name": "r" },
            "subjects": [{ "kind": "ServiceAccount", "name": "a", "namespace": "x" }],
        });
        table(&[role, binding])
    }

    #[test]
    fn a_line_is_one_name_and_all_verbs() {
        let rule = json!({
            "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p", "q"], "verbs": ["list", "get"],
        });
        let expected = ["a cluster - pods p get list", "a cluster - pods q get list"];
        assert_eq!(granting(rule).expect("a table"), expected.map(str::to_owned).into());
    }

    #[test]
    fn what_no_line_can_say_is_refused() {
        let with = |groups: &str, resource: &str, verb: &str| {
            granting(json!({ "apiGroups": [groups], "resources": [resource], "verbs": [verb] }))
        };
        assert!(with("*", "pods", "get").is_err());
        assert!(with("", "*", "get").is_err());
        assert!(with("", "pods", "*").is_err());
        assert!(granting(json!({ "nonResourceURLs": ["/metrics"], "verbs": ["get"] })).is_err());
        let nobody = json!({ "kind": "ClusterRole", "metadata": { "name": "r" }, "rules": [] });
        assert!(table(&[nobody]).is_err());
    }
}
