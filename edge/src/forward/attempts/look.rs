//! Where a request would go, without sending it: the walk of [`Attempts`] over tunnels and connections, and nothing
//! taken, opened or counted on the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use uuid::Uuid;

use super::Attempts;
use crate::registry::Connection;

/// What a request would find.
#[derive(Serialize)]
pub(crate) struct Outlook {
    /// The connections in the order in which it would be offered to them as long as none has room; the first [`MOST`].
    pub(crate) offers: Vec<Offer>,
    /// How long it would wait for a host to come before it is offered to one that says nothing, or given up.
    #[serde(rename = "waits_ms", skip_serializing_if = "Option::is_none", serialize_with = "milliseconds")]
    pub(crate) waits: Option<Duration>,
}

/// A connection that the request may go to.
#[derive(Serialize)]
pub(crate) struct Offer {
    /// Of a load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// The session of the request is at this endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<bool>,
    /// As which host it asks there, if not as which the visitor did.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    tunnel: Uuid,
    tunnel_name: String,
    connector: Uuid,
    connection: Uuid,
    index: u8,
    protocol: &'static str,
    server: String,
    address: String,
    /// Requests under way.
    requests: usize,
    silent: bool,
}

impl Attempts<'_> {
    pub(crate) fn outlook(mut self) -> Outlook {
        let (mut heard, mut silent) = (Vec::new(), Vec::new());
        let now = Instant::now();
        while heard.len() + silent.len() < MOST {
            let Some(live) = self.candidate() else {
                if self.go_on() {
                    continue;
                }
                break;
            };
            let is_silent = live.is_silent(now);
            let offer = self.offer(&live, is_silent);
            if is_silent { &mut silent } else { &mut heard }.extend(offer);
        }
        let holder = self.holder().filter(|_| heard.is_empty() && !self.is_in_vain());
        let waits = holder.map(|tunnel| tunnel.holds.patience);
        // Better a connection that says nothing than none.
        heard.append(&mut silent);
        Outlook { offers: heard, waits }
    }

    fn offer(&self, live: &Arc<Connection>, silent: bool) -> Option<Offer> {
        let stop = self.stop.as_ref()?;
        let stopover = stop.stopover.as_ref();
        Some(Offer {
            pool: stopover.map(|stopover| stopover.pool.id.clone()),
            endpoint: stopover.map(|stopover| stopover.endpoint().address.clone()),
            session: stopover.map(|stopover| stopover.is_home),
            host: stopover.and_then(|stopover| Some(stopover.endpoint().host.as_ref()?.to_string())),
            tunnel: stop.tunnel().id,
            tunnel_name: stop.tunnel().name().to_string(),
            connector: live.connector,
            connection: live.id,
            index: live.index,
            protocol: live.link.protocol(),
            server: live.server.name.clone(),
            address: live.address.to_string(),
            requests: live.requests(),
            silent,
        })
    }
}

fn milliseconds<S: serde::Serializer>(waits: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    waits.map(|waits| waits.as_millis()).serialize(to)
}

/// Connections that are named.
const MOST: usize = 32;
