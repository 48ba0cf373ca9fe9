//! How services are spoken to: `[ingress.origin]`. Knows its keys and their bounds; no connection.

use std::time::Duration;

use adit_config_reader::Spanned;
use http::uri::Authority;
use rustls_pki_types::ServerName;

use crate::document::{HeaderCase, Http2, Origin};
use crate::plan::{OriginPlan, Reach, Service};
use crate::value::{Invalid, Reader};

/// What is written, with the defaults for what is not.
pub(super) fn lower(written: Option<&Spanned<Origin>>, reading: &mut Reader<'_>) -> OriginPlan {
    let nothing = Origin::default();
    let origin = written.map_or(&nothing, Spanned::get_ref);
    let response_timeout = origin.response_timeout.as_ref();
    OriginPlan {
        connect_timeout: reading.duration(
            origin.connect_timeout.as_ref(),
            CONNECT_TIMEOUT,
            MILLISECOND..=HOUR,
        ),
        tls_timeout: reading.duration(origin.tls_timeout.as_ref(), TLS_TIMEOUT, MILLISECOND..=HOUR),
        response_timeout: response_timeout.map(|text| reading.duration(Some(text), HOUR, MILLISECOND..=HOUR)),
        keep_alive_timeout: reading.duration(
            origin.keep_alive_timeout.as_ref(),
            KEEP_ALIVE,
            Duration::ZERO..=HOUR,
        ),
        keep_alive_connections: reading.count(
            origin.keep_alive_connections.as_ref(),
            KEEP_ALIVE_CONNECTIONS,
            0..=MOST_KEEP_ALIVE_CONNECTIONS,
        ),
        http2: origin.http2.as_ref().map_or_else(Http2::default, |http2| *http2.get_ref()),
        server_name_from_host: origin.server_name_from_host.as_ref().is_some_and(|from| *from.get_ref()),
        chunked: origin.chunked.as_ref().is_none_or(|chunked| *chunked.get_ref()),
        tcp_keep_alive: keep_alive(reading.duration(
            origin.tcp_keep_alive.as_ref(),
            TCP_KEEP_ALIVE,
            Duration::ZERO..=HOUR,
        )),
        happy_eyeballs: origin.happy_eyeballs.as_ref().is_none_or(|both| *both.get_ref()),
        header_case: origin.header_case.as_ref().map_or_else(HeaderCase::default, |case| *case.get_ref()),
        idle_timeout: origin
            .idle_timeout
            .as_ref()
            .map(|text| reading.duration(Some(text), LONGEST_IDLE, SECOND..=LONGEST_IDLE)),
        // What else is said of it, and whether anything is meant by it, the rule knows.
        reach: Reach::default(),
        tls_verify: origin.tls_verify.as_ref().is_none_or(|verify| *verify.get_ref()),
        ca_file: reading.path(origin.ca_file.as_ref()),
        server_name: origin.server_name.as_ref().and_then(|name| {
            let outcome = server_name(name.get_ref());
            reading.take(name, outcome)
        }),
        host_header: origin.host_header.as_ref().and_then(|host| {
            let outcome = host_header(host.get_ref());
            reading.take(host, outcome)
        }),
    }
}

impl Default for OriginPlan {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            tls_timeout: TLS_TIMEOUT,
            response_timeout: None,
            keep_alive_timeout: KEEP_ALIVE,
            keep_alive_connections: KEEP_ALIVE_CONNECTIONS,
            tls_verify: true,
            ca_file: None,
            server_name: None,
            host_header: None,
            server_name_from_host: false,
            http2: Http2::Never,
            chunked: true,
            tcp_keep_alive: Some(TCP_KEEP_ALIVE),
            happy_eyeballs: true,
            header_case: HeaderCase::Lower,
            idle_timeout: None,
            reach: Reach::default(),
        }
    }
}

