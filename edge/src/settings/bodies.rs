//! What may be held for peers who do not take it.

use std::ops::RangeInclusive;

use adit_config_reader::{Spanned, size};
use adit_pace::Limits;

use super::Rules;
use super::document::Bodies;

impl Rules<'_> {
    pub(super) fn bodies(&mut self, section: Option<Spanned<Bodies>>) -> Limits {
        let Bodies { held, grace, minimum_rate } = section.map(Spanned::into_inner).unwrap_or_default();
        let usual = Limits::default();
        Limits {
            held: self.size(held, usual.held, Limits::HELD),
            grace: self.duration(grace, usual.grace, Limits::GRACE),
            rate: self.size(minimum_rate, usual.rate, Limits::RATE),
        }
    }

    /// A size such as "64MiB"; `default` where none is written or it is wrong.
    pub(super) fn size(
        &mut self,
        written: Option<Spanned<String>>,
        default: u64,
        bounds: RangeInclusive<usize>,
    ) -> u64 {
        let Some(written) = written else { return default };
        match size::parse(written.get_ref()) {
            Some(bytes) if bounds.contains(&bytes) => return bytes as u64,
            Some(bytes) => {
                let [value, lowest, highest] = [bytes, *bounds.start(), *bounds.end()].map(size::show);
                let message = format!("{value} is out of range, expected {lowest} to {highest}");
                self.mistakes.add(written.span(), message);
            }
            None => self.mistakes.add_with_help(written.span(), "this is not a size", size::HELP),
        }
        default
    }
}
