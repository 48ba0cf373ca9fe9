//! The plugin `compress`: what visitors get of a body that is compressed on its way.

use std::io::{Read, Write};

use e2e::document::{EdgeDocument, HostDocument};
use e2e::grpc::{Grpc, message};
use e2e::origin::Origin;
use e2e::process::component;
use e2e::product::{Lent, Product, Stage};
use e2e::visitor::{Speaks, bare, to, with_body};
use e2e::within;
use flate2::write::GzDecoder;
use http::{Request, Response, response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Lent {
    let build = async || {
        let origin = Origin::start();
        let host = HostDocument::new()
            .plugin("small", &component("compress"), "experimental = true\ntimeout = \"60s\"")
            .rule(&format!("service = {:?}\nplugins = [\"small\"]", origin.service()));
        Stage::new(Product::start(EdgeDocument::new(&["west"], 1), host).await, origin)
    };
    STAGE.get_or_init(build).await.lend()
}

fn page(kind: &str) -> response::Builder {
    Response::builder().header("content-type", kind)
}

fn taking(coding: &str, path: &str) -> Request<e2e::visitor::Body> {
    bare(to("GET", path).header("accept-encoding", coding))
}

fn plain(coding: &str, encoded: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        "br" => brotli_decompressor::Decompressor::new(encoded, 4096).read_to_end(&mut plain).unwrap(),
        _ => flate2::read::GzDecoder::new(encoded).read_to_end(&mut plain).unwrap(),
    };
    plain
}

/// Reads until this much has come out of it.
async fn read(body: &mut Incoming, decoder: &mut GzDecoder<Vec<u8>>, length: usize) {
    while decoder.get_ref().len() < length {
        let frame = within("more of it", body.frame()).await.expect("it goes on").unwrap();
        decoder.write_all(frame.data_ref().unwrap()).unwrap();
        decoder.flush().unwrap();
    }
}

#[tokio::test]
async fn a_page_arrives_compressed_and_its_head_says_so() {
    let stage = stage().await;
    let text: String = (0..20_000).map(|line| format!("<p>line {line}</p>\n")).collect();
    for (speaks, path, takes, coding) in [
        (Speaks::Http1, "/page/1", "br;q=0.5, gzip", "gzip"),
        (Speaks::Http2, "/page/2", "gzip;q=0.9, deflate, br;q=0.9", "br"),
    ] {
        let mut watched = stage.origin.watch(path);
        let directed = async {
            watched.arrived().await;
            let head = page("text/html; charset=utf-8").status(404).header("content-length", text.len());
            let head =
                head.header("accept-ranges", "bytes").header("etag", "\"v1\"").header("x-other", "stays");
            watched.answer(head.body(()).unwrap());
            watched.say(text.clone());
            watched.end();
        };
        let visitor = stage.product.visitor(speaks);
        let (answer, ()) = tokio::join!(visitor.send(taking(takes, path)), directed);
        assert_eq!((answer.status, answer.header("content-encoding")), (404, coding), "{speaks:?}");
        assert_eq!((answer.header("vary"), answer.header("etag")), ("Accept-Encoding", "W/\"v1\""));
        let none = ["content-length", "accept-ranges"].map(|name| answer.header(name));
        assert_eq!((none, answer.header("x-other")), (["", ""], "stays"));
        assert!(answer.body.len() < text.len() / 4, "{} of {}", answer.body.len(), text.len());
        assert!(plain(coding, &answer.body) == text.as_bytes(), "{speaks:?}");
    }
}

#[tokio::test]
async fn an_event_is_read_before_the_next_one_happens() {
    let stage = stage().await;
    let mut watched = stage.origin.watch("/slow");
    let connection = stage.product.visitor(Speaks::Http2).connect().await;
    let directed = async {
        watched.arrived().await;
        watched.answer(page("text/event-stream").body(()).unwrap());
    };
    let (response, ()) = tokio::join!(connection.send(taking("gzip", "/slow")), directed);
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let (mut body, mut decoder, mut said) = (response.into_body(), GzDecoder::new(Vec::new()), String::new());
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        watched.say(event);
        said.push_str(event);
        read(&mut body, &mut decoder, said.len()).await;
        assert_eq!(decoder.get_ref(), said.as_bytes());
    }
    watched.end();
    let rest = within("the end", body.collect()).await.unwrap().to_bytes();
    decoder.write_all(&rest).unwrap();
    assert_eq!(decoder.finish().unwrap(), said.as_bytes());
}

