//! What plugins with an access log are told of an exchange. Made only for rules that have one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use adit_engine::{Facts, Observers, Served};
use bytes::Bytes;
use http::request;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::respond::Answer;
use crate::origin::{Body, BoxError};

/// An exchange that is watched. Tells the observers once, when it is dropped.
pub(super) struct Observation {
    observers: Observers,
    shard: usize,
    begun: Instant,
    served: Option<Served>,
}

impl Observation {
    pub(super) fn begin(
        observers: &Observers,
        shard: usize,
        rule: &str,
        facts: &Facts<'_>,
        head: &request::Parts,
    ) -> Self {
        let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let authority = host.or_else(|| head.uri.authority().map(http::uri::Authority::as_str));
        let served = Served {
            id: facts.id.to_owned(),
            rule: rule.to_owned(),
            method: head.method.to_string(),
            authority: authority.unwrap_or_default().to_owned(),
            path_with_query: head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            client_ip: facts.client_ip.to_owned(),
            // Of a visitor who left before there was an answer.
            status: 0,
            started: SystemTime::now(),
            head_after: Duration::ZERO,
            done_after: Duration::ZERO,
            sent: 0,
            complete: false,
        };
        Self { observers: observers.clone(), shard, begun: Instant::now(), served: Some(served) }
    }

    /// Watches an answer to its end.
    pub(super) fn watch(mut self, answer: Answer) -> Answer {
        let head_after = self.begun.elapsed();
        let Some(served) = &mut self.served else { return answer };
        served.head_after = head_after;
        served.status = answer.status().as_u16();
        match answer {
            Answer::Response(response) => {
                served.complete = response.body().is_end_stream();
                Answer::Response(response.map(|body| Box::pin(Watched { body, observation: self }) as Body))
            }
            Answer::Unreachable { .. } => answer,
        }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if let Some(mut served) = self.served.take() {
            served.done_after = self.begun.elapsed();
            self.observers.tell(self.shard, served);
        }
    }
}

struct Watched {
    body: Body,
    observation: Observation,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.body.as_mut().poll_frame(context));
        let is_end = self.body.is_end_stream();
        if let Some(served) = &mut self.observation.served {
            match &frame {
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    served.sent += u64::try_from(length).unwrap_or(u64::MAX);
                    served.complete = is_end;
                }
                Some(Err(_)) => served.complete = false,
                None => served.complete = true,
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
