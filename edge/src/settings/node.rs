//! What an operator says about an edge as a node of a fleet.

use std::net::SocketAddr;

use adit_config_reader::Spanned;

use super::{Rules, Transport, document};
use crate::nodes::Terms;

impl Rules<'_> {
    pub(super) fn node_of_fleet(
        &mut self,
        section: Option<Spanned<document::Node>>,
        has_store: bool,
    ) -> Option<Terms> {
        let section = section?;
        let span = section.span();
        let document::Node { name, region, listen, addresses } = section.into_inner();
        if !has_store && !self.mistakes.speaks_for(&(0..0), "store") {
            let help = "add [store] with the fleet's url, or take [node] away: one edge alone is no fleet";
            self.mistakes.add_with_help(span.clone(), "a node, but no [store]", help);
        }
        let name = self.required(&span, "name", name, "what the fleet calls this node, like \"west-1\"");
        let name = name.and_then(|name| self.node_name(name));
        let region = self.required(&span, "region", region, "that of its [[server]]");
        let region = region.and_then(|region| self.word(region));
        let usual = "the address that other nodes connect to, like \"10.0.0.1:7850\"";
        let listen = self.required(&span, "listen", listen, usual);
        let at = listen.as_ref().map_or(span, Spanned::span);
        let listen = listen.and_then(|listen| self.address(&listen, Transport::Tcp, "node.listen"));
        let is_said = addresses.is_some();
        let addresses = addresses.map_or_else(Vec::new, Spanned::into_inner).into_iter();
        let addresses = addresses.filter_map(|text| {
            let parsed = text.get_ref().parse::<SocketAddr>().ok().filter(|parsed| parsed.port() != 0);
            if parsed.is_none() {
                let message = format!("`{}` is no address with a port", text.get_ref().escape_debug());
                self.mistakes.add(text.span(), message);
            }
            parsed
        });
        let addresses: Vec<_> = addresses.collect();
        if listen.is_some_and(|listen| listen.ip().is_unspecified()) && !is_said {
            let help = "add addresses = [\"10.0.0.1:7850\"], or listen there";
            self.mistakes.add_with_help(at, "other nodes do not learn from this where to connect", help);
        }
        Some(Terms { name: name?, region: region?, listen: listen?, addresses })
    }

    pub(super) fn node_name(&mut self, name: Spanned<String>) -> Option<String> {
        let at = name.span();
        let name = name.into_inner();
        if is_name(&name) {
            return Some(name);
        }
        let message = format!("`{}` cannot be the name of a node", name.escape_debug());
        let help = format!("use 1 to {LONGEST} lower-case letters, digits and `-`");
        self.mistakes.add_with_help(at, message, help);
        None
    }
}

/// Whether a node may be called so.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= LONGEST && name.bytes().all(fits)
}

const LONGEST: usize = 63;

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    #[test]
    fn a_node_has_a_name_a_region_and_an_address_that_others_can_use() {
        let folder = tempfile::tempdir().unwrap();
        let parse = |store: &str, node: &str| {
            let text = format!(
                "[visitors]\nhttp = \"127.0.0.1:0\"\n[[server]]\nregion = \"west\"\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n{store}\n[node]\n{node}\n"
            );
            Settings::parse("edge.toml", &text, folder.path()).map_err(|mistakes| mistakes.to_string())
        };
        let store = "[store]\nurl = \"etcd://localhost:2379/main\"";
        let all = "name = \"west-1\"\nregion = \"west\"\nlisten = \"0.0.0.0:7850\"\naddresses = [\"10.0.0.1:7850\"]";
        let node = parse(store, all).unwrap().node.unwrap();
        assert_eq!((&*node.name, &*node.region, node.addresses.len()), ("west-1", "west", 1));
        for (store, node, said) in [
            ("", all, "a node, but no [store]"),
            (store, "region = \"west\"\nlisten = \"127.0.0.1:7850\"", "`name` is missing"),
            (store, &all.replace("west-1", "West 1"), "cannot be the name of a node"),
            (store, &all.replace("addresses", "# addresses"), "where to connect"),
            (store, &all.replace("10.0.0.1:7850", "10.0.0.1"), "no address with a port"),
        ] {
            let mistakes = parse(store, node).unwrap_err();
            assert!(mistakes.contains(said), "{node}: {mistakes}");
        }
    }
}
