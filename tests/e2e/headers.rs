//! The table of headers in docs/configuration.md: each of them sent by a visitor and by a service, and nothing
//! that no row is about.

use std::path::Path;

use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::Origin;
use e2e::product::Product;
use e2e::visitor::Speaks;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Dropped,
    Set,
    Passes,
}

/// What the page says of one header.
#[derive(Debug)]
struct Row {
    name: String,
    in_request: Fate,
    in_answer: Fate,
}

fn table() -> Vec<Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section =
        page.split("\n### ").find(|section| section.starts_with("What becomes of headers")).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<Row> = rows.flat_map(row).collect();
    assert!(rows.len() > 40, "{}", rows.len());
    rows
}

/// One for each name in the first cell.
fn row(line: &str) -> Vec<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    let [names, request, answer] = cells[..] else { panic!("{line}") };
    let fate = |cell: &str| match cell.split([' ', ',', ':', ';']).next() {
        Some("dropped") => Fate::Dropped,
        Some("set") => Fate::Set,
        Some("passes") => Fate::Passes,
        other => panic!("{other:?} in {line}"),
    };
    let names = names.split('`').skip(1).step_by(2).map(|name| name.replace('*', "Anything"));
    names.map(|name| Row { name, in_request: fate(request), in_answer: fate(answer) }).collect()
}

/// What this header may say, in a way in which neither end says it of itself.
fn value(name: &str) -> &'static str {
    match name {
        "Connection" => "close, x-named",
        "Content-Length" => "2",
        "Cookie" => "a=1",
        "Date" => "Sun, 06 Nov 1994 08:49:37 GMT",
        "Expect" => "100-continue",
        "Host" => HOST,
        "Keep-Alive" => "timeout=7",
        "TE" => "gzip",
        "Trailer" => "x-sum",
        "Transfer-Encoding" => "Chunked",
        "Upgrade" => "h2c",
        _ => "forged",
    }
}

/// The lines that a message needs besides, and its body.
fn rest(name: &str) -> &'static str {
    match name {
        "Connection" => "X-Named: forged\r\nContent-Length: 2\r\n\r\nok",
        "Content-Length" => "Connection: close\r\n\r\nok",
        "Transfer-Encoding" => "Connection: close\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        _ => "Connection: close\r\nContent-Length: 2\r\n\r\nok",
    }
}

fn judge(row: &Row, fate: Fate, seen: &[(String, String)]) {
    let name = row.name.to_ascii_lowercase();
    let of = |wanted: &str| -> Vec<&str> {
        seen.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).collect()
    };
    let (found, sent) = (of(&name), value(&row.name));
    match fate {
        Fate::Dropped => assert!(!found.contains(&sent), "{row:?}: {seen:?}"),
        Fate::Passes => assert_eq!(found, [sent], "{row:?}: {seen:?}"),
        // It is the true one that is said again.
        Fate::Set if name == "content-length" => assert_eq!(found, [sent], "{row:?}: {seen:?}"),
        Fate::Set => assert!(found.len() == 1 && found != [sent], "{row:?}: {seen:?}"),
    }
    assert!(of("x-named").is_empty(), "{row:?}: {seen:?}");
}

/// What the origin was told, as it echoes it.
fn received(answer: &str) -> Vec<(String, String)> {
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    let page: Value = serde_json::from_str(page).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let lines = page["headers"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    lines.iter().map(|line| (text(&line[0]), text(&line[1]))).collect()
}

async fn ask(product: &Product, request: String) -> String {
    let answer = product.visitor(Speaks::Http1).raw(request.as_bytes()).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_visitors_send_becomes_what_the_page_says() {
    let origin = Origin::start();
    let host = HostDocument::new().over(super::PROTOCOL).otherwise(&origin.service());
    // What is set where an edge knows places has to be known.
    let place = "[[geography.network]]\naddresses = [\"127.0.0.0/8\"]\ncountry = \"DE\"\n";
    let edge = EdgeDocument { more: place.to_owned(), ..EdgeDocument::new(&["west"], 1) };
    let product = Product::start(edge, host).await;
    let table = table();
    for row in &table {
        let host = if row.name == "Host" { String::new() } else { format!("Host: {HOST}\r\n") };
        let (name, value, rest) = (&row.name, value(&row.name), rest(&row.name));
        let answer = ask(&product, format!("POST /echo HTTP/1.1\r\n{host}{name}: {value}\r\n{rest}")).await;
        // Asked before the body, the edge has answered before it.
        let answer = answer.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
        judge(row, row.in_request, &received(answer));
    }
    let bare = format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    for (name, _) in received(&ask(&product, bare).await) {
        let is_told = |row: &Row| row.name.eq_ignore_ascii_case(&name) && row.in_request == Fate::Set;
        let is_tag = name == "cf-warp-tag-id";
        assert!(table.iter().any(is_told) || is_tag || name == "host", "no row says that {name} is set");
    }
}

#[tokio::test]
async fn what_services_answer_becomes_what_the_page_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    let host = HostDocument::new().over(super::PROTOCOL).otherwise(&service);
    let product = Product::start(EdgeDocument::new(&["west"], 1), host).await;
    let lines = async |path: String| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let answer = ask(&product, request).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("ok"), "{path}: {answer}");
        let head = answer.split("\r\n\r\n").next().unwrap().lines().skip(1);
        let lines = head.map(|line| line.split_once(": ").unwrap());
        lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect::<Vec<_>>()
    };
    let table = table();
    for (place, row) in table.iter().enumerate() {
        judge(row, row.in_answer, &lines(format!("/{place}")).await);
    }
    for (name, _) in lines("/bare".to_owned()).await {
        let is_told = |row: &Row| row.name.eq_ignore_ascii_case(&name) && row.in_answer == Fate::Set;
        let is_own = ["connection", "content-length", "date"].contains(&name.as_str());
        assert!(table.iter().any(is_told) || is_own, "no row says that {name} is set");
    }
}

/// One request for the place of a row gets an answer with its header.
async fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
            return;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let place = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').parse::<usize>();
    let answer = match place {
        Ok(place) => {
            let name = &table()[place].name;
            format!("HTTP/1.1 200 OK\r\n{name}: {}\r\n{}", value(name), rest(name))
        }
        Err(_) => format!("HTTP/1.1 200 OK\r\n{}", rest("")),
    };
    let _ = stream.write_all(answer.as_bytes()).await;
}
