//! The forms of a service. Knows how they are written; opens nothing.

use std::path::Path;

use http::StatusCode;
use http::uri::Authority;

use crate::plan::{BASTION, SOCKS, Service};
use crate::value::Invalid;

impl Service {
    /// Reads one of the forms; a relative path of a socket begins at `folder`. No message repeats the
    /// text, since people write passwords into URLs.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Invalid> {
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "http" => Ok(Self::Http { authority: authority(rest)? }),
                "https" => Ok(Self::Https { authority: authority(rest)? }),
                "unix" => {
                    Err(Invalid::with_help("a Unix socket is written without `//`", "write \"unix:/path\""))
                }
                "ws" => Err(Invalid::with_help(WEB_SOCKET, "write \"http://…\"")),
                "wss" => Err(Invalid::with_help(WEB_SOCKET, "write \"https://…\"")),
                "unix+tls" => {
                    let help = "write \"unix+tls:/path\"";
                    Err(Invalid::with_help("a Unix socket is written without `//`", help))
                }
                scheme => Self::tcp(scheme, rest),
            };
        }
        match text.split_once(':') {
            Some((scheme @ ("unix" | "unix+tls"), "")) => {
                let help = format!("write \"{scheme}:/path\"");
                Err(Invalid::with_help("the path of the socket is missing", help))
            }
            Some(("unix", path)) => Ok(Self::Unix { path: folder.join(path), tls: false }),
            Some(("unix+tls", path)) => Ok(Self::Unix { path: folder.join(path), tls: true }),
            Some(("http_status", code)) => status(code),
            None if matches!(text, "hello_world" | "hello-world") => Ok(Self::HelloWorld),
            None if text == BASTION => Ok(Self::Bastion),
            None if text == SOCKS => Ok(Self::Socks),
            _ => Err(unknown(text)),
        }
    }
}

impl Service {
    /// One whose bytes mean nothing here; of a scheme that is not usual it has to have a port.
    fn tcp(scheme: &str, rest: &str) -> Result<Self, Invalid> {
        let usual = USUAL_PORTS.iter().find(|(known, _)| *known == scheme).map(|(_, port)| *port);
        let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if usual.is_none() && (!has_port || is_near(scheme) || !is_scheme(scheme)) {
            return Err(unknown_scheme(scheme));
        }
        Self::bytes(scheme, authority(rest)?, usual)
    }

    /// The same, whatever its scheme is called.
    pub(crate) fn any_scheme(scheme: &str, rest: &str) -> Result<Self, Invalid> {
        let usual = USUAL_PORTS.iter().find(|(known, _)| *known == scheme).map(|(_, port)| *port);
        Self::bytes(scheme, authority(rest)?, usual)
    }

    fn bytes(scheme: &str, authority: Authority, usual: Option<u16>) -> Result<Self, Invalid> {
        let authority = match (authority.port_u16(), usual) {
            (Some(_), _) => authority,
            (None, Some(port)) => {
                format!("{authority}:{port}").parse().map_err(|_| unknown_scheme(scheme))?
            }
            (None, None) => return Err(Invalid::new("a service of this scheme needs a port")),
        };
        Ok(Self::Tcp { scheme: scheme.into(), authority })
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c))
}

fn is_near(scheme: &str) -> bool {
    adit_config_reader::closest(scheme, ["http", "https", "unix"]).is_some()
}

fn authority(rest: &str) -> Result<Authority, Invalid> {
    let (text, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !matches!(path, "" | "/") {
        let help = "end it after the host and port; the path of a request reaches the service unchanged";
        return Err(Invalid::with_help("a service has no path", help));
    }
    if text.contains('@') {
        let help = "leave user and password out; set an Authorization header with a plugin instead";
        return Err(Invalid::with_help("a service has no user name", help));
    }
    let authority = text.parse::<Authority>().ok().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| {
        Invalid::with_help(
            "the host of this service is missing or not a host",
            "write \"http://127.0.0.1:8080\"",
        )
    })?;
    if authority.host().len() < text.len() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(Invalid::new("the port of this service is not a number from 1 to 65535"));
    }
    Ok(authority)
}

fn status(code: &str) -> Result<Service, Invalid> {
    let status = code.parse::<u16>().ok().filter(|code| LOWEST_STATUS <= *code);
    let status = status.and_then(|code| StatusCode::from_u16(code).ok());
    // 1xx would announce another answer, and there is none.
    status.map(Service::Status).ok_or_else(|| Invalid::new("a status is a number from 200 to 999"))
}

fn unknown_scheme(scheme: &str) -> Invalid {
    match adit_config_reader::closest(scheme, ["http", "https", "unix"]) {
        Some(near) => {
            let form = if near == "unix" { "unix:/path" } else { &format!("{near}://…") };
            Invalid::with_help(format!("unknown scheme `{scheme}`"), format!("did you mean \"{form}\"?"))
        }
        None => {
            let message = format!("a service of the scheme `{scheme}` needs a port");
            Invalid::with_help(message, format!("write \"{scheme}://host:port\"; {FORMS}"))
        }
    }
}

