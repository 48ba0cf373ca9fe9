//! The certificates that this edge shows: one for each of its own uses, and for visitors one by the name that they ask
//! for. Each may be exchanged while it is shown; a handshake reads one pointer.
//!
//! Read in this order: [`place`] (one certificate and what became of its files), [`by_name`] (which of them a visitor
//! is shown), [`watch`] (files that have changed), [`issued`] (certificates of the
//! state), [`challenges`] (what an authority looks for).

pub(crate) mod by_name;
pub(crate) mod challenges;
pub(crate) mod issued;
pub(crate) mod place;
pub(crate) mod watch;

use std::sync::Arc;

use crate::state::snapshot::Kept;
use crate::store::records::certificates::{Certificate, Challenge};
use crate::store::seal::SealKeys;
use crate::store::timestamp::Timestamp;
use crate::tls::{Identity, IdentityFiles};
use by_name::{ByName, ForOne};
use challenges::Challenges;
use place::{Place, Use};

/// A certificate that an operator has given, with where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    pub(crate) identity: Identity,
    pub(crate) files: IdentityFiles,
}

/// All that are shown.
#[derive(Default)]
pub(crate) struct Certificates {
    places: Vec<Arc<Place>>,
    by_name: Option<Arc<ByName>>,
    /// For the control API, where an authority issues its certificate.
    api: Option<Arc<ForOne>>,
    pub(crate) challenges: Arc<Challenges>,
    /// What is sealed in the state is opened with these.
    pub(crate) keys: Option<SealKeys>,
}

impl Certificates {
    /// None yet, where authorities find these answers.
    pub(crate) fn answering(challenges: Challenges) -> Self {
        Self { challenges: Arc::new(challenges), ..Self::default() }
    }

    /// One more that is shown for `usage`.
    pub(crate) fn add(&mut self, usage: Use, owned: Owned) -> Arc<Place> {
        self.place(Place::new(usage, owned.identity, Some(owned.files)))
    }

    /// The same for one that is made anew at each start.
    pub(crate) fn add_made(&mut self, usage: Use, identity: Identity) -> Arc<Place> {
        self.place(Place::new(usage, identity, None))
    }

    fn place(&mut self, place: Place) -> Arc<Place> {
        let place = Arc::new(place);
        self.places.push(place.clone());
        place
    }

    /// What visitors are shown: by name one of `own`, and `fallback` to whoever asks for none of these.
    pub(crate) fn for_visitors(&mut self, own: Vec<Owned>, fallback: Arc<Place>) -> Arc<ByName> {
        let own = own.into_iter().map(|owned| self.add(Use::Name, owned)).collect();
        let by_name = Arc::new(ByName::new(own, fallback, self.challenges.clone()));
        self.by_name = Some(by_name.clone());
        by_name
    }

    /// What callers of the control API are shown: what an authority issues for `name`, and `until` then.
    pub(crate) fn for_api(&mut self, name: String, until: Identity) -> Arc<ForOne> {
        let until = self.add_made(Use::Api, until);
        let by_name = Arc::new(ByName::new(Vec::new(), until, self.challenges.clone()));
        let api = Arc::new(ForOne { name, by_name });
        self.api = Some(api.clone());
        api
    }

    pub(crate) fn places(&self) -> &[Arc<Place>] {
        &self.places
    }

    /// Whether any of them is kept in files, which may change.
    pub(crate) fn are_watched(&self) -> bool {
        self.places.iter().any(|place| place.files().is_some())
    }

    /// Shows these certificates of the state, and lets authorities find these answers.
    pub(crate) fn publish<'s>(
        &self,
        issued: impl Iterator<Item = (&'s String, &'s Kept<Certificate>)> + Clone,
        challenges: impl Iterator<Item = &'s Kept<Challenge>>,
    ) {
        self.challenges.replace(challenges.map(|kept| &kept.record), Timestamp::now());
        let Some(keys) = &self.keys else { return };
        let issued = issued.map(|(name, kept)| (name, &kept.record, kept.revision));
        if let Some(api) = &self.api {
            api.by_name.show(issued.clone().filter(|(name, ..)| **name == api.name), keys);
        }
        if let Some(by_name) = &self.by_name {
            by_name.show(issued, keys);
        }
    }

    /// Whether visitors who ask for this name are shown a certificate that an operator has given for it.
    pub(crate) fn covers(&self, name: &str) -> bool {
        let given = self
            .places
            .iter()
            .filter(|place| place.files().is_some() && matches!(place.usage(), Use::Name | Use::Visitors));
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let covers =
            |own: &String| own == name || own.strip_prefix("*.").is_some_and(|own| parent == Some(own));
        given.into_iter().any(|place| place.shown().leaf.names.iter().any(covers))
    }

    /// Serves by what the places hold now.
    fn follow(&self) {
        if let Some(by_name) = &self.by_name {
            by_name.follow();
        }
    }
}
