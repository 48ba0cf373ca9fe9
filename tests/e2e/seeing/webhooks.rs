//! Requests that are sent again, held against what the service was sent, byte for byte.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;

/// A request as it came: the first line with the headers behind it, sorted, and the body.
type Came = (Vec<String>, Vec<u8>);

/// A service that keeps every request.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Came>>>);

impl Recorder {
    fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let recorder = Self::default();
        let keeps = recorder.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let keeps = keeps.clone();
                std::thread::spawn(move || keeps.serve(stream));
            }
        });
        (recorder, format!("http://{address}"))
    }

    fn serve(&self, mut stream: std::net::TcpStream) {
        let mut bytes = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
            let whole = end.and_then(|at| {
                let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
                let length = head.to_lowercase();
                let length =
                    length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let end = at + 4 + length.unwrap_or(0);
                (bytes.len() >= end).then(|| (head, at + 4, end))
            });
            let Some((head, from, to)) = whole else {
                match stream.read(&mut piece) {
                    Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
                    _ => return,
                }
                continue;
            };
            let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
            lines[1..].sort();
            let body = bytes[from..to].to_vec();
            bytes.drain(..to);
            self.0.lock().unwrap().push((lines, body));
            if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
                return;
            }
        }
    }

    /// What was kept since the last call, which has to be as much.
    async fn taken(&self, wanted: usize) -> Vec<Came> {
        within("the service has it", async {
            while self.0.lock().unwrap().len() < wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// Headers that say what a request is: one that is sent again, and which.
const OF_ITS_OWN: [&str; 2] = ["adit-replay: ", "cf-ray: "];

/// A webhook as somebody sends it: kind of body, headers besides, and the body.
fn webhook(number: usize) -> (&'static str, Vec<(&'static str, String)>, String) {
    let order = 1000 + number;
    let event = |name: &'static str, value: &str| vec![(name, value.to_owned())];
    match number % 10 {
        0 => (
            "application/json",
            event("x-github-event", "issues"),
            format!(
                "{{\"action\":\"opened\",\"issue\":{{\"number\":{order},\"title\":\"caf\u{e9} \\u00e9 \\\"q\\\"\"}}}}"
            ),
        ),
        1 => (
            "application/json; charset=utf-8",
            event("x-shop-topic", "orders/create"),
            format!("{{\r\n  \"id\" : {order},\r\n  \"lines\" : [ {{ \"price\" : \"10.00\" }} ]\r\n}}\r\n"),
        ),
        2 => (
            "application/x-www-form-urlencoded",
            vec![],
            format!("order={order}&note=a+b%20c&empty=&note=again"),
        ),
        3 => ("text/plain", vec![], format!("order {order}\n\ttab and trailing space \n\n")),
        4 => (
            "application/xml",
            vec![],
            format!("<?xml version=\"1.0\"?>\n<order n='{order}'><a/>&amp;</order>"),
        ),
        5 => (
            "application/json",
            event("x-attempt", "2"),
            format!("[{order},1e3,-0.0,true,null,\"\\ud83d\\ude00\"]"),
        ),
        6 => {
            ("application/cloudevents+json", event("ce-type", "order.paid"), format!("{{\"data\":{order}}}"))
        }
        7 => ("application/json", vec![], String::new()),
        8 => ("text/csv", vec![], format!("order,amount\r\n{order},\"1,50\"\r\n")),
        _ => ("application/x-ndjson", vec![], format!("{{\"n\":{order}}}\n").repeat(200)),
    }
}

/// seeing.md, row 5. At most ten are sent again in a second, so this takes a while.
#[tokio::test]
async fn a_hundred_webhooks_are_sent_again_byte_for_byte() {
    let (recorder, service) = Recorder::start();
    let site = Site::new();
    site.write("admin-token", format!("{TOKEN}\n"));
    let mut host = HostDocument::new().over(super::super::PROTOCOL).otherwise(&service);
    host.admin_keys = "token-file = \"admin-token\"".to_owned();
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
    let browser = Browser::sign_in(product.host.admin).await;
    assert_eq!(browser.send("/ui/inspector", "what=start&for=10m&bodies=65536").await.status, 303);
    let visitor = product.visitor(Speaks::Http1);
    for number in 0..100 {
        let (kind, headers, body) = webhook(number);
        let mut request = to("POST", &format!("/hooks/{}?n={number}&b=%20+", number % 3));
        request =
            request.header("content-type", kind).header("user-agent", "Hooks/1.0 (+https://example.com)");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        assert_eq!(visitor.send(with_text(request, &body)).await.status, 204);
        let first = recorder.taken(1).await.remove(0);
        assert_eq!(first.1, body.as_bytes());
        let newest = async || {
            let since = browser.ask("GET", "/ui/requests.json?since=0", &[], None).await.json();
            since["exchanges"].as_array().unwrap().last().map(|one| one["number"].as_u64().unwrap())
        };
        let before = within("it is kept", async {
            loop {
                match newest().await {
                    Some(last) if last as usize == 2 * number + 1 => return last,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await;
        let path = format!("/ui/requests/{before}/again");
        let again = within("there is room for it", async {
            loop {
                let again = browser.send(&path, "sure=yes").await;
                if again.status != 503 {
                    return again;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        assert!(again.status == 200 && again.text().contains("Sent again"), "{number}: {}", again.text());
        let second = recorder.taken(1).await.remove(0);
        let is_same = |line: &&String| !OF_ITS_OWN.iter().any(|name| line.to_lowercase().starts_with(name));
        let lines = |lines: &[String]| lines.iter().filter(is_same).cloned().collect::<Vec<_>>();
        assert_eq!(lines(&second.0), lines(&first.0), "{number}");
        assert_eq!(second.1, first.1, "{number}");
        assert!(second.0.iter().any(|line| line.to_lowercase() == "adit-replay: 1"), "{:?}", second.0);
    }
}
