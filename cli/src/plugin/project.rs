//! A folder with the sources of one plugin. Knows which language it is in and where its parts are; runs
//! nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Rust,
    /// JavaScript
    Js,
    /// TypeScript
    Ts,
    Python,
    C,
    Go,
}

/// What is in a folder.
pub(super) struct Project {
    pub(super) folder: PathBuf,
    pub(super) language: Language,
}

impl Project {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let language = language(folder)?;
        let folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
        let project = Self { folder, language };
        if !project.wit().is_dir() {
            bail!(
                "{} is not there: a plugin's interface is described in its folder wit\n  way out: copy it from one that \
                 `adit plugin new` made",
                project.wit().display()
            );
        }
        Ok(project)
    }

    /// The WIT package whose only world is the plugin's.
    pub(super) fn wit(&self) -> PathBuf {
        self.folder.join("wit")
    }

    /// Where everything that is made goes.
    pub(super) fn build(&self) -> PathBuf {
        self.folder.join("build")
    }

    pub(super) fn component(&self) -> PathBuf {
        self.build().join(COMPONENT)
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.folder.join(file).is_file()
    }
}

/// The name of what is built.
pub(super) const COMPONENT: &str = "plugin.wasm";

fn language(folder: &Path) -> Result<Language> {
    if !folder.is_dir() {
        bail!(
            "{} is no folder\n  way out: name the folder of a plugin, such as one that `adit plugin new` made",
            folder.display()
        );
    }
    for (file, language) in MARKS {
        if folder.join(file).is_file() {
            return Ok(*language);
        }
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    if entries.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "c")) {
        return Ok(Language::C);
    }
    bail!(
        "{} holds no plugin: no Cargo.toml (Rust), plugin.ts (TypeScript), package.json (JavaScript), app.py (Python), go.mod (Go) or .c \
         file\n  way out: `adit plugin new --lang {} NAME` begins one",
        folder.display(),
        "rust|js|ts|python|c|go"
    );
}

/// A file that a project in a language has.
const MARKS: &[(&str, Language)] = &[
    ("Cargo.toml", Language::Rust),
    // It has a package.json too.
    ("plugin.ts", Language::Ts),
    ("package.json", Language::Js),
    ("app.py", Language::Python),
    ("go.mod", Language::Go),
];

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "Rust",
            Self::Js => "JavaScript",
            Self::Ts => "TypeScript",
            Self::Python => "Python",
            Self::C => "C",
            Self::Go => "Go",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_of_a_project_is_seen_from_its_files() {
        for (file, language) in MARKS.iter().copied().chain([("anything.c", Language::C)]) {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(file), "").unwrap();
            assert_eq!(super::language(folder.path()).unwrap(), language);
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(language(empty.path()).unwrap_err().to_string().contains("adit plugin new"));
    }
}
