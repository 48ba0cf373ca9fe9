//! docs/commands.md is made of the command line itself, and no page names a flag that there is not.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use clap::{Arg, Command, CommandFactory};

use super::pages::{self, Page, root};
use crate::Arguments;
use crate::tunnel::reference::WORDS;

const PAGE: &str = "docs/commands.md";
const HEAD: &str = "\
# Commands

Every command and flag, made of what `--help` says: `ADIT_WRITE=1 cargo test -p adit commands` writes this page, \
and a test of the command line fails where it is not so. A flag of `adit tunnel` may stand before or behind the \
commands below it; what is taken besides for users of `cloudflared` is in \
[differences.md](differences.md#one-word). A name in capitals behind a flag is its name in the environment; the \
flag goes before it. Exit codes: [configuration.md](configuration.md#logs-and-exit-codes).
";

/// Flags of other programs that pages name.
const OF_OTHERS: &[(&str, &[&str])] = &[
    (
        "cargo",
        &[
            "--all",
            "--bin",
            "--ignored",
            "--locked",
            "--nocapture",
            "--package",
            "--release",
            "--target",
            "--test",
            "--workspace",
        ],
    ),
    (
        "cargo xtask",
        &[
            "--check",
            "--frp",
            "--long",
            "--only",
            "--rathole",
            "--reference",
            "--roots",
            "--rounds",
            "--write",
        ],
    ),
    ("adit-release", &["--commit", "--program", "--time", "--tree"]),
    ("containers and clusters", &["--cap-drop", "--from-file", "--security-opt", "--set", "--values"]),
    ("external-dns", &["--managed-record-types", "--policy", "--provider", "--registry", "--source"]),
    ("systemctl and git", &["--now", "--format"]),
    ("tools of languages", &["--js", "--sync", "--stub-wasi", "--wit"]),
];

/// Names in the environment that are no flag's.
const ENVIRONMENT: &[(&str, &[&str])] = &[
    ("tests", &["ADIT_WRITE", "ADIT_SKIP_NOTHING"]),
    ("a value of the control API, and no name", &["TUNNEL_STATUS_TYPE_HEALTHY"]),
    ("the build of a release", &["ADIT_COMMIT", "ADIT_SHELF"]),
    ("a secret, which no flag may be", &["ADIT_JOIN_TOKEN"]),
];

#[test]
fn the_page_of_commands_says_what_help_says() {
    let file = root().join(PAGE);
    let made = page();
    if std::env::var_os("ADIT_WRITE").is_some() {
        fs::write(&file, &made).expect("the page can be written");
    }
    let kept = fs::read_to_string(&file).expect("the page is there");
    let differing = made.lines().zip(kept.lines()).find(|(made, kept)| made != kept);
    assert!(made == kept, "{PAGE} is not what --help says; ADIT_WRITE=1 writes it. First: {differing:#?}");
}

#[test]
fn no_page_names_a_flag_that_there_is_not() {
    let mut known: BTreeSet<String> = ["--help", "--version"].map(str::to_owned).into();
    let mut names = BTreeSet::new();
    walk(&Arguments::command(), "adit", &mut |_, command| {
        for argument in command.get_arguments() {
            let aliases = argument.get_all_aliases().unwrap_or_default();
            known.extend(argument.get_long().into_iter().chain(aliases).map(|name| format!("--{name}")));
            names.extend(argument.get_env().map(|name| name.to_string_lossy().into_owned()));
        }
    });
    for word in WORDS {
        known.extend([&[word.name], word.aliases].concat().into_iter().map(|name| format!("--{name}")));
        names.extend(word.environment.iter().map(|name| (*name).to_owned()));
    }
    known.extend(OF_OTHERS.iter().flat_map(|(_, flags)| *flags).map(|flag| (*flag).to_owned()));
    names.extend(ENVIRONMENT.iter().flat_map(|(_, all)| *all).map(|name| (*name).to_owned()));
    let mut wrong = Vec::new();
    for Page { path, text } in pages::all() {
        for (number, line) in text.lines().enumerate() {
            let place = format!("{path}:{}", number + 1);
            for flag in flags(line) {
                let is_known = match flag.strip_suffix('…') {
                    Some(beginning) => known.iter().any(|known| known.starts_with(beginning)),
                    None => known.contains(&flag),
                };
                if !is_known {
                    wrong.push(format!("{place}: there is no {flag}"));
                }
            }
            for name in line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_') {
                if (name.starts_with("ADIT_") || name.starts_with("TUNNEL_")) && !names.contains(name) {
                    wrong.push(format!("{place}: nothing reads {name}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `--word` in a line, with `…` where it stands for several.
fn flags(line: &str) -> Vec<String> {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let mut found = Vec::new();
    for (at, _) in line.match_indices("--") {
        let before = line[..at].chars().next_back();
        let word: String = line[at + 2..].chars().take_while(|letter| is_letter(*letter)).collect();
        let starts = word.starts_with(|letter: char| letter.is_ascii_lowercase());
        if !starts || before.is_some_and(|letter| is_letter(letter) || letter.is_alphanumeric()) {
            continue;
        }
        let is_cut = line[at + 2 + word.len()..].starts_with('…');
        found.push(format!("--{word}{}", if is_cut { "…" } else { "" }));
    }
    found
}

fn walk(command: &Command, name: &str, visit: &mut impl FnMut(&str, &Command)) {
    visit(name, command);
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        walk(below, &format!("{name} {}", below.get_name()), visit);
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    walk(&Arguments::command(), "adit", &mut |name, command| {
        let shown: Vec<&Arg> = command.get_arguments().filter(|argument| !argument.is_hide_set()).collect();
        if command.has_subcommands() && shown.is_empty() {
            return;
        }
        let positional: String = shown
            .iter()
            .filter(|argument| argument.is_positional())
            .map(|argument| place(argument))
            .collect();
        let _ = write!(page, "\n## `{name}{positional}`\n");
        let also: Vec<String> = command.get_all_aliases().map(|alias| format!("`{alias}`")).collect();
        if !also.is_empty() {
            let _ = write!(page, "\nAlso {}.\n", also.join(", "));
        }
        if let Some(about) = command.get_about() {
            let _ = write!(page, "\n{}.\n", cell(&about.to_string()));
        }
        if !shown.is_empty() {
            page.push_str("\n| argument | meaning |\n|---|---|\n");
        }
        for argument in shown {
            let _ = writeln!(page, "| {} | {} |", written(argument), meaning(argument));
        }
    });
    page
}

/// ` <NAME>` or ` [NAME]`
fn place(argument: &Arg) -> String {
    let name = values(argument);
    if argument.is_required_set() { format!(" {name}") } else { format!(" [{name}]") }
}

fn values(argument: &Arg) -> String {
    let names: Vec<String> =
        argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    if names.is_empty() { argument.get_id().to_string().to_uppercase() } else { names.join(" ") }
}

fn written(argument: &Arg) -> String {
    if argument.is_positional() {
        return format!("`{}`", values(argument));
    }
    let value =
        if argument.get_action().takes_values() { format!(" {}", values(argument)) } else { String::new() };
    let short = argument.get_short().map(|short| format!("`-{short}`"));
    let long = argument.get_long().map(|long| format!("`--{long}{value}`"));
    let environment = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy()));
    [long, short, environment].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn meaning(argument: &Arg) -> String {
    let mut meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
    if argument.is_required_set() && !argument.is_positional() {
        meaning.push_str("; required");
    }
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    if argument.get_action().takes_values() {
        let possible = argument.get_possible_values();
        let possible: Vec<String> = possible
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !possible.is_empty() {
            let _ = write!(meaning, "; one of {}", possible.join(", "));
        }
        if !defaults.is_empty() {
            let _ = write!(meaning, "; {} if nothing is said", defaults.join(", "));
        }
    }
    cell(&meaning)
}

/// In one line of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "&lt;")
}
