//! What other nodes have of a tunnel, for whoever looks at it: a question to those that have some of it, when somebody
//! asks. Nobody keeps the answers. Knows what is asked and what comes of it; does not know who looks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::HeaderValue;
use tokio::time::timeout;
use tracing::debug;
use uuid::Uuid;

use super::Peers;
use super::other::Other;
use crate::registry::{ListedConnection, Registry};
use crate::transport::peer::FORMAT;

/// What one node asks another one, with an answer in JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The connections of these tunnels.
    Connections(Vec<Uuid>),
    /// That a tunnel's connections leave, or those of one replica; how many there were.
    Disconnect(Uuid, Option<Uuid>),
}

impl Question {
    fn header(&self) -> HeaderValue {
        let text = match self {
            Self::Connections(tunnels) => {
                let tunnels: Vec<String> = tunnels.iter().map(ToString::to_string).collect();
                format!("{FORMAT} connections {}", tunnels.join(","))
            }
            Self::Disconnect(tunnel, None) => format!("{FORMAT} disconnect {tunnel}"),
            Self::Disconnect(tunnel, Some(connector)) => {
                format!("{FORMAT} disconnect {tunnel} {connector}")
            }
        };
        HeaderValue::try_from(text).expect("letters and digits are a header value")
    }

    /// `None` of anything else, and of what another format says.
    pub(super) fn of(value: &HeaderValue) -> Option<Self> {
        let mut words = value.to_str().ok()?.split(' ');
        let mut next = || words.next();
        if next()?.parse() != Ok(FORMAT) {
            return None;
        }
        let question = match next()? {
            "connections" => {
                let tunnels = next()?.split(',').map(|tunnel| tunnel.parse().ok());
                Self::Connections(tunnels.take(MOST_TUNNELS + 1).collect::<Option<_>>()?)
            }
            "disconnect" => {
                let (tunnel, connector) = (next()?.parse().ok()?, next());
                Self::Disconnect(
                    tunnel,
                    connector.map(|id| id.parse().ok()).map_or(Some(None), |id| id.map(Some))?,
                )
            }
            _ => return None,
        };
        let is_too_long = matches!(&question, Self::Connections(tunnels) if tunnels.len() > MOST_TUNNELS);
        (next().is_none() && !is_too_long).then_some(question)
    }

    /// What this node has to say to it.
    pub(super) fn answer(&self, registry: &Registry) -> Vec<u8> {
        let json = match self {
            Self::Connections(tunnels) => {
                let known = tunnels.iter().filter_map(|id| Some((*id, registry.tunnel(id)?.listed())));
                serde_json::to_vec(&known.collect::<HashMap<_, _>>())
            }
            Self::Disconnect(tunnel, connector) => {
                let tunnel = registry.tunnel(tunnel);
                serde_json::to_vec(&tunnel.map_or(0, |tunnel| tunnel.disconnect(*connector)))
            }
        };
        json.expect("texts and numbers have a JSON form")
    }
}

impl Peers {
    /// The connections of these tunnels at other nodes. Of one that does not answer soon nothing is known.
    pub(crate) async fn connections(&self, tunnels: &[Uuid]) -> HashMap<Uuid, Vec<ListedConnection>> {
        let mut all: HashMap<Uuid, Vec<ListedConnection>> = HashMap::new();
        for tunnels in tunnels.chunks(MOST_TUNNELS) {
            let asked = self.having(tunnels).into_iter().map(|(other, tunnels)| async move {
                let answer = ask(&other, &Question::Connections(tunnels)).await?;
                let known = serde_json::from_slice::<HashMap<Uuid, Vec<ListedConnection>>>(&answer);
                known
                    .inspect_err(|error| debug!(node = other.name(), %error, "its answer is not understood"))
                    .ok()
            });
            for (tunnel, connections) in join_all(asked).await.into_iter().flatten().flatten() {
                all.entry(tunnel).or_default().extend(connections);
            }
        }
        all
    }

    /// Makes the connections of a tunnel at other nodes leave, or those of one replica. How many there were.
    pub(crate) async fn disconnect(&self, tunnel: Uuid, connector: Option<Uuid>) -> usize {
        let asked = self.having(&[tunnel]).into_iter().map(|(other, _)| async move {
            let answer = ask(&other, &Question::Disconnect(tunnel, connector)).await?;
            serde_json::from_slice::<usize>(&answer).ok()
        });
        join_all(asked).await.into_iter().flatten().sum()
    }

    /// Who has hosts of any of these tunnels, with those that it has.
    fn having(&self, tunnels: &[Uuid]) -> Vec<(Arc<Other>, Vec<Uuid>)> {
        let others = self.others.borrow().clone();
        let having = others.values().map(|other| {
            let has = tunnels.iter().filter(|tunnel| other.has(tunnel)).copied().collect();
            (other.clone(), has)
        });
        having.filter(|(_, tunnels): &(_, Vec<Uuid>)| !tunnels.is_empty()).collect()
    }
}

async fn ask(other: &Other, question: &Question) -> Option<Vec<u8>> {
    match timeout(ANSWER, other.ask(question.header(), LONGEST)).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            debug!(
                node = other.name(),
                error = format!("{error:#}"),
                "another node does not say what it has"
            );
            None
        }
        Err(_) => {
            debug!(node = other.name(), "another node does not say in time what it has");
            None
        }
    }
}

/// Tunnels in one question.
const MOST_TUNNELS: usize = 100;
/// Until another node has said what it has.
const ANSWER: Duration = Duration::from_secs(1);
/// Bytes of an answer.
const LONGEST: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_as_it_was_written_and_nothing_else_is() {
        let [one, other] = [1, 2].map(Uuid::from_u128);
        let text = |question: &Question| question.header().to_str().unwrap().to_owned();
        for (question, said) in [
            (Question::Connections(vec![one, other]), format!("1 connections {one},{other}")),
            (Question::Disconnect(one, None), format!("1 disconnect {one}")),
            (Question::Disconnect(one, Some(other)), format!("1 disconnect {one} {other}")),
        ] {
            // As neighbours of this format have it.
            assert_eq!(text(&question), said);
            assert_eq!(Question::of(&question.header()), Some(question));
            for wrong in [said.replacen('1', "2", 1), format!("{said} x"), said[..said.len() - 1].to_owned()]
            {
                assert_eq!(Question::of(&HeaderValue::try_from(&wrong).unwrap()), None, "{wrong}");
            }
        }
        let many = Question::Connections(vec![one; MOST_TUNNELS + 1]);
        assert_eq!(Question::of(&many.header()), None);
        for wrong in ["", "1", "1 connections", "1 connections ,", "1 disconnect", "1 forget x"] {
            assert_eq!(Question::of(&HeaderValue::from_static(wrong)), None, "{wrong}");
        }
    }
}
