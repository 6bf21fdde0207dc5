//! What the user is told: each statement once, when it becomes true, and again when it changes.

use std::collections::BTreeMap;

/// Statements by their subject.
pub type Statements = BTreeMap<String, Statement>;

/// One line about one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// The object is in force.
    Accepted,
    /// It is not, or not all of it.
    Refused(String),
    /// A file cannot be used as it is.
    Problem(String),
    /// Something that may be meant so, and may be not.
    Note(String),
}

/// Lines for what is new in `now`, in the order of their subjects.
#[must_use]
pub fn changes(before: &Statements, now: &Statements) -> Vec<String> {
    let gone = before.iter().filter(|(subject, _)| !now.contains_key(*subject));
    let gone = gone.filter_map(|(subject, statement)| match statement {
        Statement::Accepted | Statement::Refused(_) => Some(format!("removed   {subject}")),
        Statement::Problem(_) => Some(format!("repaired  {subject}")),
        Statement::Note(_) => None,
    });
    let new = now.iter().filter(|(subject, statement)| before.get(*subject) != Some(statement));
    gone.chain(new.map(|(subject, statement)| match statement {
        Statement::Accepted => format!("accepted  {subject}"),
        Statement::Refused(reason) => format!("refused   {subject}: {reason}"),
        Statement::Problem(problem) => format!("error     {problem}"),
        Statement::Note(note) => format!("note      {note}"),
    }))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let before = Statements::from([
            ("Route a".into(), Statement::Accepted),
            ("Route b".into(), Statement::Refused("NoSuchService: x".into())),
            ("Route c".into(), Statement::Accepted),
            ("a.yaml".into(), Statement::Problem("a.yaml:1:1: broken".into())),
        ]);
        let now = Statements::from([
            ("Route a".into(), Statement::Accepted),
            ("Route b".into(), Statement::Accepted),
            ("b.yaml".into(), Statement::Problem("b.yaml:1:1: broken".into())),
        ]);
        assert_eq!(
            changes(&before, &now),
            ["removed   Route c", "repaired  a.yaml", "accepted  Route b", "error     b.yaml:1:1: broken"]
        );
        assert!(changes(&now, &now).is_empty());
    }
}
