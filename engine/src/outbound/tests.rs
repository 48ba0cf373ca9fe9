//! Promises of the outbound client, against servers on loopback.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::tests::grants;

/// A server that answers every connection with `answer`, where `PORT` stands for its own port.
async fn server(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback binds");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.replace("PORT", &port.to_string()).as_bytes()).await;
        }
    });
    port
}

/// What `keys`, the TOML of grants, lets through.
fn outbound(keys: &str) -> Outbound {
    Outbound::new(&grants(keys)).expect("the system's roots")
}

async fn get(outbound: &Outbound, url: &str, redirects: u8) -> Result<(u16, Bytes), OutboundError> {
    let request = Request::get(url).body(Bytes::new()).expect("a good URL");
    let answer = outbound.send(request, redirects, Duration::from_secs(5)).await?;
    Ok((answer.status().as_u16(), answer.into_body()))
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_granted_address_is_asked_and_nothing_else() {
    let (port, other) = (server(HELLO).await, server(HELLO).await);
    let outbound = outbound(&format!("http = [\"http://127.0.0.1:{port}\"]"));
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(get(&outbound, &url, 0).await, Ok((200, Bytes::from_static(b"hello"))));
    for denied in [
        format!("http://127.0.0.1:{other}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
    ] {
        let error = get(&outbound, &denied, 0).await.expect_err("not granted");
        assert!(matches!(error, OutboundError::Denied(_)), "{denied}: {error}");
    }
}

#[tokio::test]
async fn a_granted_name_that_leads_into_a_private_network_is_refused_unless_that_is_granted_too() {
    let port = server(HELLO).await;
    let name = format!("http = [\"http://localhost:{port}\"]");
    let url = format!("http://localhost:{port}/");
    let error = get(&outbound(&name), &url, 0).await.expect_err("it is private");
    assert!(matches!(&error, OutboundError::Denied(why) if why.contains("private")), "{error}");
    let named = outbound(&format!("{name}\nprivate-networks = [\"127.0.0.0/8\"]"));
    assert_eq!(get(&named, &url, 0).await, Ok((200, Bytes::from_static(b"hello"))));
}

#[tokio::test]
async fn a_redirect_is_followed_only_to_where_a_request_may_go() {
    let inside =
        server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:PORT/again\r\ncontent-length: 0\r\n\r\n")
            .await;
    let outside =
        server("HTTP/1.1 302 Found\r\nlocation: http://localhost:PORT/\r\ncontent-length: 0\r\n\r\n").await;
    let outbound =
        outbound(&format!("http = [\"http://127.0.0.1:{inside}\", \"http://127.0.0.1:{outside}\"]"));
    let url = format!("http://127.0.0.1:{outside}/");
    assert_eq!(get(&outbound, &url, 0).await.map(|answer| answer.0), Ok(302));
    let error = get(&outbound, &url, 1).await.expect_err("it leads elsewhere");
    assert!(matches!(&error, OutboundError::Denied(why) if why.contains("localhost")), "{error}");
    // One that goes round in circles ends.
    let url = format!("http://127.0.0.1:{inside}/");
    assert_eq!(get(&outbound, &url, 255).await.map(|answer| answer.0), Ok(302));
}

#[tokio::test]
async fn an_answer_over_the_limit_and_one_that_never_comes_are_given_up() {
    let large = server("HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback binds");
    let silent = listener.local_addr().expect("bound").port();
    let outbound = outbound(&format!("http = [\"http://127.0.0.1:{large}\", \"http://127.0.0.1:{silent}\"]"));
    let request = Request::get(format!("http://127.0.0.1:{silent}/")).body(Bytes::new()).expect("a good URL");
    let error = outbound.send(request, 0, Duration::from_millis(20)).await.expect_err("nobody answers");
    assert_eq!(error, OutboundError::Timeout);
    let error = get(&outbound, &format!("http://127.0.0.1:{large}/"), 0).await.expect_err("too large");
    assert!(matches!(error, OutboundError::TooLarge | OutboundError::Failed(_)), "{error}");
}