#[tokio::test]
async fn what_must_not_be_compressed_comes_as_it_is() {
    let stage = stage().await;
    let text = "text ".repeat(1000);
    for (number, (coding, head)) in [
        ("gzip", page("text/plain").header("content-encoding", "br")),
        ("gzip", page("text/plain").header("cache-control", "max-age=60, no-transform")),
        ("gzip", page("image/png")),
        ("gzip", page("text/plain").status(206).header("content-range", "bytes 0-4999/9999")),
        ("gzip;q=0, br;q=0, *", page("text/plain")),
        ("zstd", page("text/plain")),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/as-it-is/{number}");
        let mut watched = stage.origin.watch(&path);
        let head = head.header("etag", "\"v1\"").header("content-length", text.len()).body(()).unwrap();
        let coded = head.headers().get("content-encoding").cloned();
        let directed = async {
            watched.arrived().await;
            watched.answer(head);
            watched.say(text.clone());
            watched.end();
        };
        let visitor = stage.product.visitor(Speaks::Http1);
        let (answer, ()) = tokio::join!(visitor.send(taking(coding, &path)), directed);
        assert_eq!(answer.headers.get("content-encoding"), coded.as_ref(), "{number}");
        assert_eq!((answer.header("etag"), answer.header("content-length")), ("\"v1\"", "5000"), "{number}");
        assert_eq!(answer.text(), text, "{number}");
        // Another visitor would have got it compressed.
        let varies = if number < 4 { "" } else { "Accept-Encoding" };
        assert_eq!(answer.header("vary"), varies, "{number}");
    }
    // What HEAD is told is what GET would be, and no body comes.
    let mut watched = stage.origin.watch("/head");
    let directed = async {
        watched.arrived().await;
        watched.answer(page("text/plain").header("content-length", "5000").body(()).unwrap());
        watched.end();
    };
    let request = bare(to("HEAD", "/head").header("accept-encoding", "gzip"));
    let visitor = stage.product.visitor(Speaks::Http1);
    let (answer, ()) = tokio::join!(visitor.send(request), directed);
    let told = (answer.status, answer.header("content-encoding"), answer.header("content-length"));
    assert_eq!((told, answer.body.len()), ((200, "gzip", ""), 0));
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off_for_the_visitor_too() {
    let stage = stage().await;
    for (speaks, path) in [(Speaks::Http1, "/broken/1"), (Speaks::Http2, "/broken/2")] {
        let mut watched = stage.origin.watch(path);
        let connection = stage.product.visitor(speaks).connect().await;
        let directed = async {
            watched.arrived().await;
            watched.answer(page("text/plain").body(()).unwrap());
            watched.say("half");
        };
        let (response, ()) = tokio::join!(connection.send(taking("gzip", path)), directed);
        let (mut body, mut decoder) = (response.into_body(), GzDecoder::new(Vec::new()));
        read(&mut body, &mut decoder, 4).await;
        watched.break_off();
        let mut rest = Vec::new();
        let broken = loop {
            match within("the end", body.frame()).await {
                Some(Ok(frame)) => rest.extend_from_slice(frame.data_ref().unwrap()),
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        assert!(broken, "{speaks:?}: it ended as if it were whole");
        let _ = decoder.write_all(&rest);
        assert!(decoder.finish().is_err(), "{speaks:?}: the checksum came");
    }
}

#[tokio::test]
async fn an_endless_body_takes_no_memory_and_ends_with_its_visitor() {
    const LENGTH: usize = 24 << 20;
    let stage = stage().await;
    let mut watched = stage.origin.watch("/endless");
    let connection = stage.product.visitor(Speaks::Http2).connect().await;
    let directed = async {
        watched.arrived().await;
        watched.answer(page("text/plain").body(()).unwrap());
        watched.flood("all work and no play\n".repeat(3000));
    };
    let (response, ()) = tokio::join!(connection.send(taking("gzip", "/endless")), directed);
    let memory = stage.product.host.process.watch_memory();
    let (mut body, mut decoder) = (response.into_body(), GzDecoder::new(Vec::new()));
    read(&mut body, &mut decoder, LENGTH).await;
    drop(body);
    watched.gone().await;
    assert!(memory.growth() < 16 << 20, "the host grew by {} MiB", memory.growth() >> 20);
}

#[tokio::test]
async fn trailers_come_behind_a_compressed_body() {
    let grpc = Grpc::start();
    let config = "experimental = true\n[plugin.config]\ntypes = [\"application/grpc\"]\nmin-size = 0";
    let host = HostDocument::new()
        .plugin("small", &component("compress"), config)
        .rule(&format!("plugins = [\"small\"]\n{}", grpc.rule()));
    let product = Product::start(EdgeDocument::new(&["west"], 1), host).await;
    let request = to("POST", "/Unary").header("content-type", "application/grpc").header("te", "trailers");
    let request = with_body(request.header("accept-encoding", "gzip"), Full::new(message(b"hello")));
    let connection = product.visitor(Speaks::Http2).connect().await;
    let response = connection.send(request).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let body = within("the answer", response.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
    assert_eq!(plain("gzip", &body.to_bytes()), message(b"hello"));
}
