//! The file with the keys that secrets of the state are sealed with.

use std::path::Path;

use adit_config_reader::Spanned;

use super::{Rules, document};
use crate::store::seal::{Keys, SealKeys};

impl Rules<'_> {
    /// It is said in one of two places: that in `[acme]` is older.
    pub(super) fn seal(
        &mut self,
        api: Option<&Spanned<document::Api>>,
        acme: Option<&Spanned<document::Acme>>,
        data_dir: &Path,
    ) -> Keys {
        let own = api.and_then(|section| section.get_ref().key_file.clone());
        let older = acme.and_then(|section| section.get_ref().key_file.clone());
        let made = Keys::Made(data_dir.join(KEY_FILE));
        let file = match (own, older) {
            (None, None) => return made,
            (Some(file), None) | (None, Some(file)) => file,
            (Some(_), Some(again)) => {
                let help = "one file seals all that is secret in the state: keep the one in [api]";
                self.mistakes.add_with_help(again.span(), "the key file is named twice", help);
                return made;
            }
        };
        match SealKeys::read(&self.folder.join(file.get_ref())) {
            Ok(keys) => Keys::Given(keys),
            Err(error) => {
                let help = "make one with: openssl rand -base64 32 > seal.key";
                self.mistakes.add_with_help(file.span(), error.to_string(), help);
                made
            }
        }
    }
}

/// In the data folder, where the document names no other.
const KEY_FILE: &str = "seal.key";
