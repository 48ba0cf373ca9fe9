//! Every limit stands in docs/limits.md, with the number that the sources have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::constants::{self, Constant, Sources};
use crate::no_limits::{NAMELESS, NO_LIMITS};
use crate::value::Value;

const PAGE: &str = "docs/limits.md";
const EXCEPTIONS: &str = "tests/docs/no_limits.rs";
const HEAD: [&str; 6] = ["what", "number", "key", "beyond it", "shared by", "kept in"];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A line of a table.
struct Row {
    line: usize,
    cells: Vec<String>,
}

impl Row {
    fn values(&self) -> impl Iterator<Item = Option<Value>> {
        self.cells[1].split("; ").map(Value::parse)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.cells[5].split('`').skip(1).step_by(2)
    }
}

#[test]
fn every_number_of_the_sources_is_in_the_table_of_limits_or_is_said_to_be_none() {
    let sources = constants::read(&root());
    if std::env::var_os("ADIT_WRITE").is_some() {
        follow(&sources);
    }
    let page = fs::read_to_string(root().join(PAGE)).expect("the page is there");
    let wrong = compare(&sources, &page);
    assert!(
        wrong.is_empty(),
        "{} things to mend (ADIT_WRITE=1 writes where constants have moved to; build again then):\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Writes where constants have moved to that the page and the list of exceptions look for elsewhere.
fn follow(sources: &Sources) {
    let texts = [PAGE, EXCEPTIONS]
        .map(|file| (file, fs::read_to_string(root().join(file)).expect("both files are there")));
    let written = |text: &str, sign: char| -> Vec<String> {
        text.split(sign).skip(1).step_by(2).filter(|name| name.contains(".rs ")).map(str::to_owned).collect()
    };
    let all: Vec<String> = [written(&texts[0].1, '`'), written(&texts[1].1, '"')].concat();
    let known: BTreeSet<(&str, &str)> = all
        .iter()
        .filter_map(|written| find(sources, written).ok())
        .map(|constant| (constant.file.as_str(), constant.name.as_str()))
        .collect();
    let said = said(&rows(&texts[0].1, &mut Vec::new()));
    for (file, mut text) in texts {
        for lost in all.iter().filter(|written| find(sources, written).is_err()) {
            let is_new = |constant: &&Constant| {
                lost.ends_with(&format!(" {}", constant.name))
                    && said.get(lost).is_none_or(|said| said.means(&constant.value))
                    && !known.contains(&(constant.file.as_str(), constant.name.as_str()))
            };
            if let [found] = sources.constants.iter().filter(is_new).collect::<Vec<_>>()[..] {
                for sign in ['`', '"'] {
                    let quoted = |name: &str| format!("{sign}{name}{sign}");
                    text = text.replace(&quoted(lost), &quoted(&shortest(sources, found)));
                }
            }
        }
        fs::write(root().join(file), text).expect("both files can be written");
    }
}

#[test]
fn a_limit_without_a_row_and_a_row_with_another_number_are_seen() {
    let mut sources = constants::read(&root());
    let page = fs::read_to_string(root().join(PAGE)).expect("the page is there");
    let planted = |file: &str, name: &str, value| Constant {
        file: file.to_owned(),
        name: name.to_owned(),
        line: 1,
        value,
    };
    sources.constants.push(planted("edge/src/planted.rs", "MOST_PLANTED", Value::Number(64)));
    let changed = sources.constants.iter_mut().find(|constant| constant.name == "MAX_MESSAGE");
    changed.expect("a limit of the wire").value = Value::Number(1);
    let wrong = compare(&sources, &page);
    let [changed, planted] = &wrong[..] else { panic!("{wrong:#?}") };
    assert!(changed.starts_with(PAGE) && changed.contains("MAX_MESSAGE is 1 "), "{changed}");
    assert!(planted.starts_with("edge/src/planted.rs:1: MOST_PLANTED is 64"), "{planted}");
}

#[test]
fn times_and_sizes_have_names() {
    let Sources { mut nameless, .. } = constants::read(&root());
    for (file, _) in NAMELESS {
        let before = nameless.len();
        nameless.retain(|place| !format!("/{place}").contains(&format!("/{file}:")));
        assert!(nameless.len() < before, "{file} needs no exception any more");
    }
    assert!(nameless.is_empty(), "give each a constant:\n{}", nameless.join("\n"));
}

/// What each constant is said to be.
fn said(rows: &[Row]) -> BTreeMap<String, Value> {
    let mut said = BTreeMap::new();
    for row in rows {
        let values: Vec<Option<Value>> = row.values().collect();
        for (index, name) in row.names().enumerate() {
            if let Some(value) = values.get(index).unwrap_or(&values[0]) {
                said.insert(name.to_owned(), value.clone());
            }
        }
    }
    said
}

/// What the page and the sources do not agree on.
fn compare(sources: &Sources, page: &str) -> Vec<String> {
    let mut wrong = sources.unknown.clone();
    let mut known = BTreeSet::new();
    for row in rows(page, &mut wrong) {
        let place = format!("{PAGE}:{}", row.line);
        let values: Vec<Option<Value>> = row.values().collect();
        let names: Vec<&str> = row.names().collect();
        if names.is_empty() || values.len() > 1 && values.len() != names.len() {
            wrong.push(format!("{place}: one number for all constants, or one for each: {}", row.cells[1]));
            continue;
        }
        for (index, name) in names.iter().enumerate() {
            let said = values.get(index).unwrap_or(&values[0]);
            match (find(sources, name), said) {
                (Err(why), _) => wrong.push(format!("{place}: {why}")),
                (_, None) => wrong.push(format!("{place}: this is no number: {}", row.cells[1])),
                (Ok(constant), Some(said)) => {
                    if !said.means(&constant.value) {
                        let Constant { name, value, file, line } = constant;
                        wrong.push(format!("{place}: {name} is {value} in {file}:{line}"));
                    }
                    known.insert((&constant.file, &constant.name));
                }
            }
        }
    }
    for (reason, names) in NO_LIMITS {
        for name in *names {
            match find(sources, name) {
                Err(why) => wrong.push(format!("tests/docs/no_limits.rs, {reason}: {why}")),
                Ok(constant) => {
                    if !known.insert((&constant.file, &constant.name)) {
                        wrong.push(format!("tests/docs/no_limits.rs, {reason}: {name} stands twice"));
                    }
                }
            }
        }
    }
    for constant in &sources.constants {
        if !known.contains(&(&constant.file, &constant.name)) {
            let Constant { file, line, name, value } = constant;
            wrong.push(format!(
                "{file}:{line}: {name} is {value} and has no row in {PAGE}; if it limits nothing, \
                 tests/docs/no_limits.rs says why (write {})",
                shortest(sources, constant)
            ));
        }
    }
    wrong
}

/// The lines of all tables of the page, which have one form.
fn rows(page: &str, wrong: &mut Vec<String>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut is_inside = false;
    for (index, line) in page.lines().enumerate() {
        let line = line.trim();
        let Some(inner) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            is_inside = false;
            continue;
        };
        let cells: Vec<String> = inner.split('|').map(|cell| cell.trim().to_owned()).collect();
        let line = index + 1;
        if cells.len() != HEAD.len() || !is_inside && cells != HEAD {
            wrong.push(format!("{PAGE}:{line}: tables of this page have the columns {}", HEAD.join(", ")));
        } else if is_inside && !cells[0].starts_with("--") {
            // Some have no key, and a bound of a key is shared by nobody.
            for empty in [0, 1, 3, 5].into_iter().filter(|column| cells[*column].is_empty()) {
                wrong.push(format!("{PAGE}:{line}: nothing is said in column \"{}\"", HEAD[empty]));
            }
            rows.push(Row { line, cells });
        }
        is_inside = true;
    }
    rows
}

/// The constant that `FILE NAME` means; the end of the path is enough if there is only one such.
fn find<'a>(sources: &'a Sources, written: &str) -> Result<&'a Constant, String> {
    let Some((file, name)) = written.split_once(' ') else {
        return Err(format!("write a file and a constant in place of {written}"));
    };
    let named: Vec<&Constant> = sources.constants.iter().filter(|constant| constant.name == name).collect();
    let fits = |constant: &&&Constant| is_end(file, &plain(&constant.file));
    let fitting: Vec<&&Constant> = named.iter().filter(fits).collect();
    match *fitting {
        [only] => Ok(only),
        [] => {
            let elsewhere: Vec<String> = named.iter().map(|constant| shortest(sources, constant)).collect();
            Err(format!("there is no {written}; is it one of [{}]?", elsewhere.join(", ")))
        }
        _ => {
            let all: Vec<&str> = fitting.iter().map(|constant| constant.file.as_str()).collect();
            Err(format!("{written} may be of {}", all.join(" or ")))
        }
    }
}

/// The folder `src` says nothing.
fn plain(file: &str) -> String {
    file.replacen("/src/", "/", 1)
}

fn is_end(end: &str, file: &str) -> bool {
    file.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// The fewest names of the path that mean this constant alone.
fn shortest(sources: &Sources, constant: &Constant) -> String {
    let file = plain(&constant.file);
    let starts = file.rmatch_indices('/').map(|(at, _)| at + 1).chain([0]);
    let only = |end: &&str| {
        let same = |other: &&Constant| other.name == constant.name && is_end(end, &plain(&other.file));
        sources.constants.iter().filter(same).count() == 1
    };
    let end = starts.map(|start| &file[start..]).find(only).unwrap_or(&file);
    format!("{end} {}", constant.name)
}
