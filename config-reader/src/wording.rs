//! Which word somebody meant, and how to show words that somebody else wrote. Knows no document.

use std::borrow::Cow;

/// The word of `known` that somebody who wrote `word` most probably meant, if one is near enough:
/// the same but for case and `-` or `_`, or a third of its letters away at most, or its beginning.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Measuring costs length times length; nobody means anything by a word this long.
    if word.len() > LONGEST_WORD {
        return None;
    }
    let folded = fold(word);
    let near = |known: &'a str| {
        let other = fold(known);
        let distance = strsim::damerau_levenshtein(&folded, &other);
        let letters = folded.chars().count().max(other.chars().count());
        let is_near = distance <= (letters / 3).max(1) && distance < letters;
        (is_near || begins_alike(&folded, &other)).then_some((distance, known))
    };
    let candidates = known.into_iter().filter(|known| known.len() <= LONGEST_WORD).filter_map(near);
    candidates.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// `message` with control characters escaped: keys of a document reach terminals through it.
pub(crate) fn printable(message: &str) -> Cow<'_, str> {
    if !message.contains(|c: char| c.is_control()) {
        return Cow::Borrowed(message);
    }
    let mut shown = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

fn fold(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

fn begins_alike(one: &str, other: &str) -> bool {
    one.len().min(other.len()) >= SHORTEST_BEGINNING && (one.starts_with(other) || other.starts_with(one))
}

/// Longest word, in bytes, for which a suggestion is looked for.
const LONGEST_WORD: usize = 128;

/// Fewest bytes that may stand for a whole word.
const SHORTEST_BEGINNING: usize = 3;
