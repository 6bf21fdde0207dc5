//! Regular expressions that users write, bounded so that no request can make one expensive.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = 512;
/// Largest program that a pattern may compile to, in bytes. What a search costs is bounded by it times the text.
const MAX_PROGRAM: usize = 64 * 1024;
/// What a search may keep of what it has found out so far, in bytes; beyond it a search gets slower, not larger.
const MAX_CACHE: usize = 64 * 1024;
/// Groups within groups.
const MAX_DEPTH: u32 = 32;

/// A regular expression for a whole text: `a|b` matches `a` and `b`, and not `ab`.
///
/// The syntax is that of the crate `regex`, which is RE2's but for details: no look-around and no back-references, and
/// for that a search takes time in proportion to the text. It matches octets: `.` is any but a line feed, and classes
/// like `\w` are ASCII's.
#[derive(Clone)]
pub struct Pattern(Regex);

/// Why a text is no [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// It is empty, or longer than [`MAX_PATTERN`].
    #[error("a regular expression has 1 to {MAX_PATTERN} characters")]
    Length,
    /// It is no regular expression, or asks for what there is not.
    #[error("not a regular expression: {0}")]
    Syntax(String),
    /// It stands for too much: large repetitions within each other, most likely.
    #[error("this regular expression is too large when it is compiled; repeat less")]
    Large,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(PatternError::Length);
        }
        // Alone first: `a)|(?:b` would else get out of what ties it to both ends of the text.
        build(text)?;
        build(&format!(r"\A(?:{text})\z")).map(Self)
    }

    /// Whether the whole text is as the pattern says.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.0.as_str()).finish()
    }
}

fn build(text: &str) -> Result<Regex, PatternError> {
    let built = RegexBuilder::new(text)
        .unicode(false)
        .size_limit(MAX_PROGRAM)
        .dfa_size_limit(MAX_CACHE)
        .nest_limit(MAX_DEPTH)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => PatternError::Large,
        // It draws the place on several lines; the last one says what is wrong.
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            PatternError::Syntax(last.trim_start_matches("error: ").to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).expect("a pattern").matches(text.as_bytes())
    }

    #[test]
    fn a_pattern_is_for_the_whole_text() {
        assert!(matches("/a|/b", "/a") && matches("/a|/b", "/b"));
        assert!(!matches("/a|/b", "/ab") && !matches("/a", "/a/b") && !matches("/a", "x/a"));
        assert!(!matches("(?m)/a", "/a\n/b"), "lines are no way around it");
        assert!(matches(r"/items/[0-9]+(/.*)?", "/items/42/parts") && !matches(r"/items/[0-9]+", "/items/x"));
    }

    #[test]
    fn no_pattern_gets_out_of_what_ties_it_to_both_ends() {
        for escape in ["a)|(?:b", "a)(b", "(?x)a # b"] {
            assert!(matches!(Pattern::new(escape), Err(PatternError::Syntax(_))), "{escape}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_a_line() {
        let syntax = |text: &str| Pattern::new(text).expect_err("no pattern").to_string();
        assert_eq!(syntax("a("), "not a regular expression: unclosed group");
        assert!(syntax("(?=a)").contains("look-around"), "{}", syntax("(?=a)"));
        assert!(syntax(r"(a)\1").contains("backreferences"), "{}", syntax(r"(a)\1"));
        assert_eq!(Pattern::new("").expect_err("empty"), PatternError::Length);
        assert_eq!(Pattern::new(&"a".repeat(MAX_PATTERN + 1)).expect_err("long"), PatternError::Length);
        assert_eq!(Pattern::new("((a{0,100}){0,100}){0,100}").expect_err("large"), PatternError::Large);
        assert!(Pattern::new(&"(".repeat(100)).is_err());
    }

    #[test]
    fn a_search_takes_no_longer_for_a_nasty_pattern() {
        let pattern = Pattern::new("(a+)+b|(a|a)*c|(.*)*d").expect("a pattern");
        let text = "a".repeat(16 * 1024);
        let begun = Instant::now();
        for _ in 0..10 {
            assert!(!pattern.matches(text.as_bytes()));
        }
        assert!(
            begun.elapsed().as_secs() < 5,
            "it would take longer than the world lasts if it tried each way"
        );
    }
}
