//! One WebSocket over which a log is watched: commands in one direction, lines in the other. Secrets are taken out
//! here, by who watches and not by who logs. Ends with the token, with the host, or when nobody takes what is said.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_inspector::Redactor;
use adit_protocol::management::{
    Claims, ClientEvent, EventKind, IDLE, INVALID_COMMAND, Level, Line, SESSION_LIMIT, ServerEvent,
};
use adit_protocol::websocket::{self, GOING_AWAY, Messages, NORMAL, PROTOCOL_ERROR, Said, Side};
use bytes::Bytes;
use http::HeaderName;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Management;
use super::tail::{Happened, Watching};
use crate::origin::{Body, BoxError};

/// Before it begins.
pub(super) struct Session {
    management: Arc<Management>,
    actor: String,
    /// When its token is over.
    until: Instant,
}

/// Why there is no more.
enum End {
    /// The other side has gone, or said that it goes.
    Gone,
    /// It is told so.
    Close(u16, &'static str),
}

impl Session {
    pub(super) fn new(management: Arc<Management>, claims: Claims) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = match claims.exp {
            0 => LONGEST,
            expires => Duration::from_secs(expires).saturating_sub(now).min(LONGEST),
        };
        Self { management, actor: claims.actor.id, until: Instant::now() + left }
    }

    /// What the host says; `watcher` is what is said to it. Runs beside, on the thread of the shard, until either is
    /// over.
    pub(super) fn serve(self, watcher: Body) -> Body {
        let (out, said) = mpsc::channel(FRAMES);
        tokio::task::spawn_local(async move {
            let end = tokio::select! {
                end = self.run(watcher, &out) => end,
                () = out.closed() => End::Gone,
                () = self.management.stop.cancelled() => End::Close(GOING_AWAY, "the host ends"),
                () = sleep_until(self.until) => End::Close(NORMAL, "the token is over"),
            };
            let last = match end {
                End::Gone => websocket::close(NORMAL, None),
                End::Close(code, why) => websocket::close_saying(code, why, None),
            };
            // Whoever takes nothing has heard enough.
            let _ = timeout(FAREWELL, out.send(last)).await;
        });
        Box::pin(Frames(said))
    }

    async fn run(&self, mut watcher: Body, out: &mpsc::Sender<Bytes>) -> End {
        let mut messages = Messages::new(Side::Client, LONGEST_COMMAND);
        let mut watching: Option<Watching> = None;
        let mut idle = Instant::now() + IDLE_AFTER;
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace::new();
        loop {
            let displaced = watching.as_ref().map(Watching::displaced);
            let is_idle = watching.is_none();
            let frame = tokio::select! {
                frame = watcher.frame() => match frame {
                    Some(Ok(frame)) => frame,
                    Some(Err(_)) | None => return End::Gone,
                },
                (happened, missed) = next(&mut watching, &mut pace) => {
                    let note = (missed > 0).then(|| too_many(missed, happened.at));
                    let redactor = &self.management.redactor;
                    let logs = [Some(line(happened, redactor)), note].into_iter().flatten().collect();
                    let text = serde_json::to_vec(&ServerEvent::Logs { logs }).unwrap_or_default();
                    if let Err(end) = send(out, websocket::text(&text, None)).await {
                        return end;
                    }
                    continue;
                }
                _ = pings.tick() => {
                    if let Err(end) = send(out, websocket::ping(None)).await {
                        return end;
                    }
                    continue;
                }
                () = cancelled(displaced) => return End::Close(NORMAL, "watched from elsewhere"),
                () = sleep_until(idle), if is_idle => {
                    return End::Close(IDLE, "session was idle for too long");
                }
            };
            let Ok(mut input) = frame.into_data() else { continue };
            loop {
                let said = match messages.next(&mut input) {
                    Ok(Some(said)) => said,
                    Ok(None) => break,
                    Err(_) => return End::Close(PROTOCOL_ERROR, "not a row of short messages"),
                };
                match said {
                    Said::Message(message) => match serde_json::from_slice(&message) {
                        Ok(ClientEvent::StartStreaming { filters }) => {
                            // Whoever asks anew, with other filters, begins anew: the same person makes room for itself.
                            match self.management.tail.watch(&self.actor, filters.unwrap_or_default()) {
                                Ok(begun) => watching = Some(begun),
                                Err(_) => {
                                    let why = "limit exceeded for streaming sessions";
                                    return End::Close(SESSION_LIMIT, why);
                                }
                            }
                        }
                        Ok(ClientEvent::StopStreaming) => {
                            watching = None;
                            idle = Instant::now() + IDLE_AFTER;
                        }
                        Err(_) => {
                            let why = "expected start streaming as first event";
                            return End::Close(INVALID_COMMAND, why);
                        }
                    },
                    Said::Ping(payload) => {
                        if let Err(end) = send(out, websocket::pong(&payload, None)).await {
                            return end;
                        }
                    }
                    Said::Pong => {}
                    Said::Close(_) => return End::Gone,
                }
            }
        }
    }
}

/// Only so many in a second: the thread has requests to serve.
struct Pace {
    second: Instant,
    sent: u32,
}

