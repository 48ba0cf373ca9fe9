//! What accounts are told, and where.

use std::ops::RangeInclusive;
use std::time::Duration;

use adit_config_reader::Spanned;

use super::Rules;
use super::document::Alerts;
use crate::alerts::{DOWN_FOR, Terms, UP_FOR};

impl Rules<'_> {
    pub(super) fn alerts(&mut self, section: Option<Spanned<Alerts>>, has_api: bool) -> Terms {
        let Some(section) = section else { return Terms::default() };
        if !has_api {
            let message = "only an edge with a control API has accounts that could be told";
            self.mistakes.add_with_help(section.span(), message, "write [api] too");
        }
        let Alerts { private_networks, down_for, up_for } = section.into_inner();
        Terms {
            networks: private_networks.map_or_else(Vec::new, |written| self.networks(&written)),
            down_for: self.duration(down_for, DOWN_FOR, LASTING),
            up_for: self.duration(up_for, UP_FOR, LASTING),
        }
    }
}

/// How long a change may have to last.
const LASTING: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60 * 60);
