//! Results on standard output: as a table for people, as JSON or YAML for programs. Knows forms; does not
//! know what is shown.

use std::io::Write;

use clap::ValueEnum;
use serde_json::Value;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    #[default]
    Table,
    Json,
    Yaml,
}

/// Lines below headings, each column as wide as it must be.
pub(crate) struct Table {
    headings: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &'static [&'static str]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // A cell of several lines would break the columns, and what strangers name things must not move
        // the cursor.
        let tame = |cell: String| cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.rows.push(cells.into_iter().map(tame).collect());
    }

    pub(crate) fn text(&self) -> String {
        let headings = self.headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>();
        let rows: Vec<&Vec<String>> = std::iter::once(&headings).chain(&self.rows).collect();
        let width = |column: usize| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<_> = (0..self.headings.len()).map(width).collect();
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Writes to standard output. That nobody reads it is no failure.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
    let _ = out.flush();
}

/// `value` in a form for programs, or `table` for people.
pub(crate) fn show(form: Form, value: &Value, table: impl FnOnce() -> String) {
    match form {
        Form::Table => print(&table()),
        Form::Json => print(&serde_json::to_string_pretty(value).expect("a JSON value has a text")),
        Form::Yaml => print(&yaml(value)),
    }
}

/// YAML in block style. Texts that could be taken for something else are quoted as JSON does, which YAML
/// reads too: of libraries that write it, `serde_norway` leaves `yes` and dates bare, which other readers take for a
/// switch and a time.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write_yaml(&mut text, value, 0);
    text
}

fn write_yaml(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                write_yaml(&mut inner, item, depth + 1);
                // The first line of the item stands behind the dash.
                let inner = inner.trim_start();
                text.push_str(&format!("{indent}- {inner}"));
            }
        }
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let name = scalar(&Value::String(name.clone()));
                let nested = match member {
                    Value::Array(items) => !items.is_empty(),
                    Value::Object(members) => !members.is_empty(),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
                };
                if nested {
                    text.push_str(&format!("{indent}{name}:\n"));
                    write_yaml(text, member, depth + 1);
                } else {
                    text.push_str(&format!("{indent}{name}: {}\n", scalar(member)));
                }
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            text.push_str(&format!("{indent}{}\n", scalar(value)));
        }
    }
}

fn scalar(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let special = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(plain)
        && !special.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.clone() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(["1".to_owned(), "first".to_owned()]);
        table.row(["100".to_owned(), "a\u{1b}[2Jb".to_owned()]);
        assert_eq!(table.text(), "ID   NAME\n1    first\n100  a [2Jb\n");
    }

    #[test]
    fn yaml_says_what_json_says() {
        let value = json!([
            { "id": "f0b1", "name": "yes", "count": 2, "none": null, "list": [], "when": "2026-11-22T10:00:00Z" },
            { "conns": [{ "colo": "west-1", "tags": ["a", "b: c"] }], "7": true },
        ]);
        let text = yaml(&value);
        let read: Value = serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        assert_eq!(read, value, "{text}");
        assert!(text.contains("- count: 2\n  id: f0b1\n  list: []\n  name: \"yes\"\n"), "{text}");
    }
}