impl Pace {
    fn new() -> Self {
        Self { second: Instant::now(), sent: 0 }
    }

    /// When the next may go.
    fn due(&mut self) -> Instant {
        let now = Instant::now();
        if now >= self.second + Duration::from_secs(1) {
            (self.second, self.sent) = (now, 0);
        }
        if self.sent < MOST_A_SECOND { now } else { self.second + Duration::from_secs(1) }
    }
}

/// The next event, when it may go, and how many were lost before. May be dropped midway.
async fn next(watching: &mut Option<Watching>, pace: &mut Pace) -> (Happened, u64) {
    let Some(watching) = watching else { return std::future::pending().await };
    let due = pace.due();
    if due > Instant::now() {
        sleep_until(due).await;
    }
    let happened = watching.next().await;
    pace.due();
    pace.sent += 1;
    (happened, watching.missed())
}

async fn cancelled(token: Option<CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

async fn send(out: &mpsc::Sender<Bytes>, frame: Bytes) -> Result<(), End> {
    match timeout(PATIENCE, out.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Close(GOING_AWAY, "nobody takes what is said")),
    }
}

/// An event as it is told: cut, and without secrets.
fn line(happened: Happened, redactor: &Redactor) -> Line {
    let Happened { at, level, event, message, fields } = happened;
    let fields = fields.into_iter().take(MOST_FIELDS).map(|(name, value)| {
        let value = match value.as_str() {
            Some(text) => Value::String(field(&name, text, redactor)),
            None => value,
        };
        (name, value)
    });
    let fields: Map<String, Value> = fields.collect();
    let message = message_of(event, &fields).unwrap_or_else(|| redactor.text(cut(&message)).text);
    Line { time: time(at), level, message, event, fields }
}

/// What people want to see first of a request.
fn message_of(event: EventKind, fields: &Map<String, Value>) -> Option<String> {
    if event != EventKind::Http {
        return None;
    }
    let text = |name: &str| fields.get(name)?.as_str();
    let status = fields.get("status")?;
    Some(format!("{} {}{} {status}", text("method")?, text("host")?, text("path")?))
}

