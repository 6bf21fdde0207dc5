//! Takes a list apart while it arrives, so that memory holds one item of it and not the whole.

use serde::Deserialize;
use thiserror::Error;

/// Largest item, in bytes: an object is at most about 1.5 MiB, etcd's limit.
const MAX_ITEM: usize = 4 * 1024 * 1024;
/// Largest rest of a list: its metadata.
const MAX_ENVELOPE: usize = 64 * 1024;
/// Memory for items that is kept from one to the next.
const KEPT: usize = 64 * 1024;

/// What a list says of itself.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Envelope {
    pub metadata: ListMetadata,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMetadata {
    pub resource_version: String,
    #[serde(rename = "continue")]
    pub continue_token: String,
}

/// Why a list can't be taken apart.
#[derive(Debug, Error)]
pub(in crate::discovery) enum ListError {
    #[error("an item, or what is around the items, is larger than the proxy takes")]
    TooLarge,
    #[error("the list holds something that is no object")]
    NoObject,
    #[error("the list is not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Takes the bytes of a list and gives its items one by one.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// Everything but the items.
    envelope: Vec<u8>,
    item: Vec<u8>,
    /// Whether what comes lies in `items`.
    in_items: bool,
    /// Brackets that are open; within an item, those of the item.
    depth: usize,
    /// Whether what comes lies in a string, and whether the byte before was its backslash.
    in_string: bool,
    escaped: bool,
    /// The last string on the topmost level: the key that `[` belongs to.
    key: Vec<u8>,
}

impl Splitter {
    /// Takes the next bytes and gives each item that they complete.
    pub fn feed<E: From<ListError>>(
        &mut self,
        bytes: &[u8],
        mut item: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for &byte in bytes {
            if self.in_items {
                if self.item_byte(byte)? {
                    item(&self.item)?;
                    self.item.clear();
                    self.item.shrink_to(KEPT);
                }
            } else {
                self.envelope_byte(byte)?;
            }
        }
        Ok(())
    }

    /// What the list says of itself, once all bytes were taken.
    pub fn finish(self) -> Result<Envelope, ListError> {
        Ok(serde_json::from_slice(&self.envelope)?)
    }

    /// Whether the byte was the last one of an item.
    fn item_byte(&mut self, byte: u8) -> Result<bool, ListError> {
        if self.depth == 0 {
            match byte {
                b',' | b' ' | b'\t' | b'\r' | b'\n' => return Ok(false),
                b']' => {
                    self.in_items = false;
                    self.depth = 1;
                    self.envelope.push(byte);
                    return Ok(false);
                }
                b'{' => {}
                _ => return Err(ListError::NoObject),
            }
        }
        if self.item.len() == MAX_ITEM {
            return Err(ListError::TooLarge);
        }
        self.item.push(byte);
        self.nest(byte);
        Ok(self.depth == 0)
    }

    fn envelope_byte(&mut self, byte: u8) -> Result<(), ListError> {
        if self.envelope.len() == MAX_ENVELOPE {
            return Err(ListError::TooLarge);
        }
        self.envelope.push(byte);
        let top = self.depth == 1;
        let began_string = !self.in_string && byte == b'"';
        let in_string = self.in_string;
        self.nest(byte);
        if top && began_string {
            self.key.clear();
        } else if top && in_string && self.in_string {
            self.key.push(byte);
        } else if top && !in_string && byte == b'[' && self.key == b"items" {
            self.in_items = true;
            self.depth = 0;
        }
        Ok(())
    }

    /// Keeps count of brackets and strings.
    fn nest(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn split(text: &[u8], piece: usize) -> Result<(Vec<Value>, Envelope), ListError> {
        let (mut splitter, mut items) = (Splitter::default(), Vec::new());
        for piece in text.chunks(piece) {
            splitter.feed(piece, |item| {
                items.push(serde_json::from_slice(item)?);
                Ok::<_, ListError>(())
            })?;
        }
        Ok((items, splitter.finish()?))
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[\\[\\]{}\",\\\\a-c:é ]{0,8}".prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("items|[\"\\[a]{1,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_list_in_pieces_has_the_items_of_the_whole(
            items in prop::collection::vec(prop::collection::btree_map("[a-c\"]{1,2}", value(), 0..4), 0..6),
            before in value(),
            after in value(),
            pretty in any::<bool>(),
            piece in 1..50usize,
        ) {
            let items: Vec<Value> =
                items.into_iter().map(|map| Value::Object(map.into_iter().collect())).collect();
            let metadata = json!({"resourceVersion": "7", "continue": "[\"items\":["});
            let list = json!({"before": before, "items": items, "metadata": metadata, "zafter": after});
            let text = if pretty { serde_json::to_vec_pretty(&list) } else { serde_json::to_vec(&list) };
            let (found, envelope) = split(&text.expect("JSON"), piece).expect("a list");
            prop_assert_eq!(found, items);
            prop_assert_eq!(envelope.metadata.resource_version, "7");
            prop_assert_eq!(envelope.metadata.continue_token, "[\"items\":[");
        }

        #[test]
        fn garbage_is_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1..9usize) {
            let _ = split(&bytes, piece);
            let _ = split(&[b"{\"items\":[".as_slice(), &bytes].concat(), piece);
        }
    }

    #[test]
    fn an_empty_list_is_null_at_times() {
        let (items, envelope) =
            split(br#"{"metadata":{"resourceVersion":"3"},"items":null}"#, 5).expect("a list");
        assert!(items.is_empty());
        assert_eq!(envelope.metadata.resource_version, "3");
    }

    #[test]
    fn a_list_that_breaks_off_is_an_error() {
        assert!(split(br#"{"items":[{"a":1},{"a":"#, 7).is_err());
        assert!(split(br#"{"items":[1,2]}"#, 7).is_err());
    }

    #[test]
    fn an_item_has_a_limit() {
        let text = format!(r#"{{"items":[{{"a":"{}"}}]}}"#, "x".repeat(MAX_ITEM));
        assert!(matches!(split(text.as_bytes(), 4096), Err(ListError::TooLarge)));
    }
}
