//! `adit plugin new`: a project to begin with. It is one of `examples/plugins` of this version, under another name.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;

use super::project::Language;
use crate::{Failure, table};

#[derive(clap::Args)]
pub(crate) struct New {
    /// The language to write it in
    #[arg(long = "lang", value_name = "LANGUAGE", value_enum)]
    language: Language,
    /// What it is to be
    #[arg(long, value_enum, default_value_t = Kind::Filter)]
    kind: Kind,
    /// Its name: lower-case letters, digits and hyphens. A folder of this name is made
    #[arg(value_name = "NAME")]
    name: String,
    /// Make the folder here
    #[arg(long = "in", value_name = "FOLDER", default_value = ".")]
    parent: PathBuf,
}

/// What a plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Changes or answers requests, and changes answers
    Filter,
    /// Answers a rule by itself; the standard interface wasi:http 0.2
    Service,
    /// Whole exchanges pass through it, bodies included; wasi:http 0.3, experimental
    Middleware,
    /// Regular work that brings what requests need
    Ticker,
    /// Is told what was served, after the fact
    AccessLog,
}

pub(super) fn create(asked: &New) -> Result<(), Failure> {
    check(&asked.name).map_err(Failure::Configuration)?;
    let folder = asked.parent.join(&asked.name);
    if folder.exists() {
        let error = anyhow!("{} exists already\n  way out: choose another name", folder.display());
        return Err(Failure::Configuration(error));
    }
    let sources = files(asked.kind, asked.language)
        .ok_or_else(|| Failure::Configuration(missing(asked.kind, asked.language)))?;
    let (example, shared) = shared(asked.kind);
    for (path, content) in sources.iter().chain(shared) {
        // What is built is the first example's where it differs in nothing but the name.
        let content = content.replace(EXAMPLE, &asked.name).replace(example, &asked.name);
        write(&folder.join(path), &content)?;
    }
    table::print(&format!(
        "{folder} is a plugin in {language} now. Next:\n  cd {folder}\n{prepare}  adit plugin build\n  adit plugin test",
        folder = folder.display(),
        language = asked.language,
        prepare = preparation(asked.language),
    ));
    Ok(())
}

/// What must be fetched once, as a person would type it.
fn preparation(language: Language) -> &'static str {
    match language {
        Language::Rust => "  rustup target add wasm32-wasip2\n",
        Language::Js | Language::Ts => "  npm install\n",
        Language::Python => "  python3 -m venv .venv && .venv/bin/pip install -r requirements.txt\n",
        Language::C | Language::Go => "",
    }
}

fn check(name: &str) -> Result<()> {
    // As WIT has it, which is the strictest of those that must take it.
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let word = |word: &str| word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(good);
    ensure!(
        name.len() <= LONGEST_NAME && name.split('-').all(word),
        "{name:?} cannot be a plugin's name\n  way out: words of lower-case letters and digits, a letter first, with \
         hyphens between them, at most {LONGEST_NAME} characters"
    );
    if RESERVED.contains(&name) {
        bail!("{name:?} means something to a build tool already\n  way out: choose another name");
    }
    Ok(())
}

fn write(path: &Path, content: &str) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

macro_rules! files {
    ($($folder:literal: $($file:literal),+);+ $(;)?) => {
        &[$($((
            $file,
            include_str!(concat!("../../../examples/plugins/", $folder, "/", $file)),
        )),+),+]
    };
}

/// What is written by our own interface.
macro_rules! of_ours {
    ($folder:literal) => {
        &[
            ("tests.toml", include_str!(concat!("../../../examples/plugins/", $folder, "/tests.toml"))),
            ("wit/world.wit", include_str!(concat!("../../../examples/plugins/", $folder, "/wit/world.wit"))),
            ("wit/deps/adit-plugin/plugin.wit", include_str!("../../../wit/plugin.wit")),
            ("wit/deps/adit-plugin/services.wit", include_str!("../../../wit/services.wit")),
        ]
    };
}

type Files = &'static [(&'static str, &'static str)];

fn files(kind: Kind, language: Language) -> Option<Files> {
    Some(match (kind, language) {
        (Kind::Filter, Language::Rust) => {
            files!("greeting/rust": "Cargo.toml", "Cargo.lock", "src/lib.rs", ".gitignore")
        }
        (Kind::Filter, Language::Js) => files!("greeting/js": "package.json", "plugin.js", ".gitignore"),
        (Kind::Filter, Language::Ts) => {
            files!("greeting/typescript": "package.json", "tsconfig.json", "plugin.ts", "adit-plugin.ts", ".gitignore")
        }
        (Kind::Filter, Language::Python) => {
            files!("greeting/python": "requirements.txt", "app.py", ".gitignore")
        }
        (Kind::Filter, Language::C) => files!("greeting/c": "filter.c", "json.c", "json.h", ".gitignore"),
        (Kind::Filter, Language::Go) => files!("greeting/go": "go.mod", "plugin.go", ".gitignore"),
        (Kind::Ticker, Language::Rust) => {
            files!("greeting/rust": "Cargo.toml", "Cargo.lock", ".gitignore"; "heartbeat/rust": "src/lib.rs")
        }
        (Kind::Ticker, Language::Js) => {
            files!("greeting/js": "package.json", ".gitignore"; "heartbeat/js": "plugin.js")
        }
        (Kind::Ticker, Language::Python) => {
            files!("greeting/python": "requirements.txt", ".gitignore"; "heartbeat/python": "app.py")
        }
        (Kind::AccessLog, Language::Rust) => {
            files!("greeting/rust": "Cargo.toml", "Cargo.lock", ".gitignore"; "served-log/rust": "src/lib.rs")
        }
        (Kind::AccessLog, Language::Js) => {
            files!("greeting/js": "package.json", ".gitignore"; "served-log/js": "plugin.js")
        }
        (Kind::AccessLog, Language::Python) => {
            files!("greeting/python": "requirements.txt", ".gitignore"; "served-log/python": "app.py")
        }
        (Kind::Service, Language::Rust) => {
            files!("greeting/rust": "Cargo.toml", "Cargo.lock", ".gitignore"; "welcome-page/rust": "src/lib.rs")
        }
        (Kind::Middleware, Language::Rust) => {
            files!("greeting/rust": ".gitignore"; "stopwatch/rust": "Cargo.toml", "Cargo.lock", "src/lib.rs")
        }
        (Kind::Service | Kind::Middleware | Kind::Ticker | Kind::AccessLog, _) => return None,
    })
}

