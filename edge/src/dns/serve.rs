//! The sockets of the name server: UDP and TCP on one address. Knows who asks and how often; what is answered is in
//! `zones`.

use std::cell::Cell;
use std::net::{self, IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::admission::{Admission, Guest};
use adit_net::clients::Clients;
use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::nodes::Nodes;
use super::rate::{Ration, Rations, network};
use super::zones::Known;
use super::{Terms, message};
use crate::certificates::challenges::Challenges;
use crate::state::State;
use crate::store::records::nodes::Wanted;
use crate::visitor::HostTable;

/// What answers.
#[derive(Clone)]
pub(crate) struct NameServer {
    pub(crate) terms: Arc<Terms>,
    pub(crate) names: Arc<HostTable>,
    /// A name of the edge itself, which leads here as well.
    pub(crate) own: Option<String>,
    pub(crate) challenges: Arc<Challenges>,
    pub(crate) nodes: Nodes,
    /// Whose revision is the zones' serial number.
    pub(crate) state: Option<State>,
}

impl NameServer {
    /// Answers until `stop`.
    ///
    /// # Errors
    /// A socket cannot be used.
    pub(crate) async fn run(
        self,
        udp: net::UdpSocket,
        tcp: net::TcpListener,
        room: Arc<Admission>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let udp = UdpSocket::from_std(udp).context("listening for questions about names")?;
        let tcp = TcpListener::from_std(tcp).context("listening for questions about names")?;
        let converse = |stream, from: SocketAddr, guest: Guest| {
            let server = self.clone();
            async move { server.converse(stream, from.ip(), &guest).await }
        };
        let over_tcp = ASKERS.serve(tcp, &room, stop.clone(), converse);
        let udp = Arc::new(udp);
        let over_udp = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.datagrams(&udp) => {}
            }
        };
        let ((), ()) = tokio::join!(over_tcp, over_udp);
        Ok(())
    }

    async fn datagrams(&self, socket: &Arc<UdpSocket>) {
        let mut rations = Rations::new(Instant::now());
        let (waiting, mut answers) = (Admission::new(MOST_WAITING), JoinSet::new());
        let mut question = [0; LONGEST_QUESTION];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut question) => received,
                Some(_) = answers.join_next(), if !answers.is_empty() => continue,
            };
            // An error is about whoever was answered before.
            let Ok((length, from)) = received else { continue };
            let ration = rations.take(from.ip(), Instant::now());
            if ration == Ration::Nothing {
                continue;
            }
            let (answer, is_certain) = self.answered(&question[..length], from.ip());
            if ration == Ration::Cut || is_certain {
                send(socket, answer, ration, from);
                continue;
            }
            let (server, socket, question) = (self.clone(), socket.clone(), question[..length].to_vec());
            let guest = waiting.admit(from.ip());
            answers.spawn(async move {
                if guest.unless_dismissed(server.challenges.catch_up()).await.is_some() {
                    send(&socket, server.answered(&question, from.ip()).0, ration, from);
                }
            });
        }
    }

    async fn converse(self, mut stream: TcpStream, from: IpAddr, guest: &Guest) {
        for _ in 0..MOST_QUESTIONS {
            let exchange = async {
                let length = stream.read_u16().await.ok()?;
                let mut question = vec![0; usize::from(length)];
                stream.read_exact(&mut question).await.ok()?;
                let mut answer = self.answered(&question, from);
                if !answer.1 {
                    self.challenges.catch_up().await;
                    answer = self.answered(&question, from);
                }
                let answer = answer.0?.whole()?;
                let mut whole = u16::try_from(answer.len()).ok()?.to_be_bytes().to_vec();
                whole.extend_from_slice(&answer);
                stream.write_all(&whole).await.ok()
            };
            let exchanged = guest.unless_dismissed(timeout(PATIENCE, exchange)).await;
            if !matches!(exchanged, Some(Ok(Some(())))) {
                return;
            }
        }
    }

    /// The answer by what is known now, and whether that is all: another edge may have told an authority to ask here
    /// before this one knows of it.
    fn answered(&self, question: &[u8], from: IpAddr) -> (Option<message::Written>, bool) {
        let is_certain = Cell::new(true);
        let serial = self.state.as_ref().map_or(1, |state| state.served().0 as u32);
        let known = Known {
            leads: &|name| self.own.as_deref() == Some(name) || self.names.find(name).is_some(),
            looked_for: &|host| {
                let texts = self.challenges.over_dns(host);
                is_certain.set(!texts.is_empty() || !self.challenges.can_catch_up());
                texts
            },
            is_up: &self.are_up(),
            asker: network(from),
        };
        (message::answered(question, &self.terms, serial, &known), is_certain.get())
    }

    /// Which nodes are well: as they say themselves, and as the fleet wants them. Whether one is alive counts where
    /// nothing says more: the store hears late of it.
    fn are_up(&self) -> Vec<bool> {
        let mut are_up = self.nodes.are_up();
        if let Some(state) = &self.state
            && self.terms.nodes.iter().any(|node| node.node.is_some())
        {
            state.read(|snapshot| {
                for (node, is_up) in self.terms.nodes.iter().zip(&mut are_up) {
                    let Some(name) = &node.node else { continue };
                    let wanted = snapshot.nodes.get(name).map(|kept| kept.record.wanted);
                    let is_alive = node.probe.is_some() || snapshot.alive.contains_key(name);
                    *is_up &= wanted == Some(Wanted::Active) && is_alive;
                }
            });
        }
        are_up
    }

    pub(crate) fn room() -> Arc<Admission> {
        ASKERS.room()
    }
}

fn send(socket: &UdpSocket, answer: Option<message::Written>, ration: Ration, to: SocketAddr) {
    let answer = answer.and_then(|answer| match ration {
        Ration::Answer => answer.short(),
        Ration::Cut | Ration::Nothing => answer.cut(),
    });
    if let Some(answer) = answer {
        // Where there is no room for it the asker asks again.
        let _ = socket.try_send_to(&answer, to);
    }
}

/// Over TCP, where nobody can ask for others.
const ASKERS: Clients = Clients { whose: "resolvers", most: 128, farewell: Duration::from_millis(200) };
/// Bytes of a question over UDP.
const LONGEST_QUESTION: usize = 4096;
/// Questions over UDP that wait for the word of another edge.
const MOST_WAITING: usize = 256;
/// On one connection.
const MOST_QUESTIONS: usize = 100;
/// From one question to the end of the answer to the next.
const PATIENCE: Duration = Duration::from_secs(10);
