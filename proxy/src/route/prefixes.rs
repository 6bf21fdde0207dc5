//! Prefixes of paths, by segment: a walk along a path finds all that match it, whatever their number.

use std::collections::HashMap;

/// A tree of segments. Each node stands for a prefix.
#[derive(Debug)]
pub(super) struct Prefixes<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    /// By the next segment.
    children: HashMap<Box<str>, usize>,
    value: Option<T>,
    /// The nearest node above that has a value.
    above: Option<usize>,
}

impl<T> Prefixes<T> {
    /// Of prefixes without a slash at the end, each once. The empty one is that of every path.
    pub fn new(values: impl IntoIterator<Item = (Box<str>, T)>) -> Self {
        let mut prefixes = Self { nodes: vec![Node { children: HashMap::new(), value: None, above: None }] };
        for (prefix, value) in values {
            let mut at = 0;
            for segment in segments(&prefix) {
                let next = prefixes.nodes.len();
                at = *prefixes.nodes[at].children.entry(segment.into()).or_insert(next);
                if at == next {
                    prefixes.nodes.push(Node { children: HashMap::new(), value: None, above: None });
                }
            }
            prefixes.nodes[at].value = Some(value);
        }
        prefixes.link(0, None);
        prefixes
    }

    fn link(&mut self, root: usize, above: Option<usize>) {
        // Not by recursion: a prefix may have hundreds of segments.
        let mut rest = vec![(root, above)];
        while let Some((at, above)) = rest.pop() {
            self.nodes[at].above = above;
            let above = if self.nodes[at].value.is_some() { Some(at) } else { above };
            rest.extend(self.nodes[at].children.values().map(|&child| (child, above)));
        }
    }

    /// Values of all prefixes of a path, the longest first.
    pub fn of(&self, path: &str) -> impl Iterator<Item = &T> {
        let mut at = 0;
        for segment in segments(path) {
            match self.nodes[at].children.get(segment) {
                Some(&child) => at = child,
                None => break,
            }
        }
        let first = if self.nodes[at].value.is_some() { Some(at) } else { self.nodes[at].above };
        std::iter::successors(first, |&at| self.nodes[at].above)
            .filter_map(|at| self.nodes[at].value.as_ref())
    }
}

/// The segments of a path; none of what is no path, such as `*`.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').into_iter().flat_map(|path| path.split('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_prefixes_of_a_path_are_found_the_longest_first() {
        let all = ["", "/a", "/a/b/c", "/ab", "/a//b"];
        let prefixes = Prefixes::new(all.map(|prefix| (prefix.into(), prefix)));
        let of = |path: &str| prefixes.of(path).copied().collect::<Vec<_>>();
        assert_eq!(of("/a/b/c/d"), ["/a/b/c", "/a", ""]);
        assert_eq!(of("/a/b/c"), ["/a/b/c", "/a", ""]);
        assert_eq!(of("/a/b"), ["/a", ""]);
        assert_eq!(of("/a/"), ["/a", ""]);
        assert_eq!(of("/a//b/"), ["/a//b", "/a", ""]);
        assert_eq!(of("/abc"), [""]);
        assert_eq!(of("/ab"), ["/ab", ""]);
        assert_eq!(of("*"), [""]);
    }

    #[test]
    fn without_a_prefix_of_all_paths_some_have_none() {
        let prefixes = Prefixes::new([("/a".into(), 1)]);
        assert_eq!(prefixes.of("/b").count(), 0);
        assert_eq!(prefixes.of("/a/b").count(), 1);
    }
}