/// Why there is no beginning of such a plugin, with the languages in which there is one.
fn missing(kind: Kind, language: Language) -> anyhow::Error {
    let others = Language::value_variants().iter().filter(|other| files(kind, **other).is_some());
    let others: Vec<String> = others
        .filter_map(|other| Some(format!("--lang {}", other.to_possible_value()?.get_name())))
        .collect();
    anyhow!(
        "there is no beginning of this kind in {language}\n  way out: {}; or begin a filter, and export something else",
        others.join(" or ")
    )
}

/// The name of a kind's example, and what every project of that kind has.
fn shared(kind: Kind) -> (&'static str, Files) {
    match kind {
        Kind::Filter => (EXAMPLE, of_ours!("greeting")),
        Kind::Ticker => ("heartbeat", of_ours!("heartbeat")),
        Kind::AccessLog => ("served-log", of_ours!("served-log")),
        Kind::Service => (
            "welcome-page",
            files!("welcome-page": "tests.toml", "wit/world.wit", "wit/deps/wasi-http/http.wit", "wit/deps/wasi-io/io.wit"),
        ),
        Kind::Middleware => ("stopwatch", MIDDLEWARE),
    }
}

const MIDDLEWARE: Files = &[
    ("tests.toml", include_str!("../../../examples/plugins/stopwatch/tests.toml")),
    ("wit/world.wit", include_str!("../../../examples/plugins/stopwatch/wit/world.wit")),
    ("wit/deps/adit-plugin/plugin.wit", include_str!("../../../wit/plugin.wit")),
    ("wit/deps/adit-plugin/services.wit", include_str!("../../../wit/services.wit")),
    ("wit/deps/wasi-clocks/clocks.wit", include_str!("../../../plugins/wasi3/clocks.wit")),
    ("wit/deps/wasi-http/http.wit", include_str!("../../../plugins/wasi3/http.wit")),
];

/// The name of the first example, which is replaced wherever it stands.
const EXAMPLE: &str = "greeting";
const LONGEST_NAME: usize = 40;
/// Words that would not be names in a manifest: Rust's own crates, and what WIT gives a meaning to.
const RESERVED: &[&str] = &["test", "core", "std", "alloc", "proc-macro", "plugin", "app", "internal"];

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    /// The projects that there are.
    fn all() -> impl Iterator<Item = (Kind, Language)> {
        let kinds = Kind::value_variants().iter();
        let all = kinds.flat_map(|kind| Language::value_variants().iter().map(|language| (*kind, *language)));
        all.filter(|(kind, language)| files(*kind, *language).is_some())
    }

    #[test]
    fn a_new_project_bears_its_name_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        for (number, (kind, language)) in all().enumerate() {
            let name = format!("my-{language}-x{number}").to_lowercase();
            let parent = folder.path().to_owned();
            let asked = New { language, kind, name: name.clone(), parent };
            assert!(create(&asked).is_ok());
            assert!(matches!(create(&asked), Err(Failure::Configuration(_))), "it exists now");
            let project = folder.path().join(&name);
            let (example, shared) = shared(kind);
            for (path, _) in files(kind, language).unwrap().iter().chain(shared) {
                let text = fs::read_to_string(project.join(path)).unwrap();
                assert!(!text.contains(EXAMPLE) && !text.contains(example), "{path} of {language}");
            }
            let world = fs::read_to_string(project.join("wit/world.wit")).unwrap();
            assert!(world.starts_with(&format!("package example:{name};")), "{world}");
        }
    }

    #[test]
    fn every_kind_can_be_begun_in_rust_and_what_cannot_is_refused_with_what_can() {
        for kind in Kind::value_variants() {
            assert!(files(*kind, Language::Rust).is_some(), "{kind:?}");
        }
        assert!(files(Kind::Service, Language::C).is_none());
        let error = missing(Kind::Service, Language::C).to_string();
        assert!(error.contains("this kind in C") && error.contains("--lang rust"), "{error}");
    }

    #[test]
    fn names_that_some_tool_could_not_take_are_refused() {
        for name in ["", "Hello", "9lives", "a b", "a-1", "a-", "../up", "test", &"a".repeat(41)] {
            assert!(check(name).is_err(), "{name:?}");
        }
        check("my-plugin2").unwrap();
    }
}
