//! `adit plugin new`: a project to begin with. It is `examples/plugins/greeting` of this version, under
//! another name.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::project::Language;
use crate::{Failure, table};

#[derive(clap::Args)]
pub(crate) struct New {
    /// The language to write it in
    #[arg(long = "lang", value_name = "LANGUAGE", value_enum)]
    language: Language,
    /// Its name: lower-case letters, digits and hyphens. A folder of this name is made
    #[arg(value_name = "NAME")]
    name: String,
    /// Make the folder here
    #[arg(long = "in", value_name = "FOLDER", default_value = ".")]
    parent: PathBuf,
}

pub(super) fn create(asked: &New) -> Result<(), Failure> {
    check(&asked.name).map_err(Failure::Configuration)?;
    let folder = asked.parent.join(&asked.name);
    if folder.exists() {
        let error = anyhow::anyhow!("{} exists already\n  way out: choose another name", folder.display());
        return Err(Failure::Configuration(error));
    }
    for (path, content) in files(asked.language).iter().chain(SHARED) {
        let content = content.replace(EXAMPLE, &asked.name);
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
    ($folder:literal: $($file:literal),+ $(,)?) => {
        &[$((
            $file,
            include_str!(concat!("../../../examples/plugins/greeting/", $folder, "/", $file)),
        )),+]
    };
}

fn files(language: Language) -> &'static [(&'static str, &'static str)] {
    match language {
        Language::Rust => files!("rust": "Cargo.toml", "Cargo.lock", "src/lib.rs", ".gitignore"),
        Language::Js => files!("js": "package.json", "plugin.js", ".gitignore"),
        Language::Ts => {
            files!("typescript": "package.json", "tsconfig.json", "plugin.ts", "adit-plugin.ts", ".gitignore")
        }
        Language::Python => files!("python": "requirements.txt", "app.py", ".gitignore"),
        Language::C => files!("c": "filter.c", "json.c", "json.h", ".gitignore"),
        Language::Go => files!("go": "go.mod", "plugin.go", ".gitignore"),
    }
}

/// What every project has.
const SHARED: &[(&str, &str)] = &[
    ("tests.toml", include_str!("../../../examples/plugins/greeting/tests.toml")),
    ("wit/world.wit", include_str!("../../../examples/plugins/greeting/wit/world.wit")),
    ("wit/deps/adit-plugin/plugin.wit", include_str!("../../../wit/plugin.wit")),
    ("wit/deps/adit-plugin/services.wit", include_str!("../../../wit/services.wit")),
];

/// The name that is replaced, wherever it stands.
const EXAMPLE: &str = "greeting";
const LONGEST_NAME: usize = 40;
/// Words that would not be names in a manifest: Rust's own crates, and what WIT gives a meaning to.
const RESERVED: &[&str] = &["test", "core", "std", "alloc", "proc-macro", "plugin", "app", "internal"];

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_new_project_bears_its_name_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        for language in Language::value_variants() {
            let name = format!("my-{language}").to_lowercase();
            let parent = folder.path().to_owned();
            let asked = New { language: *language, name: name.clone(), parent };
            assert!(create(&asked).is_ok());
            assert!(matches!(create(&asked), Err(Failure::Configuration(_))), "it exists now");
            let project = folder.path().join(&name);
            for (path, _) in files(*language).iter().chain(SHARED) {
                let text = fs::read_to_string(project.join(path)).unwrap();
                assert!(!text.contains(EXAMPLE), "{path} of {language}");
            }
            let tests = fs::read_to_string(project.join("tests.toml")).unwrap();
            assert!(tests.contains(&format!("x-{name}")));
        }
    }

    #[test]
    fn names_that_some_tool_could_not_take_are_refused() {
        for name in ["", "Hello", "9lives", "a b", "a-1", "a-", "../up", "test", &"a".repeat(41)] {
            assert!(check(name).is_err(), "{name:?}");
        }
        check("my-plugin2").unwrap();
    }
}
