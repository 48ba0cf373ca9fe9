//! Where this machine gets Debian's packages from, and how to ask there for another suite.
//!
//! Reads apt's two formats (sources.list(5)); runs nothing.

use std::path::Path;

/// A place that serves Debian's main component, in the words of the machine's own configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mirror {
    /// `deb [options] uri suite component …`; the options keep their brackets.
    Line { options: String, uri: String },
    /// A stanza of a `.sources` file without its types, suites and components.
    Stanza { fields: String },
}

impl Mirror {
    /// The first one in apt's files below `folder` (`/etc/apt`).
    pub(crate) fn find(folder: &Path) -> Option<Self> {
        let mut files = vec![folder.join("sources.list")];
        if let Ok(entries) = std::fs::read_dir(folder.join("sources.list.d")) {
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
        files.sort();
        files.iter().find_map(|file| {
            let text = std::fs::read_to_string(file).ok()?;
            match file.extension()?.to_str()? {
                "list" => from_lines(&text),
                "sources" => from_stanzas(&text),
                _ => None,
            }
        })
    }

    /// The name and text of a file for apt that serves `suite` from the same place.
    pub(crate) fn source(&self, suite: &str) -> (&'static str, String) {
        match self {
            Self::Line { options, uri } => ("adit.list", format!("deb {options} {uri} {suite} main\n")),
            Self::Stanza { fields } => {
                ("adit.sources", format!("Types: deb\nSuites: {suite}\nComponents: main\n{fields}"))
            }
        }
    }
}

fn from_lines(text: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let rest = line.trim().strip_prefix("deb ")?.trim();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (options, rest) = inner.split_once(']')?;
                (format!("[{options}]"), rest)
            }
            None => (String::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let is_main = words.any(|component| component == "main");
        (is_main && is_debian(suite)).then(|| Mirror::Line { options, uri: uri.to_owned() })
    })
}

fn from_stanzas(text: &str) -> Option<Mirror> {
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    kept.split(|line| line.trim().is_empty()).find_map(|stanza| {
        let has = |name: &str, word: &dyn Fn(&str) -> bool| {
            field(stanza, name).is_some_and(|value| value.split_whitespace().any(word))
        };
        let is_off = has("enabled", &|word| matches!(word, "no" | "false" | "off" | "0"));
        let fits = has("types", &|word| word == "deb")
            && has("suites", &is_debian)
            && has("components", &|word| word == "main");
        if is_off || !fits {
            return None;
        }
        let mut fields = String::new();
        let mut is_kept = true;
        for line in stanza {
            // A line that begins with white space goes on with the field above it.
            if let Some((name, _)) = line.split_once(':').filter(|_| !line.starts_with([' ', '\t'])) {
                is_kept = !["types", "suites", "components", "enabled"]
                    .contains(&name.trim().to_ascii_lowercase().as_str());
            }
            if is_kept {
                fields.push_str(line);
                fields.push('\n');
            }
        }
        Some(Mirror::Stanza { fields })
    })
}

fn field<'a>(stanza: &[&'a str], name: &str) -> Option<&'a str> {
    stanza.iter().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Suites of the main archive; a place that serves one of them serves the others too. The security
/// archive and third parties use other names.
fn is_debian(suite: &str) -> bool {
    const SUITES: [&str; 10] = [
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "sid",
        "oldstable",
        "stable",
        "testing",
        "unstable",
    ];
    SUITES.contains(&suite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_keeps_its_address_and_key_and_changes_its_suite() {
        let mirror = from_stanzas(
            "Types: deb\nURIs: https://third.example/apt\nSuites: nodistro\nComponents: main\n\n\
             # a remark\nTypes: deb deb-src\nURIs: http://mirror.example/debian\n\
             Suites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By:\n -----BEGIN\n .\n Components\n",
        )
        .unwrap();
        let (name, text) = mirror.source("trixie");
        assert_eq!(name, "adit.sources");
        assert_eq!(
            text,
            "Types: deb\nSuites: trixie\nComponents: main\nURIs: http://mirror.example/debian\n\
             Signed-By:\n -----BEGIN\n .\n Components\n"
        );
    }

    #[test]
    fn a_line_keeps_its_options() {
        let mirror = from_lines(
            "# deb http://off.example/debian bookworm main\n\
             deb http://security.example/debian-security bookworm-security main\n\
             deb-src http://mirror.example/debian bookworm main\n\
             deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm contrib main # mine\n",
        )
        .unwrap();
        assert_eq!(
            mirror.source("trixie").1,
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main\n"
        );
    }

    #[test]
    fn what_is_off_or_not_debian_is_no_mirror() {
        let off =
            "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n";
        assert_eq!(from_stanzas(off), None);
        assert_eq!(from_stanzas(&off.replace("bookworm", "jammy").replace("no", "yes")), None);
        assert_eq!(from_lines("deb http://m.example/ubuntu jammy main\n"), None);
    }
}
