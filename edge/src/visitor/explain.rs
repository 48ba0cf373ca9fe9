//! Where a request would go and why, for people: asked of the very parts that serve, in their order, and nothing sent
//! or counted. Knows what they say; decides nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_pace::Account;
use http::request::Parts;
use serde::Serialize;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::error_page::Problem;
use super::guide::{Course, Guide, Led, Peer, Source};
use super::host_table::Destination;
use super::service::problem;
use crate::forward::headers::Upload;
use crate::forward::ray::Rays;
use crate::forward::{self, Failure, ForwardContext, Outlook, Patience, Target};
use crate::limits::pace::Share;
use crate::registry::Tunnel;
use crate::steering::Explained;

/// What explaining needs of the parts that serve.
pub(crate) struct Explainer {
    guide: Arc<Guide>,
    rays: Arc<Rays>,
    patience: Patience,
    account: Arc<Account>,
}

/// A request as it would come.
pub(crate) struct Question {
    pub(crate) head: Parts,
    /// Who opens the connection.
    pub(crate) from: IpAddr,
    pub(crate) is_secure: bool,
}

/// What would become of it.
#[derive(Default, Serialize)]
pub(crate) struct Explanation {
    /// The name of this edge that the request's host is.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    visitor: Option<VisitorView>,
    /// What a route leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<RouteView>,
    /// What the name is.
    #[serde(skip_serializing_if = "Option::is_none")]
    balancer: Option<Explained>,
    /// Of the load balancer's rules those that have something to say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    #[serde(flatten)]
    outlook: Option<Outlook>,
    /// What the edge answers itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
}

#[derive(Serialize)]
struct VisitorView {
    address: IpAddr,
    secure: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
}

/// A tunnel that a route leads to.
#[derive(Serialize)]
struct RouteView {
    id: Uuid,
    name: String,
    /// The visitor belongs to one of its replicas.
    sticky: bool,
}

#[derive(Serialize)]
struct Answer {
    status: u16,
    /// The word of an error page; of a rule's answer there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Explainer {
    pub(crate) fn new(
        guide: &Arc<Guide>,
        rays: &Arc<Rays>,
        patience: Patience,
        account: &Arc<Account>,
    ) -> Self {
        Self { guide: guide.clone(), rays: rays.clone(), patience, account: account.clone() }
    }

    pub(crate) fn explain(&self, question: Question) -> Explanation {
        let mut told = Explanation::default();
        if let Err(problem) = self.lead(question, &mut told) {
            told.answer = Some(Answer::page(problem));
        }
        told
    }

    fn lead(&self, question: Question, told: &mut Explanation) -> Result<(), Problem> {
        let Question { head, from, is_secure } = question;
        let (authority, found) = self.guide.find(&head)?;
        told.name = self.guide.names.name_of(authority.as_str());
        let (peer, ray) = (Peer::looked_at(from, is_secure), self.rays.next());
        let led = self.guide.lead(head, (authority, &found), peer, Upload::None, &ray)?;
        let Led { request, source, course } = led;
        told.visitor = Some(self.visitor(&source));
        if let Destination::Balancer(balancer) = &found {
            told.rules = self.guide.asked(&source, &request, |asked| balancer.rules_of(asked));
        }
        let (target, key) = match &course {
            Course::Tunnel(tunnel, key) => {
                told.tunnel = Some(RouteView::of(tunnel, key.is_some()));
                (Target::Tunnel(tunnel), *key)
            }
            Course::Balancer(balancer, visit) => {
                told.balancer = Some(balancer.explain(visit));
                (Target::Balancer(balancer, visit), None)
            }
            Course::IsAnswered(_, fixed) => {
                let status = fixed.status.as_u16();
                told.answer = Some(Answer { status, error: None, message: None });
                return Ok(());
            }
        };
        let (share, tasks) = (Share::new(&self.account, 0, source.visitor), TaskTracker::new());
        let patience = self.patience;
        let came = Instant::now();
        let place = ForwardContext { shard: 0, came, key, ray: &ray, patience, tasks: &tasks, share: &share };
        let outlook = forward::outlook(target, request.method(), &place);
        let is_lost = outlook.offers.is_empty();
        told.outlook = Some(outlook);
        if is_lost { Err(problem(&Failure::NoConnection, target)) } else { Ok(()) }
    }

    fn visitor(&self, source: &Source) -> VisitorView {
        let place = self.guide.place(source);
        let code = |code: Option<&str>| code.map(str::to_owned);
        VisitorView {
            address: source.visitor,
            secure: source.is_secure,
            pop: code(place.pop),
            country: code(place.country),
            region: code(place.region),
        }
    }
}

impl RouteView {
    fn of(tunnel: &Tunnel, sticky: bool) -> Self {
        Self { id: tunnel.id, name: tunnel.name().to_string(), sticky }
    }
}

impl Answer {
    fn page(problem: Problem) -> Self {
        let (status, message) = (problem.status().as_u16(), problem.message());
        Self { status, error: Some(problem.word()), message: Some(message) }
    }
}
