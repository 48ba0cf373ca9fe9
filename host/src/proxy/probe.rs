//! Whether the origins of the running generation can be reached: a connection each, TLS included, that
//! carries no request. Asked for by the edge and by the admin API.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Current;
use super::respond::chain;
use crate::generation::{Backend, Generation, Rule};
use crate::origin::Origin;

/// Most origins that are looked at.
const MOST_ORIGINS: usize = 256;
/// How many at once.
const AT_ONCE: usize = 16;
/// How long one may take.
const EACH: Duration = Duration::from_secs(2);
/// How long all may take.
const ALL: Duration = Duration::from_secs(8);
/// So long an outcome answers further questions.
const FRESH: Duration = Duration::from_secs(3);
/// Questions that may wait while origins are looked at.
const MOST_ASKS: usize = 64;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// Whether all of them can be reached.
    pub ready: bool,
    /// Each origin once, with the first rule that leads to it.
    pub origins: Vec<Checked>,
}

/// One origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub rule: String,
    pub origin: String,
    pub ok: bool,
    pub error: Option<String>,
}

/// Asks for a probe. Can be cloned and used from any thread.
#[derive(Clone)]
pub struct Prober {
    asks: mpsc::Sender<oneshot::Sender<Arc<Probe>>>,
}

/// Does the work, one probe at a time, so that any number of questions make one.
pub struct Inspector {
    asks: mpsc::Receiver<oneshot::Sender<Arc<Probe>>>,
    current: Arc<Current>,
    last: Option<Last>,
}

struct Last {
    generation: u64,
    at: Instant,
    probe: Arc<Probe>,
}

impl Prober {
    pub fn new(current: Arc<Current>) -> (Self, Inspector) {
        let (asks, inbox) = mpsc::channel(MOST_ASKS);
        (Self { asks }, Inspector { asks: inbox, current, last: None })
    }

    /// Looks at every origin, or says what was found less than 3 s ago. Takes at most twice 8 s. May be
    /// dropped midway.
    pub async fn probe(&self) -> Arc<Probe> {
        let (answer, answered) = oneshot::channel();
        match self.asks.send(answer).await {
            Ok(()) => answered.await.unwrap_or_else(|_| ended()),
            Err(_) => ended(),
        }
    }
}

impl Inspector {
    /// Answers questions until dropped.
    pub async fn run(mut self) {
        while let Some(asked) = self.asks.recv().await {
            // Whoever asks for a generation must not be told of the one before.
            let generation = self.current.load_full();
            let known = self.last.take();
            let known =
                known.filter(|last| last.generation == generation.number && last.at.elapsed() < FRESH);
            let last = match known {
                Some(last) => last,
                None => {
                    let probe = Arc::new(look(&generation).await);
                    Last { generation: generation.number, at: Instant::now(), probe }
                }
            };
            let _ = asked.send(last.probe.clone());
            self.last = Some(last);
        }
    }
}

async fn look(generation: &Generation) -> Probe {
    let mut seen = HashSet::new();
    // A component serves as long as the generation does: nothing to connect to.
    let origins = generation.rules().iter().filter_map(|rule| match &rule.backend {
        Backend::Origin(origin, _) => Some((rule, origin)),
        Backend::Component(_) => None,
    });
    let distinct = origins.filter(|(_, origin)| seen.insert(origin.key()));
    let until = Instant::now() + ALL;
    let checks: Vec<_> =
        distinct.take(MOST_ORIGINS).map(|(rule, origin)| check(rule, origin, until)).collect();
    let origins: Vec<Checked> = futures_util::stream::iter(checks).buffered(AT_ONCE).collect().await;
    Probe { ready: origins.iter().all(|checked| checked.ok), origins }
}

async fn check(rule: &Rule, origin: &Origin, until: Instant) -> Checked {
    let limit = until.min(Instant::now() + EACH);
    let error = match timeout_at(limit, origin.probe()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) if limit == until => Some("no time was left to try, so many others were slow".to_owned()),
        Err(_) => Some(format!("no connection within {} s", EACH.as_secs())),
    };
    Checked { rule: rule.name.clone(), origin: origin.name().into_owned(), ok: error.is_none(), error }
}

fn ended() -> Arc<Probe> {
    Arc::new(Probe { ready: false, origins: Vec::new() })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use arc_swap::ArcSwap;
    use tokio::net::TcpListener;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::config;
    use crate::contents::Contents;
    use adit_engine::{Engine, EngineSettings};

    async fn current(rules: &str) -> Arc<Current> {
        let plan = config::tests::plan(&format!("{rules}[[ingress]]\nservice = \"hello_world\"\n"));
        let engine = Engine::new(EngineSettings::default()).unwrap();
        Arc::new(ArcSwap::from_pointee(
            Generation::build(1, &plan, &engine, 1, None, &mut Contents::default()).await.unwrap(),
        ))
    }

    fn start(current: Arc<Current>) -> (Prober, AbortOnDropHandle<()>) {
        let (prober, inspector) = Prober::new(current);
        (prober, AbortOnDropHandle::new(tokio::spawn(inspector.run())))
    }

    fn rule(path: &str, scheme: &str, address: SocketAddr) -> String {
        format!("[[ingress]]\nname = {path:?}\npath = {path:?}\nservice = \"{scheme}://{address}\"\n")
    }

    #[tokio::test]
    async fn any_number_of_questions_make_one_connection_to_each_origin() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rules = format!("{}{}", rule("one", "http", address), rule("two", "http", address));
        let (prober, _inspector) = start(current(&rules).await);
        let probes = futures_util::future::join_all((0..8).map(|_| prober.probe())).await;
        assert!(probes.iter().all(|probe| Arc::ptr_eq(probe, &probes[0])));
        assert!(probes[0].ready);
        let checked: Vec<_> = probes[0]
            .origins
            .iter()
            .map(|checked| (checked.rule.as_str(), checked.origin.as_str()))
            .collect();
        assert_eq!(checked, [("one", format!("http://{address}").as_str()), ("*", "hello_world")]);
        listener.accept().await.unwrap();
        tokio::select! {
            biased;
            _ = listener.accept() => panic!("there was a second connection"),
            () = tokio::task::yield_now() => {}
        }
    }

    #[tokio::test]
    async fn an_origin_that_is_gone_or_speaks_no_tls_is_named_with_the_reason() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rules =
            format!("{}{}", rule("gone", "http", gone), rule("plain", "https", plain.local_addr().unwrap()));
        let (prober, _inspector) = start(current(&rules).await);
        let answers = async {
            let (mut stream, _) = plain.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        };
        let (probe, ()) = tokio::join!(prober.probe(), answers);
        assert!(!probe.ready);
        let errors: Vec<_> = probe.origins.iter().map(|it| it.error.as_deref().unwrap_or_default()).collect();
        assert!(errors[0].contains("connecting to") && errors[0].contains("refused"), "{errors:?}");
        assert!(errors[1].contains("TLS handshake"), "{errors:?}");
        assert_eq!(errors[2], "");
    }

    #[tokio::test]
    async fn a_new_generation_is_looked_at_anew() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let current_one = current(&rule("gone", "http", gone)).await;
        let (prober, _inspector) = start(current_one.clone());
        assert!(!prober.probe().await.ready);
        let plan = config::tests::plan("[[ingress]]\nservice = \"hello_world\"\n");
        let engine = Engine::new(EngineSettings::default()).unwrap();
        current_one.store(Arc::new(
            Generation::build(2, &plan, &engine, 1, None, &mut Contents::default()).await.unwrap(),
        ));
        assert!(prober.probe().await.ready);
    }
}
