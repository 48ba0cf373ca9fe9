//! The lists of the document: servers that hosts dial, and tunnels with their credentials and host names.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use adit_config_reader::Spanned;
use adit_protocol::credentials::{Credentials, MAX_CREDENTIALS};

use super::host_name::HostName;
use super::{Rules, STAND_IN, Server, Transport, Tunnel, document};
use crate::balancer::affinity::{Stickiness, StickinessError};

impl Rules<'_> {
    pub(super) fn servers(&mut self, tables: Vec<Spanned<document::Server>>) -> Vec<Server> {
        if tables.is_empty() && !self.mistakes.speaks_for(&(0..0), "server") {
            let help = "add [[server]] with region = \"…\" and listen = \"0.0.0.0:7844\"";
            self.mistakes.add_with_help(0..0, "there is no [[server]] for connectors to dial", help);
        }
        let mut names = HashMap::new();
        let mut servers: Vec<Server> = Vec::new();
        for table in tables {
            let span = table.span();
            let document::Server { region, name, listen } = table.into_inner();
            let region = self.required(&span, "region", region, "every server is in a region");
            let region = region.and_then(|region| self.word(region));
            let listen = self
                .required(&span, "listen", listen, "the address that connectors dial, like \"0.0.0.0:7844\"")
                .and_then(|address| self.address(&address, Transport::Udp, "a server"));
            let ordinal = 1 + servers.iter().filter(|known| Some(&known.region) == region.as_ref()).count();
            let name = match name {
                Some(name) => {
                    let at = name.span();
                    self.word(name).inspect(|name| self.unique(&mut names, name.clone(), at, "server name"))
                }
                None => region.as_ref().map(|region| format!("{region}-{ordinal}")),
            };
            servers.push(Server {
                region: region.unwrap_or_default(),
                name: name.unwrap_or_default(),
                listen: listen.unwrap_or(STAND_IN),
                is_at_visitors: false,
            });
        }
        servers
    }

    /// Which server the hosts belong to that come in where visitors do.
    pub(super) fn at_visitors(
        &mut self,
        wanted: Option<Spanned<String>>,
        has_https: bool,
        servers: &mut [Server],
    ) {
        let Some(wanted) = wanted else { return };
        if !has_https {
            let help = "add https = \"0.0.0.0:443\"";
            self.mistakes.add_with_help(wanted.span(), "hosts among visitors but no https address", help);
        }
        match servers.iter_mut().find(|server| server.name == *wanted.get_ref()) {
            Some(server) => server.is_at_visitors = true,
            None => {
                let message = format!("there is no [[server]] named `{}`", wanted.get_ref().escape_debug());
                self.mistakes.add(wanted.span(), message);
            }
        }
    }

    pub(super) fn tunnels(
        &mut self,
        tables: Vec<Spanned<document::Tunnel>>,
        has_api: bool,
        hold: Duration,
    ) -> Vec<Tunnel> {
        if tables.is_empty() && !has_api && !self.mistakes.speaks_for(&(0..0), "tunnel") {
            let help = "add [[tunnel]] with name, credentials-file and hostnames, or [api] to make tunnels by its API";
            self.mistakes.add_with_help(0..0, "there is no [[tunnel]]", help);
        }
        let (mut names, mut ids, mut hostnames) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut tunnels = Vec::new();
        for table in tables {
            let span = table.span();
            let document::Tunnel { name, credentials_file, hostnames: wanted, stickiness } =
                table.into_inner();
            let name = self.required(&span, "name", name, "every tunnel has a name");
            let name = name.and_then(|name| {
                let at = name.span();
                self.word(name).inspect(|name| self.unique(&mut names, name.clone(), at, "tunnel name"))
            });
            let help = "the file that was made with the tunnel; the host uses the same";
            let file = self.required(&span, "credentials-file", credentials_file, help);
            let credentials = file.and_then(|file| {
                let at = file.span();
                let credentials = self.credentials(file)?;
                self.unique(&mut ids, credentials.tunnel_id, at, "tunnel id");
                Some(credentials)
            });
            let help = "the public names of this tunnel, like [\"app.example.com\", \"*.example.com\"]";
            let wanted = self.required(&span, "hostnames", wanted, help).map(Spanned::into_inner);
            let hostnames = wanted
                .unwrap_or_default()
                .into_iter()
                .filter_map(|hostname| self.hostname(hostname, &mut hostnames))
                .collect();
            let stickiness = stickiness.map_or_else(Stickiness::default, |word| self.stickiness(&word));
            if let (Some(name), Some(credentials)) = (name, credentials) {
                tunnels.push(Tunnel { name, credentials, hostnames, stickiness, hold });
            }
        }
        tunnels
    }

    fn stickiness(&mut self, word: &Spanned<String>) -> Stickiness {
        word.get_ref().parse().unwrap_or_else(|error: StickinessError| {
            let help = "write \"none\", \"client-ip\", \"cookie:NAME\" or \"header:NAME\"";
            self.mistakes.add_with_help(word.span(), error.to_string(), help);
            Stickiness::None
        })
    }

    fn credentials(&mut self, file: Spanned<PathBuf>) -> Option<Credentials> {
        let span = file.span();
        let path = self.folder.join(file.into_inner());
        let read = adit_files::read(&path, MAX_CREDENTIALS)
            .map_err(|error| format!("reading {}: {error}", path.display()));
        let credentials = read.and_then(|bytes| {
            Credentials::from_json(&bytes).map_err(|error| format!("{}: {error}", path.display()))
        });
        credentials.map_err(|message| self.mistakes.add(span, message)).ok()
    }

    pub(super) fn hostname(
        &mut self,
        hostname: Spanned<String>,
        known: &mut HashMap<HostName, usize>,
    ) -> Option<HostName> {
        let span = hostname.span();
        match hostname.get_ref().parse::<HostName>() {
            Ok(parsed) => {
                self.unique(known, parsed.clone(), span, "host name");
                Some(parsed)
            }
            Err(error) => {
                self.mistakes.add_with_help(
                    span,
                    format!("`{}` is no host name: {error}", hostname.get_ref().escape_debug()),
                    "write a whole name like \"app.example.com\" or a wildcard like \"*.example.com\"",
                );
                None
            }
        }
    }
}
