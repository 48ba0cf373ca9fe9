//! Why a request has no answer of an origin, and what follows from it: for another attempt (docs/retries.md), for
//! the health of the endpoint. Does not know what a visitor is told.

use adit_protocol::extensions;
use adit_protocol::stream::{DecodeError, EncodeError};
use thiserror::Error;

use crate::balancer::retry_budget::Reason;
use crate::transport::connection::WriteError;
use crate::transport::http2;
use crate::transport::peer::Outcome;
use crate::transport::stream::Unanswered;

/// Why there is no answer of an origin, and after how many attempts.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) tries: u32,
}

/// Why there is no answer of an origin.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("no host of the tunnel is connected")]
    NoConnection,
    #[error("the head cannot cross: {0}")]
    Head(#[source] EncodeError),
    #[error("every connection is at its limit of streams")]
    Busy,
    #[error("the connection was lost before the request was sent: {0}")]
    NotSent(String),
    #[error("the host takes no new requests")]
    TurnedAway,
    #[error("the host did not take the request: {0}")]
    Write(#[source] WriteError),
    #[error("the connection was lost during the upload")]
    Lost,
    #[error("the host broke off before its answer: {0}")]
    Read(#[source] quinn::ReadError),
    #[error("no answer over HTTP/2: {0}")]
    NoAnswer(#[source] http2::NoAnswer),
    #[error("the host ended the stream without an answer")]
    Ended,
    #[error("nothing is heard of the host")]
    Silent,
    #[error("the host's answer is not readable: {0}")]
    Decode(#[source] DecodeError),
    #[error("the host refused: {0}")]
    Refused(String),
    #[error("no answer in time")]
    Late,
    #[error("the host took no more of the request")]
    Stalled,
    #[error("the visitor's body broke off")]
    Visitor,
    #[error("another node no longer has the replica")]
    Absent,
    #[error("another node hears nothing of the host")]
    SilentThere,
    #[error("the host broke off before its answer, at another node")]
    BrokenThere,
    #[error("the origin broke off behind the head of its answer, at another node")]
    OriginThere,
    #[error("the body is too long to be sent once more ({})", .0.word())]
    NotReplayable(Reason),
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::TurnedAway => Self::TurnedAway,
            Unanswered::Read(error) => Self::Read(error),
            Unanswered::Http2(error) => Self::NoAnswer(error),
            Unanswered::Ended => Self::Ended,
            Unanswered::AtNode(outcome) => outcome.into(),
            Unanswered::Decode(error) => Self::Decode(error),
        }
    }
}

/// What another node says of its attempt is as good as what is seen here.
impl From<Outcome> for Failure {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Absent => Self::Absent,
            Outcome::NotSent => Self::NotSent("another node could not send it".to_owned()),
            Outcome::Refused => Self::TurnedAway,
            Outcome::NotHere => Self::Refused(format!("{}at another node", extensions::NOT_HERE_REASON)),
            Outcome::Broken => Self::BrokenThere,
            Outcome::Silent => Self::SilentThere,
            Outcome::BrokenOff => Self::OriginThere,
            Outcome::Late => Self::Late,
            Outcome::Failed => Self::Refused("at another node".to_owned()),
        }
    }
}

impl Failure {
    /// What another node is told that has asked for this attempt.
    pub(crate) fn outcome(&self) -> Outcome {
        if self.is_of_origin() {
            return Outcome::BrokenOff;
        }
        match (self, self.reason()) {
            (Self::NoConnection, _) => Outcome::Absent,
            (Self::Busy, _) | (_, Some(Reason::NotSent)) => Outcome::NotSent,
            (_, Some(Reason::Refused)) => Outcome::Refused,
            (_, Some(Reason::NotHere)) => Outcome::NotHere,
            (_, Some(Reason::Broken)) => Outcome::Broken,
            (_, Some(Reason::Silent)) => Outcome::Silent,
            (Self::Late | Self::Stalled, None) => Outcome::Late,
            (_, None) => Outcome::Failed,
        }
    }

    /// Whether the host says that an origin has answered and broken off: its head is lost, and the request was
    /// worked on.
    pub(crate) fn is_of_origin(&self) -> bool {
        if matches!(self, Self::OriginThere) {
            return true;
        }
        if let Self::Read(quinn::ReadError::Reset(code)) = self {
            return code.into_inner() == u64::from(extensions::BROKEN_OFF);
        }
        if let Self::NoAnswer(http2::NoAnswer::Broken(error)) = self {
            let code = error.reason().filter(|_| error.is_reset() && error.is_remote());
            return code.is_some_and(|code| u32::from(code) == extensions::BROKEN_OFF);
        }
        false
    }

    /// Whether it says that the endpoint is not well. What the visitor does, and a host that only leaves, says
    /// nothing; nor does any answer, whoever has given it.
    pub(super) fn is_of_endpoint(&self) -> bool {
        match self {
            Self::NotSent(_)
            | Self::Lost
            | Self::Read(_)
            | Self::NoAnswer(http2::NoAnswer::Broken(_) | http2::NoAnswer::Malformed(_))
            | Self::Ended
            | Self::Silent
            | Self::SilentThere
            | Self::BrokenThere
            | Self::OriginThere
            | Self::Decode(_)
            | Self::Refused(_)
            | Self::Late => true,
            Self::TurnedAway
            | Self::Absent
            | Self::NoAnswer(http2::NoAnswer::Refused | http2::NoAnswer::AtNode(_))
            | Self::NoConnection
            | Self::Head(_)
            | Self::Busy
            | Self::Write(_)
            | Self::Stalled
            | Self::Visitor
            | Self::NotReplayable(_) => false,
        }
    }

    /// Why another attempt may follow; `None` if this one was the last.
    pub(super) fn reason(&self) -> Option<Reason> {
        if self.is_of_origin() {
            return None;
        }
        match self {
            Self::NotSent(_) | Self::Absent => Some(Reason::NotSent),
            Self::TurnedAway => Some(Reason::Refused),
            Self::Refused(reason) if reason.starts_with(extensions::NOT_HERE_REASON) => Some(Reason::NotHere),
            Self::Lost
            | Self::Read(_)
            | Self::NoAnswer(http2::NoAnswer::Broken(_))
            | Self::Ended
            | Self::BrokenThere => Some(Reason::Broken),
            Self::Silent | Self::SilentThere => Some(Reason::Silent),
            Self::NoConnection
            | Self::OriginThere
            | Self::Head(_)
            | Self::Busy
            | Self::Write(_)
            | Self::NoAnswer(_)
            | Self::Decode(_)
            | Self::Refused(_)
            | Self::Late
            | Self::Stalled
            | Self::Visitor
            | Self::NotReplayable(_) => None,
        }
    }
}
