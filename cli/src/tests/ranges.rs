//! The page of configuration says of each key which values it may have: what host and edge say when one is out of
//! range stands there.

use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use super::pages::root;

const PAGE: &str = "docs/configuration.md";
/// Sections that may stand several times.
const LISTS: &[&str] = &["plugin", "ingress", "server"];
/// Keys whose end is another key.
const OF_OTHERS: &[(&str, &str)] =
    &[("tunnel.shards", "1 to `connections`"), ("ready.connections", "1 to `tunnel.connections`")];

/// A key with what the page says of it.
struct Row {
    is_edge: bool,
    key: String,
    text: String,
}

fn rows() -> Vec<Row> {
    let page = std::fs::read_to_string(root().join(PAGE)).expect("the page is there");
    let (mut is_edge, mut heading, mut is_table) = (false, String::new(), false);
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix('#') {
            is_edge |= title.contains("The edge:");
            heading = title.split('`').nth(1).unwrap_or_default().trim_matches(['[', ']']).to_owned();
            is_table = false;
        } else if line.starts_with("| key |") {
            is_table = true;
        } else if !line.starts_with('|') {
            is_table = false;
        } else if is_table && !line.starts_with("|--") {
            let names = line.split('|').nth(1).unwrap_or_default();
            let mut section = if is_edge { String::new() } else { heading.clone() };
            for name in names.split('`').skip(1).step_by(2) {
                let own = match name.split_once(' ') {
                    Some((table, own)) => {
                        section = table.trim_matches(['[', ']']).to_owned();
                        own
                    }
                    None => name,
                };
                let key = if section.is_empty() { own.to_owned() } else { format!("{section}.{own}") };
                rows.push(Row { is_edge, key, text: line.to_owned() });
            }
        }
    }
    rows
}

/// A document with this key and nothing else.
fn document(is_edge: bool, key: &str, value: Value) -> String {
    let names: Vec<&str> = key.split('.').collect();
    let mut inner = value;
    for (depth, name) in names.iter().enumerate().rev() {
        let mut table = Table::new();
        table.insert((*name).to_owned(), inner);
        inner = table.into();
        let above = depth.checked_sub(1).map(|depth| names[depth]);
        let is_list =
            depth == 1 && above.is_some_and(|above| LISTS.contains(&above) || (is_edge && above == "tunnel"));
        if is_list {
            inner = Value::Array(vec![inner]);
        }
    }
    toml::to_string(&inner).expect("a document")
}

/// What is wrong with it.
fn mistakes(folder: &Path, is_edge: bool, text: &str) -> String {
    if !is_edge {
        let outcome = adit_host::config::parse("host.toml", text, folder);
        return outcome.err().map(|error| error.to_string()).unwrap_or_default();
    }
    let path = folder.join("edge.toml");
    std::fs::write(&path, text).expect("a file");
    let outcome = adit_edge::Settings::load(&path);
    outcome.err().map(|error| error.to_string()).unwrap_or_default()
}

#[derive(Debug, PartialEq)]
enum Amount {
    Time(Duration),
    Size(usize),
    Count(u64),
}

fn amount(text: &str) -> Option<Amount> {
    let text = text.trim_matches(['"', '`', '.', ',', ';', ':', '(', ')']);
    text.parse()
        .ok()
        .map(Amount::Count)
        .or_else(|| humantime::parse_duration(text).ok().map(Amount::Time))
        .or_else(|| adit_config_reader::size::parse(text).map(Amount::Size))
}

fn is_nothing(amount: &Amount) -> bool {
    matches!(amount, Amount::Time(Duration::ZERO) | Amount::Size(0) | Amount::Count(0))
}

#[test]
fn every_range_of_a_key_is_on_the_page() {
    const BEYOND: &str = " is out of range, expected ";
    let folder = tempfile::tempdir().expect("a folder");
    let (mut wrong, mut ranged) = (Vec::new(), 0);
    for Row { is_edge, key, text } in rows() {
        let beyond: [Value; 3] = ["99999days".into(), "999999GiB".into(), 99_999_999_999_i64.into()];
        let said = beyond.into_iter().find_map(|value| {
            let mistakes = mistakes(folder.path(), is_edge, &document(is_edge, &key, value));
            let line = mistakes.lines().find(|line| line.contains(BEYOND))?;
            Some(line.split(BEYOND).nth(1)?.to_owned())
        });
        let Some(said) = said else { continue };
        ranged += 1;
        if OF_OTHERS.iter().any(|(other, words)| *other == key && text.contains(words)) {
            continue;
        }
        let range = said.trim_start_matches("a whole number from ");
        let Some((lowest, highest)) = range.split_once(" to ") else { panic!("{key}: {said}") };
        let named: Vec<Amount> = text.split([' ', '|']).filter_map(amount).collect();
        for end in [lowest, highest] {
            // Of several units, such as `1m 30s`, there is none so far.
            let end = amount(end).unwrap_or_else(|| panic!("{key}: {said}"));
            if !named.contains(&end) && !is_nothing(&end) {
                wrong.push(format!("{PAGE}: {key} may be {range}, which its row does not say"));
            }
        }
    }
    // A list that is missing would be no mistake of the page's.
    assert!(ranged > 30, "{ranged} keys have a range");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