fn field(name: &str, text: &str, redactor: &Redactor) -> String {
    let text = cut(text);
    match (name, HeaderName::from_bytes(name.as_bytes())) {
        ("path", _) => redactor.target(text).text,
        // Made by an edge; what only looks so is none.
        ("id", _) => redactor.header(&RAY, text).text,
        (_, Ok(name)) => redactor.header(&name, text).text,
        (_, Err(_)) => redactor.text(text).text,
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

/// What a watcher is told instead of what did not fit.
fn too_many(missed: u64, at: SystemTime) -> Line {
    let message =
        format!("{missed} events were left out: there are more than can be watched; filters narrow it");
    let fields = Map::from_iter([("missed".to_owned(), Value::from(missed))]);
    Line { time: time(at), level: Level::Warn, message, event: EventKind::Cloudflared, fields }
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// What is said, as a body.
struct Frames(mpsc::Receiver<Bytes>);

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Where edges put the id of a request.
const RAY: HeaderName = HeaderName::from_static("cf-ray");
/// Frames on their way.
const FRAMES: usize = 4;
/// Lines of one second.
const MOST_A_SECOND: u32 = 500;
const LONGEST_COMMAND: usize = 4096;
const MOST_FIELDS: usize = 32;
/// Of a message or a field, bytes.
const LONGEST_TEXT: usize = 1024;
/// Of a token that does not say when it is over.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Without a command, while nothing is watched.
const IDLE_AFTER: Duration = Duration::from_secs(5 * 60);
const PING_EVERY: Duration = Duration::from_secs(15);
/// For a frame to be taken.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same of the last one.
const FAREWELL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(event: EventKind, message: &str, fields: Value) -> Line {
        let Value::Object(fields) = fields else { panic!("{fields}") };
        let happened = Happened {
            at: SystemTime::UNIX_EPOCH,
            level: Level::Info,
            event,
            message: message.to_owned(),
            fields,
        };
        line(happened, &Redactor::new().unwrap())
    }

    #[test]
    fn a_request_is_told_as_people_read_it_and_without_secrets() {
        let fields = json!({
            "id": "8f2b4d6a91c3e5f7-HAM", "method": "GET", "host": "app.example.com", "status": 200,
            "path": "/a?token=hunter2-hunter2", "milliseconds": 1.5, "whole": true,
        });
        let line = told(EventKind::Http, "access", fields);
        assert!(line.message.starts_with("GET app.example.com/a?token=‹redacted"), "{}", line.message);
        assert!(line.message.ends_with(" 200"), "{}", line.message);
        assert_eq!(
            (&line.fields["id"], &line.fields["milliseconds"]),
            (&json!("8f2b4d6a91c3e5f7-HAM"), &json!(1.5))
        );
        assert_eq!(line.time, "1970-01-01T00:00:00.000Z");
        let secrets = json!({
            "password": "hunter2", "api_key": "hunter2", "error": "Authorization: Bearer hunter2.hunter2",
            "url": "https://me:hunter2@example.com/",
        });
        let line = told(EventKind::Cloudflared, "token=hunter2 is wrong", secrets);
        assert!(!serde_json::to_string(&line).unwrap().contains("hunter2"), "{line:?}");
    }

    #[test]
    fn a_long_line_is_cut_and_has_an_end() {
        let fields: Map<String, Value> =
            (0..1000).map(|number| (format!("f{number}"), json!("a ".repeat(10_000)))).collect();
        let line = told(EventKind::Tcp, &"b ".repeat(10_000), Value::Object(fields));
        assert_eq!(line.fields.len(), MOST_FIELDS);
        let length = serde_json::to_vec(&line).unwrap().len();
        assert!(length < (MOST_FIELDS + 2) * 2 * LONGEST_TEXT, "{length}");
    }

    fn happened(message: &str) -> Happened {
        Happened {
            at: SystemTime::now(),
            level: Level::Info,
            event: EventKind::Cloudflared,
            message: message.to_owned(),
            fields: Map::new(),
        }
    }

    /// What a watcher hears, until `is_enough`.
    async fn heard(body: &mut Body, is_enough: impl Fn(&Said) -> bool) -> Vec<Said> {
        let (mut messages, mut all) = (Messages::new(Side::Server, 1 << 20), Vec::new());
        loop {
            let frame = body.frame().await.expect("there is more").expect("it is whole");
            let mut input = frame.into_data().expect("there are no trailers");
            while let Some(said) = messages.next(&mut input).unwrap() {
                let is_last = is_enough(&said);
                all.push(said);
                if is_last {
                    return all;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_watcher_that_takes_nothing_is_told_what_it_missed_and_a_host_that_ends_says_so() {
        let work = async {
            let (tail, stop) = (Arc::new(super::super::Tail::default()), CancellationToken::new());
            let management =
                Management::new(uuid::Uuid::nil(), uuid::Uuid::nil(), None, tail.clone(), stop.clone());
            let claims = json!({
                "tun": { "id": uuid::Uuid::nil(), "account_tag": "a" }, "actor": { "id": "me" },
            });
            let claims: Claims = serde_json::from_value(claims).unwrap();
            let (say, watcher) = mpsc::channel(1);
            let session = Session::new(Arc::new(management.unwrap()), claims);
            let mut body = session.serve(Box::pin(Frames(watcher)));
            let start = websocket::text(br#"{"type":"start_streaming"}"#, Some([1, 2, 3, 4]));
            say.send(start).await.unwrap();
            while tail.level().is_none() {
                tokio::task::yield_now().await;
            }
            // Nothing else runs meanwhile, as nothing would wait for it.
            for number in 0..1000 {
                tail.say(happened(&number.to_string()));
            }
            let said = heard(&mut body, |said| matches!(said, Said::Message(_))).await;
            let Some(Said::Message(message)) = said.last() else { panic!("{said:?}") };
            let ServerEvent::Logs { logs } = serde_json::from_slice(message).unwrap();
            assert_eq!(logs[0].message, "0");
            assert_eq!(logs[1].fields["missed"], tail.dropped(), "{logs:?}");
            assert_eq!(tail.dropped(), 744);
            stop.cancel();
            let said = heard(&mut body, |said| matches!(said, Said::Close(_))).await;
            assert_eq!(said.last(), Some(&Said::Close(Some(GOING_AWAY))));
            assert!(body.frame().await.is_none());
            assert_eq!(tail.level(), None, "nobody watches any more");
        };
        tokio::task::LocalSet::new().run_until(work).await;
    }

    #[tokio::test]
    async fn what_is_no_command_ends_it_and_somebody_else_is_told_that_it_is_watched() {
        let work = async {
            let (tail, stop) = (Arc::new(super::super::Tail::default()), CancellationToken::new());
            let management = Management::new(uuid::Uuid::nil(), uuid::Uuid::nil(), None, tail.clone(), stop);
            let management = Arc::new(management.unwrap());
            let _other = tail.watch("somebody", Default::default()).unwrap();
            for (said, code) in [
                (websocket::text(br#"{"type":"start_streaming"}"#, Some([1, 2, 3, 4])), SESSION_LIMIT),
                (websocket::text(b"{}", Some([1, 2, 3, 4])), INVALID_COMMAND),
                (Bytes::from_static(b"GET / HTTP/1.1"), PROTOCOL_ERROR),
                (websocket::text(&[b'x'; LONGEST_COMMAND + 1], Some([0; 4])), PROTOCOL_ERROR),
            ] {
                let claims = json!({
                    "tun": { "id": uuid::Uuid::nil(), "account_tag": "a" }, "actor": { "id": "me" },
                });
                let claims: Claims = serde_json::from_value(claims).unwrap();
                let (say, watcher) = mpsc::channel(1);
                let mut body = Session::new(management.clone(), claims).serve(Box::pin(Frames(watcher)));
                say.send(said).await.unwrap();
                let heard = heard(&mut body, |said| matches!(said, Said::Close(_))).await;
                assert_eq!(heard.last(), Some(&Said::Close(Some(code))));
            }
        };
        tokio::task::LocalSet::new().run_until(work).await;
    }
}
