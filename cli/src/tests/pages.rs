//! The pages that people read, and the fenced examples on them.

use std::fs;
use std::path::{Path, PathBuf};

/// One page, by its path from the root of the project.
pub(super) struct Page {
    pub(super) path: String,
    pub(super) text: String,
}

/// A fenced example.
pub(super) struct Fence {
    /// `PAGE:LINE` of its first line.
    pub(super) place: String,
    /// `toml`, `console`, …
    pub(super) kind: String,
    pub(super) text: String,
}

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README.md, docs/ and every README.md of a folder of the project.
pub(super) fn all() -> Vec<Page> {
    const LEFT_OUT: [&str; 4] = ["target", ".git", "node_modules", "vectors"];
    fn gather(folder: &Path, name: &str, pages: &mut Vec<Page>) {
        for entry in fs::read_dir(folder).expect("a folder of the project").flatten() {
            let own = entry.file_name().to_string_lossy().into_owned();
            let path = if name.is_empty() { own.clone() } else { format!("{name}/{own}") };
            if entry.path().is_dir() {
                if !LEFT_OUT.contains(&own.as_str()) && !own.starts_with('.') {
                    gather(&entry.path(), &path, pages);
                }
            } else if own == "README.md" || path.starts_with("docs/") && own.ends_with(".md") {
                let text = fs::read_to_string(entry.path()).expect("a page is text");
                pages.push(Page { path, text });
            }
        }
    }
    let mut pages = Vec::new();
    gather(&root(), "", &mut pages);
    pages.sort_by(|one, other| one.path.cmp(&other.path));
    pages
}

pub(super) fn fences() -> Vec<Fence> {
    let mut fences = Vec::new();
    for Page { path, text } in all() {
        let mut open: Option<Fence> = None;
        for (number, line) in text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(kind), None) => {
                    let place = format!("{path}:{}", number + 2);
                    open = Some(Fence { place, kind: kind.trim().to_owned(), text: String::new() });
                }
                (Some(_), Some(_)) => fences.extend(open.take()),
                (None, Some(fence)) => {
                    fence.text.push_str(line);
                    fence.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{path}: an example has no end");
    }
    fences
}
