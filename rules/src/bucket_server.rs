//! `[bucket-server]`: the server of Redis's protocol at which plugins of several hosts share buckets. Knows how its
//! address is written; connects to nothing.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use adit_config_reader::Spanned;
use http::uri::Authority;

use crate::document;
use crate::grants::{self, SecretSource};
use crate::value::{Invalid, Reader};

/// Where shared buckets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketServerPlan {
    pub tls: bool,
    /// A name or an address, an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    pub database: u32,
    pub username: Option<String>,
    pub password: Option<SecretSource>,
    /// Whose certificates are believed besides those of the system.
    pub ca: Option<PathBuf>,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// For one operation, with the connection that it may need.
    pub timeout: Duration,
}

#[derive(Debug, PartialEq, Eq)]
struct Address {
    tls: bool,
    host: String,
    port: u16,
    database: u32,
}

impl Address {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = |message: &str| Invalid::with_help(message, HELP);
        let (tls, rest) = match text.split_once("://") {
            Some(("redis", rest)) => (false, rest),
            Some(("rediss", rest)) => (true, rest),
            _ => {
                return Err(wrong("the address of this server begins with redis:// or, with TLS, rediss://"));
            }
        };
        if rest.contains('@') {
            let help = "write username = \"NAME\" and password = { file = \"PATH\" } beside the url";
            return Err(Invalid::with_help("no password stands in this file", help));
        }
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = if database.is_empty() { Some(0) } else { database.parse().ok() };
        let database = database.ok_or_else(|| wrong("behind the `/` stands the number of a database"))?;
        let authority = authority.parse::<Authority>().map_err(|_| wrong("this is not a host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = match authority.port_u16() {
            None if authority.as_str().len() == authority.host().len() => PORT,
            Some(port) if port > 0 => port,
            _ => return Err(wrong("the port of this server is not a number from 1 to 65535")),
        };
        if host.is_empty() {
            return Err(wrong("this is not a host"));
        }
        Ok(Self { tls, host, port, database })
    }
}

pub(super) fn lower(
    written: Option<&Spanned<document::BucketServer>>,
    reading: &mut Reader<'_>,
) -> Option<BucketServerPlan> {
    let written = written?;
    let server = written.get_ref();
    let Some(url) = &server.url else {
        reading.mistakes.add_missing(written.span(), "url", "write url = \"redis://10.0.0.5\"");
        return None;
    };
    let address = reading.take(url, Address::parse(url.get_ref()));
    let password = server.password.as_ref().and_then(|password| {
        let source = grants::secret(password.get_ref(), reading);
        reading.take(password, source)
    });
    if let (Some(username), None) = (&server.username, &server.password) {
        let help = "write password = { file = \"PATH\" }";
        reading.refuse(username, Invalid::with_help("a user has a password", help));
    }
    if let (Some(ca), Some(Address { tls: false, .. })) = (&server.ca, &address) {
        let help = "write url = \"rediss://…\", or leave ca out";
        reading.refuse(ca, Invalid::with_help("nothing is verified without TLS", help));
    }
    let ca = reading.path(server.ca.as_ref());
    let prefix = server.prefix.as_ref().and_then(|prefix| {
        let outcome = grants::check_name(prefix.get_ref(), "a prefix").map(|()| prefix.get_ref().clone());
        reading.take(prefix, outcome)
    });
    let timeout = reading.duration(server.timeout.as_ref(), DEFAULT_TIMEOUT, TIMEOUT);
    let Address { tls, host, port, database } = address?;
    let username = server.username.as_ref().map(|username| username.get_ref().clone());
    let prefix = prefix.unwrap_or_else(|| PREFIX.to_owned());
    Some(BucketServerPlan { tls, host, port, database, username, password, ca, prefix, timeout })
}

const HELP: &str =
    "write \"redis://10.0.0.5:6379\", \"rediss://buckets.example.com\" or \"redis://10.0.0.5/2\"";
const PORT: u16 = 6379;
const PREFIX: &str = "adit";
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::OnError;

    #[test]
    fn an_address_has_a_port_and_a_database_and_no_password() {
        for (text, tls, host, port, database) in [
            ("redis://10.0.0.5", false, "10.0.0.5", 6379, 0),
            ("rediss://Buckets.Example.com:6380/2", true, "buckets.example.com", 6380, 2),
            ("redis://[fd00::1]:1/", false, "fd00::1", 1, 0),
        ] {
            assert_eq!(Address::parse(text), Ok(Address { tls, host: host.to_owned(), port, database }));
        }
        for wrong in [
            "",
            "10.0.0.5",
            "http://a",
            "redis://",
            "redis://a:0",
            "redis://a:x",
            "redis://a/b",
            "redis://a/-1",
            "redis://a b",
            "redis://u:p@a",
            "redis://:p@a",
        ] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn read(server: &str, grants: &str) -> Result<crate::plan::Plan, String> {
        let text = format!(
            "{server}\n[[plugin]]\nname = \"a\"\ncomponent = \"a.wasm\"\n{grants}\n\
             [[ingress]]\nservice = \"http_status:404\"\nplugins = [\"a\"]\n"
        );
        crate::read("host.toml", &text, Path::new("/etc/adit")).map_err(|mistakes| mistakes.to_string())
    }

    const SERVER: &str = "[bucket-server]\nurl = \"redis://10.0.0.5\"";
    const SHARED: &str = "[plugin.grants]\nbuckets = { b = \"1MiB\" }\nshared-buckets = [\"b\"]";

    #[test]
    fn what_a_plugin_does_without_the_server_is_what_it_does_about_errors_unless_it_says_so() {
        let read = |keys: &str| {
            let plan = read(SERVER, &format!("{keys}\n{SHARED}")).unwrap();
            (plan.plugins[0].on_error, plan.plugins[0].on_away)
        };
        assert_eq!(read(""), (OnError::Deny, OnError::Deny));
        assert_eq!(read("on-away = \"skip\""), (OnError::Deny, OnError::Skip));
        assert_eq!(read("on-error = \"skip\""), (OnError::Skip, OnError::Skip));
        assert_eq!(read("on-error = \"skip\"\non-away = \"deny\""), (OnError::Skip, OnError::Deny));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_at_its_place() {
        let kept =
            "[plugin.grants]\nbuckets = { b = \"1MiB\" }\nkept-buckets = [\"b\"]\nshared-buckets = [\"b\"]";
        let other = "[plugin.grants]\nbuckets = { b = \"1MiB\" }\nshared-buckets = [\"c\"]";
        for (server, grants, wanted) in [
            ("", SHARED, "no server to share this bucket at"),
            (SERVER, other, "is not among `buckets`"),
            (SERVER, kept, "a bucket is in one place"),
            (SERVER, "on-away = \"skip\"", "this plugin has no shared buckets"),
            ("[bucket-server]\nprefix = \"a\"", SHARED, "url"),
            ("[bucket-server]\nurl = \"redis://:p@a\"", SHARED, "no password stands in this file"),
            ("[bucket-server]\nurl = \"redis://a\"\nca = \"ca.pem\"", SHARED, "without TLS"),
            ("[bucket-server]\nurl = \"redis://a\"\nusername = \"u\"", SHARED, "a user has a password"),
            ("[bucket-server]\nurl = \"redis://a\"\nprefix = \"a b\"", SHARED, "cannot be a prefix"),
            ("[bucket-server]\nurl = \"redis://a\"\ntimeout = \"1m\"", SHARED, "out of range"),
        ] {
            let said = read(server, grants).unwrap_err();
            assert!(said.contains(wanted) && said.contains("host.toml:"), "{server} {grants}: {said}");
        }
    }
}
