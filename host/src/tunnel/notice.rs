//! What the edge itself asks of this host over a connection (`adit_protocol::extensions`): whether the origins are
//! there, and to leave because the edge server goes away. No visitor can ask it, and neither rules nor
//! plugins nor origins see any of it.

use std::rc::Rc;
use std::sync::Arc;

use adit_protocol::extensions;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode, request};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::slot::Shared;
use super::status::Probed;
use crate::origin::{Body, empty, full};
use crate::proxy::Proxy;

/// What the edge wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The edge server is about to go away.
    Drain,
    /// Are the origins there?
    Probe,
}

/// Answers the notices of one connection.
pub struct Notices {
    shared: Arc<Shared>,
    proxy: Rc<Proxy>,
    slot: usize,
    /// Cancelled once the edge said that it goes away.
    leave: CancellationToken,
    /// Cancelled once the connection serves its slot no more.
    retired: CancellationToken,
}

impl Notice {
    /// The notice that this request is. The edge makes it of an address that no visitor can ask for, so the
    /// header alone says nothing.
    pub fn of(head: &request::Parts) -> Option<Self> {
        let notice = head.headers.get(extensions::NOTICE)?;
        if head.method != Method::GET || !is_own(head) {
            return None;
        }
        match notice {
            notice if *notice == extensions::DRAIN => Some(Self::Drain),
            notice if *notice == extensions::PROBE => Some(Self::Probe),
            _ => None,
        }
    }
}

/// Whether it is asked of [`extensions::NOTICE_URI`] and no other.
fn is_own(head: &request::Parts) -> bool {
    let wanted = http::Uri::from_static(extensions::NOTICE_URI);
    let host = head.headers.get(http::header::HOST).map(HeaderValue::as_bytes);
    head.uri.host() == wanted.host()
        && head.uri.path() == wanted.path()
        && host.is_none_or(|host| Some(host) == wanted.host().map(str::as_bytes))
}

impl Notices {
    pub fn new(
        shared: Arc<Shared>,
        proxy: Rc<Proxy>,
        slot: usize,
        leave: CancellationToken,
        retired: CancellationToken,
    ) -> Self {
        Self { shared, proxy, slot, leave, retired }
    }

    /// May be dropped midway.
    pub async fn answer(&self, notice: Notice) -> Response<Body> {
        match notice {
            Notice::Drain => {
                self.leave.cancel();
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            Notice::Probe => self.probe().await,
        }
    }

    async fn probe(&self) -> Response<Body> {
        let probe = self.proxy.probe().await;
        if !self.retired.is_cancelled() {
            let probed = Probed { at: Instant::now().into_std(), ready: probe.ready };
            self.shared.status.update(self.slot, |status| status.probed = Some(probed));
        }
        let page = serde_json::to_vec(&*probe).unwrap_or_else(|error| {
            debug!(%error, "a probe that cannot be written");
            Vec::new()
        });
        let mut response = Response::new(full(Bytes::from(page)));
        if !probe.ready {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_notice_is_asked_of_its_own_address_only() {
        let (uri, drain) = (extensions::NOTICE_URI, ("adit-notice", "drain"));
        let host = ("host", "adit.internal");
        assert_eq!(Notice::of(&head("GET", uri, &[drain])), Some(Notice::Drain));
        assert_eq!(Notice::of(&head("GET", uri, &[drain, host])), Some(Notice::Drain));
        assert_eq!(Notice::of(&head("GET", uri, &[("adit-notice", "probe")])), Some(Notice::Probe));
        for other in [
            head("GET", uri, &[host]),
            head("GET", uri, &[("adit-notice", "dance")]),
            head("POST", uri, &[drain]),
            head("GET", "http://app.example.com/", &[drain]),
            head("GET", "http://adit.internal/else", &[drain]),
            head("GET", uri, &[drain, ("host", "app.example.com")]),
            head("GET", "/", &[drain, host]),
        ] {
            assert_eq!(Notice::of(&other), None, "{other:?}");
        }
    }
}
