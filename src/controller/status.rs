//! From findings to `status.conditions`: pure.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::compile::{ConditionType, Verdict};

/// Longest message that the schema takes.
const MESSAGE_CHARACTERS: usize = 32_768;

/// The operator's conditions of an object as they should be, or `None` if they are so already. Conditions of
/// types that are not the operator's are left out: server-side apply leaves them alone.
///
/// `lastTransitionTime` changes with the status alone, not with reason or message (Kubernetes API conventions,
/// "Typical status properties").
#[must_use]
pub fn merge(existing: &[Condition], verdict: &Verdict, now: Timestamp) -> Option<Vec<Condition>> {
    let wanted: Vec<Condition> = verdict
        .findings
        .iter()
        .map(|finding| {
            let type_ = finding.condition.as_str();
            let status = if finding.holds { "True" } else { "False" };
            let before = existing.iter().find(|condition| condition.type_ == type_);
            let since = before
                .filter(|before| before.status == status)
                .map(|before| before.last_transition_time.clone());
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: finding.reason.as_str().to_owned(),
                message: finding.message.chars().take(MESSAGE_CHARACTERS).collect(),
                observed_generation: Some(verdict.generation),
                last_transition_time: since.unwrap_or(Time(now)),
            }
        })
        .collect();
    let same = existing.iter().filter(is_ours).count() == wanted.len()
        && wanted.iter().all(|condition| existing.contains(condition));
    (!same).then_some(wanted)
}

/// The operator's conditions of an object as they are.
#[must_use]
pub fn kept(existing: &[Condition]) -> Vec<Condition> {
    existing.iter().filter(is_ours).cloned().collect()
}

fn is_ours(condition: &&Condition) -> bool {
    ConditionType::ALL.iter().any(|ours| ours.as_str() == condition.type_)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{
        compile::{Finding, Reason},
        observe::Kind,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a valid second")
    }

    fn verdict(generation: i64, holds: bool, message: &str) -> Verdict {
        let finding = Finding {
            condition: ConditionType::Accepted,
            holds,
            reason: if holds { Reason::Accepted } else { Reason::TargetNotFound },
            message: message.into(),
        };
        Verdict {
            kind: Kind::Route,
            name: "r".into(),
            uid: None,
            generation,
            findings: vec![finding],
            mesh_tls: None,
        }
    }

    #[test]
    fn a_first_condition_starts_now() {
        let conditions = merge(&[], &verdict(1, true, "ok"), at(7)).expect("new");
        assert_eq!(conditions[0].last_transition_time, Time(at(7)));
        assert_eq!(conditions[0].observed_generation, Some(1));
        assert_eq!((conditions[0].type_.as_str(), conditions[0].status.as_str()), ("Accepted", "True"));
    }

    #[test]
    fn what_is_already_so_is_not_written_again() {
        let conditions = merge(&[], &verdict(1, true, "ok"), at(7)).expect("new");
        assert_eq!(merge(&conditions, &verdict(1, true, "ok"), at(8)), None);
    }

    #[test]
    fn a_new_generation_or_message_keeps_the_transition_time() {
        let before = merge(&[], &verdict(1, true, "ok"), at(7)).expect("new");
        let after = merge(&before, &verdict(2, true, "still"), at(8)).expect("changed");
        assert_eq!(after[0].last_transition_time, Time(at(7)));
        assert_eq!(after[0].observed_generation, Some(2));
    }

    #[test]
    fn a_new_status_has_a_new_transition_time() {
        let before = merge(&[], &verdict(1, true, "ok"), at(7)).expect("new");
        let after = merge(&before, &verdict(1, false, "gone"), at(8)).expect("changed");
        assert_eq!(after[0].last_transition_time, Time(at(8)));
    }

    #[test]
    fn conditions_of_others_are_neither_written_nor_a_reason_to_write() {
        let mut conditions = merge(&[], &verdict(1, true, "ok"), at(7)).expect("new");
        let foreign = Condition { type_: "example.com/Seen".into(), ..conditions[0].clone() };
        conditions.push(foreign);
        assert_eq!(merge(&conditions, &verdict(1, true, "ok"), at(8)), None);
        let after = merge(&conditions, &verdict(2, true, "ok"), at(8)).expect("changed");
        assert_eq!(after.len(), 1);
    }

    #[test]
    fn a_condition_that_is_no_longer_ours_is_taken_back() {
        let mut conditions = merge(&[], &verdict(1, true, "ok"), at(7)).expect("new");
        conditions.push(Condition { type_: "Enforced".into(), ..conditions[0].clone() });
        let after = merge(&conditions, &verdict(1, true, "ok"), at(8)).expect("changed");
        assert_eq!(after.len(), 1);
    }
}
