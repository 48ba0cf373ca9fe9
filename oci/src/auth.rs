//! Who we are to a registry: credentials as Docker keeps them, and what a registry asks for. Passwords and
//! tokens are never printed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) name: String,
    pub(crate) password: String,
}

impl Credentials {
    /// For an Authorization header.
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.name, self.password)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
}

/// What Docker's configuration says of this registry: `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json` or
/// `~/.docker/config.json`. Credential helpers, which are programs, are not asked.
///
/// # Errors
/// The file is there and cannot be read.
pub(crate) fn credentials(registry: &str) -> anyhow::Result<Option<Credentials>> {
    let Some(path) = place() else { return Ok(None) };
    let text = match adit_files::read(&path, LARGEST_FILE) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    find(&text, registry).with_context(|| format!("reading {}", path.display()))
}

fn place() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("REGISTRY_AUTH_FILE")
        .or_else(|| named("DOCKER_CONFIG").map(|folder| folder.join("config.json")))
        .or_else(|| named("HOME").map(|home| home.join(Path::new(".docker/config.json"))))
}

fn find(text: &[u8], registry: &str) -> anyhow::Result<Option<Credentials>> {
    // The parser's own words could repeat what stands there.
    let config: Config =
        serde_json::from_slice(text).map_err(|_| anyhow::anyhow!("it is not Docker's configuration"))?;
    let host = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        key.split('/').next().unwrap_or_default().to_ascii_lowercase()
    };
    let is_it =
        |key: &str| host(key) == registry || (registry == "docker.io" && host(key) == "index.docker.io");
    let Some((_, entry)) = config.auths.iter().find(|(key, _)| is_it(key)) else { return Ok(None) };
    if entry.auth.is_empty() {
        let Entry { username, password, .. } = entry;
        let is_told = !username.is_empty();
        return Ok(is_told.then(|| Credentials { name: username.clone(), password: password.clone() }));
    }
    let decoded = STANDARD.decode(&entry.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.with_context(|| format!("what it has for {registry} is not base64"))?;
    let (name, password) =
        decoded.split_once(':').with_context(|| format!("what it has for {registry} has no password"))?;
    Ok(Some(Credentials { name: name.to_owned(), password: password.trim_end_matches('\0').to_owned() }))
}

/// What a registry asks for (RFC 9110 section 11.6.1).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    /// A token from there.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    pub(crate) fn read(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut fields = BTreeMap::new();
        let mut rest = rest.trim();
        while let Some((name, after)) = rest.split_once('=') {
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            fields.insert(name.trim().to_ascii_lowercase(), value.to_owned());
            rest = after.trim_start_matches([',', ' ']);
        }
        let realm = fields.remove("realm")?;
        Some(Self::Bearer { realm, service: fields.remove("service"), scope: fields.remove("scope") })
    }
}

/// Bytes of a file with the credentials of registries.
const LARGEST_FILE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_configuration_says_who_we_are() {
        let text = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{}"}}, "Registry.example.com:5000": {{"username": "b", "password": "q"}}, "empty.example.com": {{}}}}, "credsStore": "x"}}"#,
            STANDARD.encode("ada:p:w")
        );
        let found = |registry: &str| {
            find(text.as_bytes(), registry).unwrap().map(|found| (found.name, found.password))
        };
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(found("docker.io"), pair("ada", "p:w"));
        assert_eq!(found("registry.example.com:5000"), pair("b", "q"));
        assert_eq!(found("registry.example.com"), None);
        assert_eq!(found("empty.example.com"), None);
    }

    #[test]
    fn nothing_of_a_broken_configuration_is_repeated() {
        for text in [r#"{"auths": {"a": {"auth": "hunter2!"}}}"#, r#"{"auths": {"a": "hunter2"}}"#, "hunter2"]
        {
            let error = format!("{:#}", find(text.as_bytes(), "a").unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
        }
        let shown = format!("{:?}", Credentials { name: "ada".to_owned(), password: "hunter2".to_owned() });
        assert!(!shown.contains("hunter2"));
    }

    #[test]
    fn a_challenge_is_read() {
        let read = Challenge::read(
            r#"Bearer realm="https://a.example/token",service="r.example",scope="repository:a/b:pull,push""#,
        );
        let Some(Challenge::Bearer { realm, service, scope }) = read else { panic!("{read:?}") };
        assert_eq!((realm.as_str(), service.as_deref()), ("https://a.example/token", Some("r.example")));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(Challenge::read("basic realm=\"x\""), Some(Challenge::Basic));
        for bad in ["", "Digest x", "Bearer", "Bearer realm=\"open", "Bearer service=\"x\""] {
            assert_eq!(Challenge::read(bad), None, "{bad}");
        }
    }
}
