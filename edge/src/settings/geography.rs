//! Where this edge is, and where networks are, as an operator says it.

use std::path::PathBuf;
use std::sync::Arc;

use adit_balance::steer::Point;
use adit_config_reader::Spanned;
use http::HeaderName;

use super::{Rules, document};
use crate::visitor::{Codes, Database, Geography, Headers, LONGEST_CODE, Networks};

impl Rules<'_> {
    pub(super) fn geography(&mut self, section: Option<Spanned<document::Geography>>) -> Geography {
        let Some(section) = section else { return Geography::default() };
        let span = section.span();
        let document::Geography {
            pop,
            region,
            latitude,
            longitude,
            country_header,
            region_header,
            database,
            network,
        } = section.into_inner();
        let here = Codes {
            pop: pop.and_then(|code| self.code(code)),
            country: None,
            region: region.and_then(|code| self.code(code)),
        };
        let point = match (latitude, longitude) {
            (None, None) => None,
            (Some(latitude), Some(longitude)) => {
                let point = Point::new(*latitude.get_ref(), *longitude.get_ref());
                if point.is_none() {
                    self.mistakes.add(longitude.span(), "this is no place on Earth");
                }
                point
            }
            (Some(alone), None) | (None, Some(alone)) => {
                self.mistakes.add(alone.span(), "`latitude` and `longitude` are one place together");
                None
            }
        };
        let headers = Headers {
            country: country_header.and_then(|name| self.header(name)),
            region: region_header.and_then(|name| self.header(name)),
        };
        let database = database.and_then(|file| self.database(&file));
        let mut networks = Networks::default();
        for table in network.unwrap_or_default() {
            self.networks_of(table, &mut networks);
        }
        if networks.len() > MOST_NETWORKS {
            self.mistakes.add(span, format!("there are more than {MOST_NETWORKS} networks"));
        }
        Geography { here, point, headers, networks, database }
    }

    fn database(&mut self, file: &Spanned<PathBuf>) -> Option<Arc<Database>> {
        let database = Database::open(self.folder.join(file.get_ref()));
        database.map_err(|message| self.mistakes.add(file.span(), message)).ok().map(Arc::new)
    }

    fn networks_of(&mut self, table: Spanned<document::NetworkPlace>, networks: &mut Networks) {
        let span = table.span();
        let document::NetworkPlace { addresses, pop, country, region } = table.into_inner();
        let place = Codes {
            pop: pop.and_then(|code| self.code(code)),
            country: country.and_then(|code| self.code(code)),
            region: region.and_then(|code| self.code(code)),
        };
        let help = "the addresses and networks of this place, like [\"10.0.0.0/8\"]";
        let addresses = self.required(&span, "addresses", addresses, help);
        for address in addresses.map(Spanned::into_inner).unwrap_or_default() {
            if let Some(network) = self.network(&address)
                && !networks.add(network, &place)
            {
                self.mistakes.add(address.span(), "this network has a place already");
            }
        }
    }

    fn code(&mut self, code: Spanned<String>) -> Option<String> {
        let text = code.get_ref();
        let fits =
            (1..=LONGEST_CODE).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !fits {
            let help = format!("write 1 to {LONGEST_CODE} characters, like \"FRA\", \"DE\" or \"WEU\"");
            let message = format!("`{}` is no code of a place", text.escape_debug());
            self.mistakes.add_with_help(code.span(), message, help);
        }
        fits.then(|| text.to_ascii_uppercase())
    }

    fn header(&mut self, name: Spanned<String>) -> Option<HeaderName> {
        let parsed = name.get_ref().parse();
        parsed.map_err(|_| self.mistakes.add(name.span(), "this is no name of a header")).ok()
    }
}

/// Of the table.
const MOST_NETWORKS: usize = 100_000;