fn unknown(text: &str) -> Invalid {
    let word = text.split(':').next().unwrap_or_default();
    let meant = adit_config_reader::closest(word, ["http_status", "hello_world", "unix"]);
    let is_address = text.parse::<Authority>().is_ok_and(|authority| authority.port_u16().is_some());
    if is_address && meant != Some("http_status") && !text.contains('@') {
        let help = format!("did you mean \"http://{text}\"?");
        return Invalid::with_help("the scheme of this service is missing", help);
    }
    let help = match meant {
        Some("http_status") => "did you mean \"http_status:404\"?",
        Some("hello_world") => "did you mean \"hello_world\"?",
        Some("unix") => "did you mean \"unix:/path\"?",
        _ => FORMS,
    };
    Invalid::with_help("this is not a service", help)
}

const FORMS: &str = "a service is http://host:port, https://host:port, unix:/path, unix+tls:/path, ssh://host, rdp://host, smb://host, tcp://host:port, bastion, socks-proxy, http_status:404, hello_world or wasm:PLUGIN";

const WEB_SOCKET: &str = "WebSockets pass through HTTP services";

/// Ports of services of bytes that name none, as the reference has them.
const USUAL_PORTS: [(&str, u16); 4] = [("tcp", 7864), ("ssh", 22), ("rdp", 3389), ("smb", 445)];

const LOWEST_STATUS: u16 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Service, Invalid> {
        Service::parse(text, Path::new("/etc/adit"))
    }

    #[test]
    fn every_form_is_read() {
        let at = |text| Authority::from_static(text);
        for (text, service) in [
            ("http://127.0.0.1:8080", Service::Http { authority: at("127.0.0.1:8080") }),
            ("http://app", Service::Http { authority: at("app") }),
            ("HTTP://app/", Service::Http { authority: at("app") }),
            ("https://[::1]:8443", Service::Https { authority: at("[::1]:8443") }),
            ("unix:/run/app.sock", Service::Unix { path: "/run/app.sock".into(), tls: false }),
            ("unix:app.sock", Service::Unix { path: "/etc/adit/app.sock".into(), tls: false }),
            ("unix+tls:/run/app.sock", Service::Unix { path: "/run/app.sock".into(), tls: true }),
            ("ssh://db", Service::Tcp { scheme: "ssh".into(), authority: at("db:22") }),
            ("SSH://db:2222/", Service::Tcp { scheme: "ssh".into(), authority: at("db:2222") }),
            ("tcp://db", Service::Tcp { scheme: "tcp".into(), authority: at("db:7864") }),
            ("rdp://[::1]", Service::Tcp { scheme: "rdp".into(), authority: at("[::1]:3389") }),
            ("smb://nas", Service::Tcp { scheme: "smb".into(), authority: at("nas:445") }),
            ("redis://db:6379", Service::Tcp { scheme: "redis".into(), authority: at("db:6379") }),
            ("http_status:404", Service::Status(StatusCode::NOT_FOUND)),
            ("hello_world", Service::HelloWorld),
            ("hello-world", Service::HelloWorld),
            ("bastion", Service::Bastion),
            ("socks-proxy", Service::Socks),
        ] {
            assert_eq!(parse(text), Ok(service), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_way_out() {
        for (text, message, help) in [
            ("http://app:8080/base", "has no path", "after the host"),
            ("http://app?x=1", "has no path", "after the host"),
            ("http://me:hunter2@app", "no user name", "plugin"),
            ("http://", "host of this service", "127.0.0.1"),
            ("http://:8080", "host of this service", "127.0.0.1"),
            ("http://a b", "host of this service", "127.0.0.1"),
            ("http://app:99999", "port", ""),
            ("http://app:", "port", ""),
            ("http://app:0", "port", ""),
            ("htp://app", "unknown scheme `htp`", "\"http://…\""),
            ("httpss://app", "unknown scheme `httpss`", "\"https://…\""),
            ("gopher://app", "`gopher` needs a port", "gopher://host:port"),
            ("htp://app:80", "unknown scheme `htp`", "\"http://…\""),
            ("ssh://me:hunter2@app", "no user name", "plugin"),
            ("ssh://app:99999", "port", ""),
            ("tcp://app:22/x", "has no path", "after the host"),
            ("unix+tls:", "path of the socket", "unix+tls:/path"),
            ("ws://app", "WebSockets", "http://…"),
            ("wss://app", "WebSockets", "https://…"),
            ("unix:///run/app.sock", "without `//`", "unix:/path"),
            ("unix:", "path of the socket", "unix:/path"),
            ("localhost:8080", "scheme of this service", "\"http://localhost:8080\""),
            ("http_status:99", "200 to 999", ""),
            ("http_status:101", "200 to 999", ""),
            ("http_status:1000", "200 to 999", ""),
            ("http_status:", "200 to 999", ""),
            ("http-status:404", "not a service", "http_status:404"),
            ("hello", "not a service", "hello_world"),
            ("", "not a service", "hello_world"),
            ("banana", "not a service", "hello_world"),
        ] {
            let wrong = parse(text).unwrap_err();
            assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
            let helped = wrong.help.unwrap_or_default();
            assert!(helped.contains(help), "{text}: {helped}");
            assert!(!wrong.message.contains("hunter2") && !helped.contains("hunter2"));
        }
    }
}
