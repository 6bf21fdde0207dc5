//! The trust bundle as text: PEM, with a number in a comment above it.
//!
//! Bundles reach a sidecar on two ways, by a mounted ConfigMap and with each certificate, and neither is always the
//! faster one. The number tells which is the later, so a sidecar never goes back to an older bundle: the rotation of
//! a root counts on that. Text outside of PEM blocks is a comment to every reader of PEM (RFC 7468, section 5.2).

const MARK: &str = "# ferrule trust bundle, generation ";

/// The text of a bundle: roots as PEM, the one first that signs now.
#[must_use]
pub fn write<'a>(generation: u64, roots: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = format!("{MARK}{generation}\n");
    for root in roots {
        text.push_str(root.trim_end());
        text.push('\n');
    }
    text
}

/// The number of a bundle; nothing when the text does not begin with one.
#[must_use]
pub fn generation(text: &str) -> Option<u64> {
    text.strip_prefix(MARK)?.split('\n').next()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_keeps_its_number_and_its_roots() {
        let text = write(7, ["A\n", "B"]);
        assert_eq!(text, "# ferrule trust bundle, generation 7\nA\nB\n");
        assert_eq!(generation(&text), Some(7));
    }

    #[test]
    fn other_text_has_no_number() {
        for text in
            ["", "-----BEGIN CERTIFICATE-----", "# ferrule trust bundle, generation x\n", "\n# ferrule"]
        {
            assert_eq!(generation(text), None, "{text}");
        }
    }
}
