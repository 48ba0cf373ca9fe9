//! A machine that wants to be a node of the fleet asks for it here, by an invitation instead of a token. Knows the
//! answers; `nodes::admit` decides.

use tracing::warn;

use super::Api;
use super::envelope::{self, Answer, Problem};
use crate::nodes::admit::AdmitError;
use crate::nodes::invitation::{Ask, JoinError};
use crate::state::ChangeError;

impl Api {
    pub(super) async fn join_fleet(&self, ask: Ask) -> Result<Answer, Problem> {
        let admitting =
            self.admitting.as_ref().ok_or(Problem::Later("nodes without [store] in its configuration"))?;
        match admitting.admit(ask).await {
            Ok(reply) => Ok(envelope::success(reply)),
            Err(AdmitError::Change(ChangeError::Conflict { .. }) | AdmitError::Join(JoinError::Refused)) => {
                Err(Problem::Forbidden)
            }
            Err(AdmitError::Change(error)) => {
                warn!(%error, "no node can join now");
                Err(Problem::Unavailable)
            }
            Err(AdmitError::Join(JoinError::Wrong(reason))) => Err(Problem::Invalid(reason.to_owned())),
            Err(error @ (AdmitError::Wrong(_) | AdmitError::Full)) => {
                Err(Problem::Conflict(error.to_string()))
            }
            Err(AdmitError::Join(error)) => {
                warn!(%error, "no node can join now");
                Err(Problem::Unavailable)
            }
        }
    }
}
