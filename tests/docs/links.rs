//! Every link from one page to another leads to a file, and to a heading of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::limits::root;

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut pages =
        vec![root().join("README.md"), root().join("ARCHITECTURE.md"), root().join("CHANGELOG.md")];
    for folder in ["docs", "plugins", "charts"] {
        gather(&root().join(folder), &mut pages);
    }
    let mut wrong = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).expect("a page is text");
        for (number, line) in text.lines().enumerate() {
            let links = line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split(')').next());
            for link in links.filter(|link| !link.contains("://") && !link.contains(' ')) {
                let (file, heading) = link.split_once('#').unwrap_or((link, ""));
                let target = match file {
                    "" => page.clone(),
                    file => page.parent().expect("a page lies in a folder").join(file),
                };
                let is_there = target.exists() && (heading.is_empty() || has(&target, heading));
                if !is_there {
                    wrong.push(format!("{}:{}: {link} leads nowhere", page.display(), number + 1));
                }
            }
        }
    }
    assert!(pages.len() > 30, "{} pages", pages.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a page has a heading whose words, in small letters with hyphens between them, are these.
fn has(page: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(page).unwrap_or_default();
    text.lines().filter(|line| line.starts_with('#')).any(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|letter| letter.is_alphanumeric() || "-_ ".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).eq(wanted.chars())
    })
}

fn gather(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of pages").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            gather(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}
