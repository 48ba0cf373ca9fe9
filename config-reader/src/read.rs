//! How a text becomes a value although parts of it are wrong. Knows the order of the steps; knows
//! neither how a mistake is worded nor how it is printed.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use toml::de::DeTable;

use crate::mistakes::{LIMIT, Mistakes};
use crate::outline::{Outline, ROOT};
use crate::value::{Tree, Value};

/// Reads `text` as a `T`. `file` is the name that messages show.
///
/// A key that `T` does not know and a value of a wrong type do not stop it: each is recorded, taken
/// out of the tree, and the reading starts again, so that the `T` handed back holds what was right
/// and the caller can go on looking for mistakes of its own. Fields of `T` should therefore be
/// optional (a missing required field takes its whole table away) and `T` should carry
/// `#[serde(deny_unknown_fields)]`. A key written twice keeps its first value.
///
/// # Errors
/// The mistakes alone, if nothing can be read: the text is not TOML, or has more mistakes than
/// anyone would want to see at once.
pub fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<(T, Mistakes), Mistakes> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let (outline, values) = Outline::of(table.get_ref());
    let mut mistakes = Mistakes::new(file, text, outline.clone());
    if !record_syntax(&errors, &mut mistakes) {
        return Err(mistakes);
    }
    let mut removed = HashSet::new();
    // Bounded: every round removes a node, and there are no more rounds than mistakes anyone reads.
    for _ in 0..LIMIT {
        let tree = Tree { outline: &outline, values: &values, removed: &removed };
        match T::deserialize(Value::root(&tree)) {
            Ok(value) => return Ok((value, mistakes)),
            Err(refusal) => {
                let node = refusal.node.unwrap_or(ROOT);
                mistakes.refuse(node, &refusal);
                if node == ROOT || !removed.insert(node) {
                    return Err(mistakes);
                }
            }
        }
    }
    Err(mistakes)
}

/// The text of one key at the top of a document that may be wrong anywhere else, even as TOML. Only for what has to
/// be known before the document can be put right.
pub fn glimpse(text: &str, key: &str) -> Option<String> {
    let of = |text: &str| {
        let (table, _) = DeTable::parse_recoverable(text);
        let (_, value) = table.get_ref().iter().find(|(name, _)| name.get_ref() == key)?;
        // A value that is missing is recovered as an empty one.
        value.get_ref().as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    // A line that is no TOML can take the next one with it.
    let top = || text.lines().take_while(|line| !line.trim_start().starts_with('[')).find_map(of);
    of(text).or_else(top)
}

/// Records what the parser complained about. Says whether the tree can be trusted all the same.
fn record_syntax(errors: &[toml::de::Error], mistakes: &mut Mistakes) -> bool {
    let is_duplicate = |error: &toml::de::Error| error.message() == DUPLICATE;
    let is_usable = errors.iter().all(is_duplicate);
    let mut lines = HashSet::new();
    // Next to others, duplicates are a consequence: the keys below a broken header land in the table above.
    for error in errors.iter().filter(|error| is_usable || !is_duplicate(error)) {
        let span = error.span().unwrap_or_default();
        // One slip of the pen makes the parser stumble several times on its line.
        if lines.insert(mistakes.line_at(span.start)) {
            mistakes.add_syntax(span.start, error.message());
        }
    }
    is_usable
}

/// The one complaint of the parser after which its tree is still what was written.
const DUPLICATE: &str = "duplicate key";
