//! Streams that an edge opens to an address by itself, as the description of the wire has them: carried where a rule
//! without plugins names the address, or the host's own document allows it, and refused everywhere else.

use adit_protocol::stream::{Answer, Connect};
use bytes::{Bytes, BytesMut};
use e2e::document::HostDocument;
use e2e::process::Process;
use e2e::product::Site;
use e2e::stand_in::{Registered, StandIn, StandInHttp2};
use e2e::tcp::{Ended, Habit, TcpService};
use e2e::within;
use http::{Request, Response};
use std::net::SocketAddr;

/// What comes of a stream over either transport.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It was accepted, and this came behind what was sent.
    Carried(Vec<u8>),
    /// Whether that is because there are too many.
    Refused(bool),
}

#[expect(dead_code, reason = "host, edge and folder are there for as long as the lab is")]
enum Lab {
    Quic(Box<Registered>, Process, StandIn, Site),
    Http2(h2::client::SendRequest<Bytes>, Process, StandInHttp2, Site),
}

impl Lab {
    async fn start(protocol: &'static str, rules: &str) -> Self {
        let site = Site::new();
        let mut document = HostDocument { edge_ca: "stand-in.pem".into(), ..HostDocument::new() }
            .over(protocol)
            .otherwise("http_status:404");
        document.rules = format!("{rules}{}", document.rules);
        if protocol == "quic" {
            let mut edge = StandIn::start();
            site.write("stand-in.pem", &edge.ca_pem);
            let host = site.spawn_host(&[edge.address], &document);
            return Self::Quic(Box::new(edge.registered().await), host, edge, site);
        }
        let mut edge = StandInHttp2::start();
        site.write("stand-in.pem", &edge.ca_pem);
        let host = site.spawn_host(&[edge.address], &document);
        Self::Http2(edge.registered().await, host, edge, site)
    }

