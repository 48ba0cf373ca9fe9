//! A document that was translated says behind each line where that is from, in a comment, and mistakes are
//! reported there: people mend what they wrote, not what a program made of it. Knows the comments; does not
//! know what was translated.

use std::fmt::Write as _;

use crate::mistakes::{Mistake, Place};

/// The first line of a document whose lines carry remarks.
pub const TRANSLATED: &str = "# Translated: the remark behind a line says where it is from.\n";

/// What stands behind a line that is from `path` at `place`.
pub fn remark(place: Option<Place>, path: &str) -> String {
    let mut remark = MARK.to_owned();
    // Writing to a text never fails.
    let _ = match place {
        Some(Place { line, column }) => write!(remark, "{line}:{column} "),
        None => write!(remark, "- "),
    };
    remark.extend(path.chars().filter(|c| !c.is_control()));
    remark
}

/// The mistake as those know it who wrote the original of `text`.
pub(crate) fn at_its_origin(text: &str, mistake: Mistake) -> Mistake {
    let Some(place) = mistake.place.filter(|_| text.starts_with(TRANSLATED)) else { return mistake };
    let above: Vec<&str> = text.lines().take(place.line).collect();
    let Some((place, path)) = above.iter().rev().find_map(|line| origin(line)) else { return mistake };
    // Advice is for whoever writes TOML, where it shows any.
    let help = mistake.help.filter(|help| !help.contains(" = ") && !help.contains('['));
    Mistake { place, path: Some(path.to_owned()).filter(|path| !path.is_empty()), help, ..mistake }
}

fn origin(line: &str) -> Option<(Option<Place>, &str)> {
    // The last one: a value may hold anything.
    let (_, remark) = line.rsplit_once(MARK)?;
    let (place, path) = remark.split_once(' ')?;
    let place = place
        .split_once(':')
        .and_then(|(line, column)| Some(Place { line: line.parse().ok()?, column: column.parse().ok()? }));
    Some((place, path))
}

const MARK: &str = "  #@ ";

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(line: usize, help: &str) -> Mistake {
        let place = Some(Place { line, column: 1 });
        Mistake { place, path: None, message: "wrong".to_owned(), help: Some(help.to_owned()) }
    }

    #[test]
    fn a_mistake_in_a_translated_document_is_placed_where_people_wrote_it() {
        let at = Place { line: 7, column: 3 };
        let text = format!(
            "{TRANSLATED}a = \"x  #@ 9:9 no\"{}\nb = 1\nc = 2{}\n",
            remark(Some(at), "one"),
            remark(None, "--two")
        );
        let found = at_its_origin(&text, mistake(2, "did you mean `c`?"));
        assert_eq!((found.place, found.path.as_deref()), (Some(at), Some("one")));
        assert_eq!(found.help.as_deref(), Some("did you mean `c`?"));
        // A line without a remark belongs to the one above it.
        let found = at_its_origin(&text, mistake(3, "write b = \"2\""));
        assert_eq!((found.place, found.help), (Some(at), None));
        let found = at_its_origin(&text, mistake(4, ""));
        assert_eq!((found.place, found.path.as_deref()), (None, Some("--two")));
        assert_eq!(at_its_origin("a = 1  #@ 7:3 one\n", mistake(1, "")), mistake(1, ""));
    }
}
