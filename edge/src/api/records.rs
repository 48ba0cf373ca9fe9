//! Routes as DNS records, which is how most tools know them: a CNAME to a tunnel is the route of its name. Knows
//! the calls; what a record may say is in `form`, which ones a list shows in `filter`, and what several changes
//! make of a zone in `draft`, which every change goes through.

mod draft;
mod filter;
mod form;

use serde::Deserialize;
use serde_json::{Value, json};

use super::envelope::{self, Answer, Problem};
use super::identity::Identity;
use super::paging::Paging;
use super::query::Query;
use super::zones::own_zone;
use super::{Api, parse};
use draft::Draft;
use filter::Filter;
use form::{View, Wish};

/// What is asked about the records of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    List,
    Create,
    Batch,
    Look(String),
    Replace(String),
    Edit(String),
    Delete(String),
}

impl Ask {
    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::List | Self::Look(_))
    }
}

/// Many changes that are made together, in this order, or not at all.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Batch {
    deletes: Option<Vec<Named>>,
    patches: Option<Vec<Wish>>,
    puts: Option<Vec<Wish>>,
    posts: Option<Vec<Wish>>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

impl Api {
    pub(super) async fn records(
        &self,
        who: &Identity,
        zone: &str,
        ask: Ask,
        query: &Query,
        body: &[u8],
    ) -> Result<Answer, Problem> {
        match ask {
            Ask::List => self.list_records(who, zone, query),
            Ask::Look(id) => self.look_at_record(who, zone, &id),
            Ask::Create => {
                let wish: Wish = parse(body)?;
                self.draw(who, zone, "record.create", |draft| draft.create(wish)).await
            }
            Ask::Replace(id) => {
                let wish: Wish = parse(body)?;
                self.draw(who, zone, "record.replace", |draft| draft.replace(&id, wish)).await
            }
            Ask::Edit(id) => {
                let wish: Wish = parse(body)?;
                self.draw(who, zone, "record.edit", |draft| draft.edit(&id, wish)).await
            }
            Ask::Delete(id) => {
                let delete =
                    |draft: &mut Draft<'_>| draft.delete(&id).map(|gone| json!({ "id": gone["id"] }));
                self.draw(who, zone, "record.delete", delete).await
            }
            Ask::Batch => {
                let batch: Batch = parse(body)?;
                self.draw(who, zone, "record.batch", |draft| batch.draw(draft)).await
            }
        }
    }

    fn list_records(&self, who: &Identity, zone: &str, query: &Query) -> Result<Answer, Problem> {
        let own_domain = self.fixed.domain.as_deref();
        let (filter, paging) = (Filter::of(query, own_domain)?, Paging::of(query, PAGE)?);
        let mut records = self.state.read(|snapshot| {
            own_zone(who, snapshot, zone)?;
            let routes = snapshot.routes.iter().filter(|(_, route)| route.record.zone == zone);
            let records = routes.map(|(name, route)| View::of(name, &route.record, own_domain));
            Ok(records.filter(|record| filter.fits(record)).collect::<Vec<_>>())
        })?;
        filter.order(&mut records);
        Ok(paging.cut(records))
    }

    fn look_at_record(&self, who: &Identity, zone: &str, id: &str) -> Result<Answer, Problem> {
        let record = self.state.read(|snapshot| {
            own_zone(who, snapshot, zone)?;
            let name = snapshot.by_record.get(id).ok_or(Problem::NoRecord)?;
            let route = snapshot.routes.get(name).filter(|route| route.record.zone == zone);
            let route = &route.ok_or(Problem::NoRecord)?.record;
            Ok(View::of(name, route, self.fixed.domain.as_deref()))
        })?;
        Ok(envelope::success(record))
    }

    /// Makes all the changes of a plan, or none.
    async fn draw(
        &self,
        who: &Identity,
        zone: &str,
        action: &'static str,
        plan: impl FnOnce(&mut Draft<'_>) -> Result<Value, Problem>,
    ) -> Result<Answer, Problem> {
        let (result, transaction) = self.state.read(|snapshot| {
            let mut draft = Draft::of(who, snapshot, zone, &self.fixed)?;
            let result = plan(&mut draft)?;
            Ok((result, draft.into_transaction(action, &self.share)?))
        })?;
        if let Some(transaction) = transaction {
            self.change(transaction, |_| Problem::ChangedMeanwhile).await?;
        }
        Ok(envelope::success(result))
    }
}

impl Batch {
    fn draw(self, draft: &mut Draft<'_>) -> Result<Value, Problem> {
        let Self { deletes, patches, puts, posts } = self;
        let count = deletes.as_ref().map_or(0, Vec::len)
            + [&patches, &puts, &posts].into_iter().flatten().map(Vec::len).sum::<usize>();
        if count > MOST_AT_ONCE {
            return Err(Problem::Invalid(format!("a batch has at most {MOST_AT_ONCE} changes")));
        }
        let deletes = deletes.unwrap_or_default().into_iter().enumerate();
        let deletes = deletes.map(|(at, gone)| draft.delete(&gone.id).map_err(|why| why.at("deletes", at)));
        let deletes = deletes.collect::<Result<Vec<_>, _>>()?;
        let mut each = |list: &'static str, wishes: Option<Vec<Wish>>, draw: Draw| {
            let wishes = wishes.unwrap_or_default().into_iter().enumerate();
            let drawn = wishes.map(|(at, wish)| draw(draft, wish).map_err(|why| why.at(list, at)));
            drawn.collect::<Result<Vec<_>, _>>()
        };
        let patches = each("patches", patches, |draft, mut wish| draft.edit(&wish.take_id()?, wish))?;
        let puts = each("puts", puts, |draft, mut wish| draft.replace(&wish.take_id()?, wish))?;
        let posts = each("posts", posts, |draft, wish| draft.create(wish))?;
        Ok(json!({ "deletes": deletes, "patches": patches, "puts": puts, "posts": posts }))
    }
}

type Draw = fn(&mut Draft<'_>, Wish) -> Result<Value, Problem>;

/// Records on a page where nothing is said.
const PAGE: usize = 100;
/// They are drawn while nothing else changes the snapshot.
const MOST_AT_ONCE: usize = 1_000;