    /// Opens a stream to this address, says all of it, and hears the rest.
    async fn ask(&self, to: SocketAddr, said: &[u8]) -> Outcome {
        match self {
            Self::Quic(registered, ..) => {
                let head = Connect::Tcp { destination: to }.encode().unwrap();
                let (mut send, mut recv) = registered.open(&head).await;
                let _ = send.write_all(said).await;
                let _ = send.finish();
                let all = within("an answer", recv.read_to_end(1 << 20)).await.expect("it is whole");
                let mut all = BytesMut::from(&all[..]);
                match Answer::decode(&mut all).unwrap().expect("a whole head") {
                    Answer::Accepted => Outcome::Carried(all.to_vec()),
                    Answer::Refused { flow_rate_limited, .. } => Outcome::Refused(flow_rate_limited),
                    Answer::Http(response) => panic!("{response:?}"),
                }
            }
            Self::Http2(requests, ..) => {
                let request = Request::get(format!("https://{to}/"))
                    .header("cf-cloudflared-proxy-src", "203.0.113.7")
                    .body(())
                    .unwrap();
                let mut requests = within("room", requests.clone().ready()).await.unwrap();
                let (response, mut up) = requests.send_request(request, false).unwrap();
                // It may be refused before it is sent.
                let _ = up.send_data(Bytes::copy_from_slice(said), true);
                let response: Response<_> = within("an answer", response).await.unwrap();
                let meta = response.headers()["cf-cloudflared-response-meta"].to_str().unwrap().to_owned();
                if response.status() != 200 {
                    assert_eq!(response.status(), 502);
                    return Outcome::Refused(meta.contains("flow_rate_limited"));
                }
                assert_eq!(meta, r#"{"src":"origin"}"#);
                assert_eq!(response.headers()["cf-cloudflared-response-headers"], "");
                let (mut body, mut all) = (response.into_body(), Vec::new());
                while let Some(data) = within("the rest", body.data()).await {
                    let data = data.expect("it is whole");
                    let _ = body.flow_control().release_capacity(data.len());
                    all.extend_from_slice(&data);
                }
                Outcome::Carried(all)
            }
        }
    }
}

fn rule(name: &str, service: &TcpService, more: &str) -> String {
    format!("[[ingress]]\nhostname = \"{name}.test\"\nservice = \"tcp://{}\"\n{more}", service.address)
}

#[tokio::test]
async fn a_stream_is_carried_to_an_address_that_a_rule_without_plugins_names() {
    for protocol in ["quic", "http2"] {
        let [named, guarded, other] = std::array::from_fn(|_| TcpService::start(Habit::WaitsForAll));
        let rules = [
            "[[plugin]]\nname = \"auth\"\ncomponent = \"shelf:request-id\"\n".to_owned(),
            rule("named", &named, ""),
            rule("open", &guarded, ""),
            rule("guarded", &guarded, "plugins = [\"auth\"]\n"),
        ];
        let lab = Lab::start(protocol, &rules.concat()).await;
        assert_eq!(lab.ask(named.address, b"bytes").await, Outcome::Carried(b"bytes".to_vec()), "{protocol}");
        assert_eq!(named.ended().await, Ended::Well(5));
        // What looks at requests cannot look at this, and another rule does not open what it closes.
        assert_eq!(lab.ask(guarded.address, b"bytes").await, Outcome::Refused(false), "{protocol}");
        assert_eq!(lab.ask(other.address, b"bytes").await, Outcome::Refused(false), "{protocol}");
        let local = SocketAddr::from(([127, 0, 0, 1], 22));
        assert_eq!(lab.ask(local, b"").await, Outcome::Refused(false), "{protocol}");
    }
}

#[tokio::test]
async fn a_stream_is_carried_to_an_address_that_the_document_allows() {
    for protocol in ["quic", "http2"] {
        let [allowed, other] = std::array::from_fn(|_| TcpService::start(Habit::WaitsForAll));
        let rules = format!(
            "[tcp]\nip-rules = [{{ prefix = \"127.0.0.1\", ports = [{}], allow = true }}]\n",
            allowed.address.port()
        );
        let lab = Lab::start(protocol, &rules).await;
        assert_eq!(
            lab.ask(allowed.address, b"bytes").await,
            Outcome::Carried(b"bytes".to_vec()),
            "{protocol}"
        );
        assert_eq!(lab.ask(other.address, b"bytes").await, Outcome::Refused(false), "{protocol}");
    }
}

#[tokio::test]
async fn a_stream_beyond_the_limit_is_refused_with_the_word_for_it() {
    for protocol in ["quic", "http2"] {
        let service = TcpService::start(Habit::Echo);
        let rules = format!("[tcp]\nmost-circuits = 1\n{}", rule("named", &service, ""));
        let lab = Lab::start(protocol, &rules).await;
        // One is there for as long as nothing is finished.
        let _open = match &lab {
            Lab::Quic(registered, ..) => {
                let head = Connect::Tcp { destination: service.address }.encode().unwrap();
                let (mut send, mut recv) = registered.open(&head).await;
                send.write_all(b"x").await.unwrap();
                let mut first = vec![0; 1];
                within("its head", recv.read_exact(&mut first)).await.unwrap();
                (Some((send, recv)), None)
            }
            Lab::Http2(requests, ..) => {
                let request = Request::get(format!("https://{}/", service.address))
                    .header("cf-cloudflared-proxy-src", "203.0.113.7")
                    .body(())
                    .unwrap();
                let (response, up) = within("room", requests.clone().ready())
                    .await
                    .unwrap()
                    .send_request(request, false)
                    .unwrap();
                let response = within("its head", response).await.unwrap();
                assert_eq!(response.status(), 200);
                (None, Some((response, up)))
            }
        };
        assert_eq!(lab.ask(service.address, b"bytes").await, Outcome::Refused(true), "{protocol}");
    }
}
