//! Where a component lies: `oci://registry/name:tag@sha256:…`. Pure.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};

use crate::digest::Digest;

/// A registry, a repository in it, and which of its components: by tag, by digest, or both, and then the
/// digest counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host, with a port where one was written; lower case.
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// Whether a text is meant as one.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// What the registry is asked for: the digest where there is one.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => String::new(),
        }
    }

    /// The same repository, another component.
    pub fn at(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Whether the registry is this machine.
    pub fn is_local(&self) -> bool {
        let host = match self.registry.rfind(':') {
            Some(at) if !self.registry[at..].contains(']') => &self.registry[..at],
            _ => &self.registry,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for Reference {
    type Err = anyhow::Error;

    /// # Errors
    /// What is wrong with it, without repeating it.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let rest = text.strip_prefix(SCHEME).context("a reference begins with oci://")?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (rest, None),
        };
        let (registry, path) = rest.split_once('/').context("a reference has a name behind its registry")?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        let is_of_a_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
        ensure!(
            !registry.is_empty() && registry.bytes().all(is_of_a_host),
            "the registry is a host name, with a port where it needs one"
        );
        let is_of_a_name =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
        let is_segment = |segment: &str| {
            segment.starts_with(|c: char| c.is_ascii_alphanumeric())
                && segment.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        ensure!(
            repository.len() <= LONGEST_NAME
                && repository.bytes().all(is_of_a_name)
                && repository.split('/').all(is_segment),
            "the name has lower-case letters, digits and `._-`, in parts between `/`"
        );
        if let Some(tag) = &tag {
            let is_of_a_tag = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            ensure!(
                (1..=LONGEST_TAG).contains(&tag.len())
                    && tag.bytes().all(is_of_a_tag)
                    && !tag.starts_with(['.', '-']),
                "a tag has letters, digits and `._-`"
            );
        }
        if tag.is_none() && digest.is_none() {
            bail!("say which one: a tag such as :1.0, or a digest behind @");
        }
        Ok(Self { registry: registry.to_ascii_lowercase(), repository: repository.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

const SCHEME: &str = "oci://";
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_reference_is_read_as_it_is_written() {
        for text in [
            "oci://ghcr.io/acme/plugins/jwt:1.0",
            "oci://127.0.0.1:5000/jwt:latest",
            "oci://[::1]:5000/jwt:latest",
            &format!("oci://registry.example.com/jwt@{DIGEST}"),
            &format!("oci://registry.example.com:443/jwt:1.0@{DIGEST}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        let both: Reference = format!("oci://a.example/jwt:1.0@{DIGEST}").parse().unwrap();
        assert_eq!(both.wanted(), DIGEST);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [
            "ghcr.io/a:1",
            "oci://",
            "oci://ghcr.io",
            "oci://ghcr.io/",
            "oci://ghcr.io/a",
            "oci://ghcr.io/A:1",
            "oci://ghcr.io/a/../b:1",
            "oci://ghcr.io/a//b:1",
            "oci://me@ghcr.io/a:1",
            "oci://ghcr.io/a:",
            "oci://ghcr.io/a:.1",
            "oci://ghcr.io/a:1@sha256:00",
            "oci://gh cr.io/a:1",
            "oci:///a:1",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (registry, is) in [
            ("localhost:5000", true),
            ("127.0.0.2", true),
            ("[::1]:5000", true),
            ("localhost.example.com", false),
            ("10.0.0.1", false),
        ] {
            let reference: Reference = format!("oci://{registry}/a:1").parse().unwrap();
            assert_eq!(reference.is_local(), is, "{registry}");
        }
    }
}