/// What is written but does nothing for this service, or is dangerous; each with its key.
pub(super) fn warnings(written: &Origin, service: &Service) -> Vec<String> {
    let Origin { tls_timeout, tls_verify, ca_file, server_name, server_name_from_host, .. } = written;
    let is_only_offered = written.http2.as_ref().is_some_and(|http2| *http2.get_ref() == Http2::IfOffered);
    let tls = [
        ("tls-timeout", tls_timeout.is_some()),
        ("tls-verify", tls_verify.is_some()),
        ("ca-file", ca_file.is_some()),
        ("server-name", server_name.is_some()),
        ("server-name-from-host", server_name_from_host.is_some()),
        ("http2 = \"if-offered\"", is_only_offered),
    ];
    let http = [
        ("response-timeout", written.response_timeout.is_some()),
        ("keep-alive-timeout", written.keep_alive_timeout.is_some()),
        ("keep-alive-connections", written.keep_alive_connections.is_some()),
        ("http2", written.http2.is_some() && !is_only_offered),
        ("chunked", written.chunked.is_some()),
        ("header-case", written.header_case.is_some()),
        ("host-header", written.host_header.is_some()),
    ];
    let open = [("ip-rules", written.ip_rules.is_some())];
    let circuit = [("idle-timeout", written.idle_timeout.is_some()), open[0]];
    let idle = |keys: &[&[(&str, bool)]], kind: &str| -> Vec<String> {
        let written = keys.iter().flat_map(|keys| *keys).filter(|(_, is_written)| *is_written);
        written.map(|(key, _)| format!("origin.{key} has no effect on {kind}")).collect()
    };
    let is_unverified = tls_verify.as_ref().is_some_and(|verify| !verify.get_ref());
    match service {
        Service::Http { .. } => idle(&[&tls, &circuit], "an http:// service"),
        Service::Unix { tls: false, .. } => idle(&[&tls, &circuit], "a unix: service"),
        Service::Tcp { scheme, .. } => {
            idle(&[&tls, &http, &open], &format!("a service of bytes such as {scheme}://"))
        }
        Service::Bastion | Service::Socks => idle(&[&tls, &http], "a service of bytes"),
        Service::Status(_) | Service::HelloWorld => {
            vec!["origin has no effect on a built-in service".to_owned()]
        }
        Service::Component(_) => vec!["origin has no effect on a plugin".to_owned()],
        Service::Https { .. } | Service::Unix { tls: true, .. } => {
            let mut warnings = idle(&[&circuit], "a service that speaks HTTP");
            if is_unverified {
                warnings.push(
                    "origin.tls-verify = false: whoever answers in the service's place is believed; \
                     what knows only TLS 1.0 or 1.1, CBC ciphers or RSA key exchange is out of reach even so"
                        .to_owned(),
                );
            }
            warnings
        }
    }
}

/// None stands for "never asked".
fn keep_alive(time: Duration) -> Option<Duration> {
    // The system counts in seconds.
    (!time.is_zero()).then(|| time.max(SECOND))
}

pub(super) fn server_name(name: &str) -> Result<String, Invalid> {
    let is_name = ServerName::try_from(name).is_ok();
    is_name.then(|| name.to_owned()).ok_or_else(|| {
        Invalid::with_help("this is not a server name", "write a host name or an IP address, without a port")
    })
}

pub(super) fn host_header(host: &str) -> Result<String, Invalid> {
    let is_host = host.parse::<Authority>().is_ok_and(|authority| !authority.host().is_empty());
    (is_host && !host.contains('@')).then(|| host.to_owned()).ok_or_else(|| {
        Invalid::with_help(
            "this is not a Host header",
            "write \"app.example.com\" or \"app.example.com:8080\"",
        )
    })
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const LONGEST_IDLE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(90);
const KEEP_ALIVE_CONNECTIONS: usize = 100;
pub(super) const MOST_KEEP_ALIVE_CONNECTIONS: usize = 65_536;
