//! What an operator says about the name server of an edge.

use std::net::IpAddr;

use adit_config_reader::Spanned;
use adit_net::outbound::Target;

use super::{Rules, Transport, document};
use crate::dns::nodes::MOST_NODES;
use crate::dns::{Node, Terms};

impl Rules<'_> {
    pub(super) fn dns(&mut self, section: Option<Spanned<document::Dns>>) -> Option<Terms> {
        let section = section?;
        let span = section.span();
        let document::Dns { listen, zones, name_servers, node } = section.into_inner();
        let listen = self.required(&span, "listen", listen, "like \"0.0.0.0:53\"");
        // UDP and TCP: neither may be taken already.
        let listen = listen.and_then(|listen| {
            self.address(&listen, Transport::Tcp, "dns.listen")?;
            self.address(&listen, Transport::Udp, "dns.listen")
        });
        let zones = self.required(&span, "zones", zones, "like [\"example.com\"]");
        let zones = zones.map_or_else(Vec::new, Spanned::into_inner);
        let zones = zones.into_iter().filter_map(|zone| self.domain(zone)).collect();
        let help =
            "the host names of all name servers of the zones, this one's too, like [\"ns1.example.net\"]";
        let name_servers = self.required(&span, "name-servers", name_servers, help);
        let name_servers = name_servers.map_or_else(Vec::new, Spanned::into_inner);
        let name_servers = name_servers.into_iter().filter_map(|server| self.domain(server)).collect();
        let nodes: Vec<Node> =
            node.unwrap_or_default().into_iter().filter_map(|node| self.node(node)).collect();
        if nodes.is_empty() && !self.mistakes.speaks_for(&span, "node") {
            let help = "add [[dns.node]] with region = \"west\" and addresses = [\"203.0.113.1\"]";
            self.mistakes.add_with_help(span.clone(), "no edge that names could lead to", help);
        }
        if nodes.len() > MOST_NODES {
            self.mistakes.add(span, format!("there are more than {MOST_NODES} of [[dns.node]]"));
        }
        Some(Terms { listen: listen?, zones, name_servers, nodes })
    }

    fn node(&mut self, table: Spanned<document::DnsNode>) -> Option<Node> {
        let span = table.span();
        let document::DnsNode { region, addresses, ports, probe, node } = table.into_inner();
        let region = self.required(&span, "region", region, "that of its [[server]]");
        let region = region.and_then(|region| {
            let at = region.span();
            let word = self.word(region)?.to_ascii_lowercase();
            if word.contains(['.', '_']) {
                self.mistakes.add(at, format!("`{word}` cannot be a label of a name"));
            }
            Some(word)
        });
        let help = "where the internet reaches it, like [\"203.0.113.1\", \"2001:db8::1\"]";
        let addresses = self.required(&span, "addresses", addresses, help);
        let addresses = addresses.map_or_else(Vec::new, Spanned::into_inner).into_iter();
        let addresses = addresses.filter_map(|text| {
            let parsed = text.get_ref().parse::<IpAddr>();
            let message = || format!("`{}` is no IP address", text.get_ref().escape_debug());
            parsed.map_err(|_| self.mistakes.add(text.span(), message())).ok()
        });
        let addresses: Vec<IpAddr> = addresses.collect();
        let ports = ports.map_or_else(Vec::new, |ports| {
            let all = ports.into_inner().into_iter();
            let all = all.filter_map(|port| {
                let number = u16::try_from(*port.get_ref()).ok().filter(|number| *number > 0);
                if number.is_none() {
                    self.mistakes.add(port.span(), format!("{} is no port", port.get_ref()));
                }
                number
            });
            all.collect()
        });
        let probe = probe.map(|url| {
            let target = url.get_ref().parse::<http::Uri>().map_err(|error| error.to_string());
            let target = target.and_then(|uri| Target::of(&uri).map_err(|error| error.to_string()));
            if let Err(error) = target {
                let help = "write the URL of its /ready, like \"http://10.0.0.1:20242/ready\"";
                self.mistakes.add_with_help(url.span(), error, help);
            }
            url.into_inner()
        });
        let node = node.and_then(|name| self.node_name(name));
        Some(Node { region: region?, addresses, ports, probe, node })
    }
}
