//! The command line as users of the reference write it, as ours: its flags stand wherever they like, in front of
//! `tunnel` too, with one dash or two, and `cloudflared --url X` means `tunnel --url X`. Knows words; does not
//! know what they do, and leaves what it does not know for clap to refuse.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};

use crate::tunnel::reference::{WORDS, find};

/// `words` without the name of the program. `is_set` says which names the environment has.
pub(crate) fn arranged(
    words: Vec<OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Vec<OsString> {
    let Front { ours, theirs, rest } = front(words);
    let mut line = ours;
    let word = rest.first().and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    match word.as_str() {
        "tunnel" => {
            line.push("tunnel".into());
            line.extend(theirs);
            line.extend(other_names(&environment));
            line.extend(rest.into_iter().skip(1).map(two_dashes));
        }
        // The flags of a tunnel without a word are a tunnel's, and so is this old name.
        "" | "login" if !theirs.is_empty() || word == "login" => {
            line.push("tunnel".into());
            line.extend(theirs);
            line.extend(other_names(&environment));
            line.extend(rest);
        }
        // It asks nothing of anybody.
        "version" => line.extend(rest),
        // What runs is what is installed.
        "service" => {
            line.extend(rest);
            line.extend(theirs.into_iter().filter(|word| !is_idle(word)));
        }
        // Whatever they say, it is none.
        word if ABSENT.iter().any(|(absent, _)| *absent == word) => line.extend(rest),
        _ => {
            line.extend(theirs);
            line.extend(rest);
        }
    }
    line
}

/// What stands in front of the first word that is no flag.
struct Front {
    /// Flags of this program as a whole.
    ours: Vec<OsString>,
    /// Flags of the reference's tunnel with their values.
    theirs: Vec<OsString>,
    /// From that word on; also from the first flag on that neither has.
    rest: Vec<OsString>,
}

fn front(words: Vec<OsString>) -> Front {
    let mut front = Front { ours: Vec::new(), theirs: Vec::new(), rest: Vec::new() };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let word = two_dashes(word);
        let text = word.to_str().unwrap_or_default();
        if matches!(text, "-v" | "-V" | "--version") {
            front.ours.push("--version".into());
        } else if let Some(is_apart) = value_of_ours(text) {
            front.ours.push(word);
            front.ours.extend(is_apart.then(|| words.next()).flatten());
        } else if let Some(is_apart) = value_of_theirs(text) {
            front.theirs.push(word);
            front.theirs.extend(is_apart.then(|| words.next()).flatten());
        } else {
            front.rest.push(word);
            front.rest.extend(words);
            break;
        }
    }
    front
}

/// Whether the value of this flag of ours is the next word; `None` if it is none of ours.
fn value_of_ours(word: &str) -> Option<bool> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    match name {
        "--log" | "--log-format" => Some(value.is_none()),
        "--stop-with-stdin" => Some(false),
        _ => None,
    }
}

/// The same for a flag of the reference.
fn value_of_theirs(word: &str) -> Option<bool> {
    let flag = word.strip_prefix('-')?;
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
    Some(find(name)?.takes_value && value.is_none())
}

/// Why a command of the reference is none here, if that is what is wrong with a line.
pub(crate) fn absent(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let is_of_access = || error.to_string().contains("adit access");
    let why = match ABSENT.iter().find(|(command, _)| command == word) {
        Some((_, why)) => why,
        None if ABSENT_OF_ACCESS.contains(&word.as_str()) && is_of_access() => ACCESS,
        None => return None,
    };
    Some(format!("there is no `{word}`: {why}"))
}

/// Of `access`.
const ABSENT_OF_ACCESS: [&str; 5] = ["login", "curl", "token", "ssh-config", "ssh-gen"];
const ACCESS: &str = "of `access` there is tcp, also called ssh, rdp and smb";
const ABSENT: &[(&str, &str)] = &[
    ("diag", "it is not here yet; `cloudflared tunnel diag` collects from hosts of Adit"),
    ("ip", "private networks are not carried yet"),
    ("vnet", "private networks are not carried yet"),
    ("update", "this program is updated by whoever has installed it"),
    ("proxy-dns", "the DNS proxy was removed from cloudflared too"),
    ("db-connect", "it was removed from cloudflared too"),
];

fn is_idle(word: &OsString) -> bool {
    let name = word.to_str().and_then(|word| word.strip_prefix("--"));
    name.is_some_and(|name| matches!(name.split('=').next(), Some("no-autoupdate" | "is-autoupdated")))
}

/// The reference takes `-loglevel` for `--loglevel`.
fn two_dashes(word: OsString) -> OsString {
    let long = word.to_str().and_then(|word| word.strip_prefix('-')).filter(|word| !word.starts_with('-'));
    let name = long.and_then(|long| long.split('=').next()).filter(|name| name.len() > 1);
    match (long, name.and_then(find)) {
        (Some(long), Some(_)) => format!("--{long}").into(),
        _ => word,
    }
}

/// Flags whose second name in the environment has a value where the first has none.
fn other_names(environment: &impl Fn(&str) -> Option<OsString>) -> Vec<OsString> {
    let given = WORDS.iter().filter_map(|word| {
        let (first, others) = word.environment.split_first()?;
        if environment(first).is_some() {
            return None;
        }
        let value = others.iter().find_map(|name| environment(name)).filter(|value| !value.is_empty())?;
        let mut flag = OsString::from(format!("--{}=", word.name));
        flag.push(value);
        Some(flag)
    });
    given.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &str) -> String {
        let environment = |name: &str| (name == "TUNNEL_PROTO_LOGLEVEL").then(|| "debug".into());
        let arranged = arranged(words.split_whitespace().map(OsString::from).collect(), environment);
        arranged.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn flags_of_the_reference_stand_where_they_like() {
        let proto = "--transport-loglevel=debug";
        for (written, wanted) in [
            ("tunnel run", format!("tunnel {proto} run")),
            (
                "--no-autoupdate --config /c.yml tunnel run --token T",
                format!("tunnel --no-autoupdate --config /c.yml {proto} run --token T"),
            ),
            ("--log debug --metrics=a:1 tunnel run", format!("--log debug tunnel --metrics=a:1 {proto} run")),
            (
                "-config c.yml tunnel -loglevel debug run",
                format!("tunnel --config c.yml {proto} --loglevel debug run"),
            ),
            ("--url http://a", format!("tunnel --url http://a {proto}")),
            ("login", format!("tunnel {proto} login")),
            ("--no-autoupdate version", "version".to_owned()),
            ("version --short", "version --short".to_owned()),
            ("--no-autoupdate version --verbose -o json", "version --verbose -o json".to_owned()),
            ("-v", "--version".to_owned()),
            ("--no-autoupdate --config c.toml service install", "service install --config c.toml".to_owned()),
            ("--bogus tunnel run", "--bogus tunnel run".to_owned()),
            ("explain -H a", "explain -H a".to_owned()),
            ("config check a", "config check a".to_owned()),
            ("", String::new()),
        ] {
            assert_eq!(line(written), wanted, "{written}");
        }
    }
}
