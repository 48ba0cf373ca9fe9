use std::future::poll_fn;
use std::time::Duration;

use http::{Request, Response};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use super::*;
use crate::frames::PREFACE;

type Server = h2::server::Connection<Gathering<DuplexStream>, Bytes>;

/// Both ends; the library ends the connection of the server for far fewer small frames than come.
async fn connected() -> (h2::client::SendRequest<Bytes>, Server, Bodies) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let bodies = Bodies::default();
    let server = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .data_frame_budget(2 * 256 * MANY)
        .handshake(Gathering::new(theirs, bodies.clone(), true));
    let (client, server) = tokio::join!(h2::client::handshake(ours), server);
    let (requests, connection) = client.unwrap();
    tokio::spawn(connection);
    (requests, server.unwrap(), bodies)
}

fn request() -> Request<()> {
    Request::post("https://demo.example/").body(()).unwrap()
}

async fn data(body: &Body) -> Option<Result<Bytes, h2::Error>> {
    poll_fn(|cx| body.poll_data(cx)).await
}

#[tokio::test]
async fn small_frames_that_nobody_reads_end_no_connection_and_cost_their_bytes() {
    let (mut requests, mut server, bodies) = connected().await;
    let (_answer, mut stalled) = requests.send_request(request(), false).unwrap();
    let (head, _respond) = server.accept().await.unwrap().unwrap();
    let body = bodies.watch(head.into_body());
    let frames = 10 * MANY;
    let sending = async {
        for number in 0..frames {
            let byte = Bytes::copy_from_slice(&(number as u8).to_be_bytes());
            stalled.reserve_capacity(1);
            stalled.send_data(byte, false).unwrap();
            if number % 1024 == 0 {
                tokio::task::yield_now().await;
            }
        }
        stalled.send_data(Bytes::from(vec![7; 2 * SMALL]), false).unwrap();
        stalled.send_data(Bytes::from_static(b"end"), true).unwrap();
        // Another one is served behind it.
        let (answer, _) = requests.send_request(request(), true).unwrap();
        answer.await.unwrap().status().as_u16()
    };
    let serving = async {
        let (_, mut respond) = server.accept().await.expect("the connection goes on").unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        poll_fn(|cx| server.poll_closed(cx)).await
    };
    tokio::pin!(serving);
    let status = tokio::select! {
        status = timeout(Duration::from_secs(30), sending) => status.unwrap(),
        ended = &mut serving => panic!("{ended:?}"),
    };
    assert_eq!(status, 200);
    let pieces = lock(&body.held).pieces.len();
    assert!(pieces <= frames / PIECE + 2, "{pieces}");
    assert!(!body.is_end_stream());
    let reading = async {
        let mut all = Vec::new();
        while let Some(data) = data(&body).await {
            all.extend_from_slice(&data.unwrap());
        }
        all
    };
    let all = tokio::select! { all = reading => all, ended = &mut serving => panic!("{ended:?}") };
    let wanted = (0..frames).map(|number| number as u8);
    let wanted: Vec<u8> = wanted.chain([7; 2 * SMALL]).chain(*b"end").collect();
    assert!(all == wanted, "in their order, all of them");
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn who_waits_is_woken_after_others_were_gathered_and_hears_of_a_reset_behind_the_data() {
    let (mut requests, mut server, bodies) = connected().await;
    let (_answer, mut sending) = requests.send_request(request(), false).unwrap();
    let (head, _respond) = server.accept().await.unwrap().unwrap();
    let body = bodies.watch(head.into_body());
    tokio::spawn(async move { poll_fn(|cx| server.poll_closed(cx)).await });
    let reader = tokio::spawn(async move {
        let first = data(&body).await.unwrap().unwrap();
        (first, body)
    });
    while lock(&lock(&bodies.list).held[0].upgrade().unwrap()).reader.is_none() {
        tokio::task::yield_now().await;
    }
    bodies.gather();
    sending.send_data(Bytes::from_static(b"first"), false).unwrap();
    let (first, body) = timeout(Duration::from_secs(10), reader).await.unwrap().unwrap();
    assert_eq!(first, "first");
    sending.send_data(Bytes::from_static(b"second"), false).unwrap();
    while lock(&body.held).small.is_empty() {
        tokio::task::yield_now().await;
        bodies.gather();
    }
    sending.send_reset(h2::Reason::CANCEL);
    while lock(&body.held).failed.is_none() {
        tokio::task::yield_now().await;
        bodies.gather();
    }
    assert_eq!(data(&body).await.unwrap().unwrap(), "second");
    let error = data(&body).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
}

#[tokio::test]
async fn what_is_gathered_is_unread_for_the_peer() {
    let (mut requests, mut server, bodies) = connected().await;
    let (_answer, mut sending) = requests.send_request(request(), false).unwrap();
    let (head, _respond) = server.accept().await.unwrap().unwrap();
    let body = bodies.watch(head.into_body());
    tokio::spawn(async move { poll_fn(|cx| server.poll_closed(cx)).await });
    // All that the window lets pass.
    let (mut sent, all) = (0, 1 << 20);
    while sent < all {
        sending.reserve_capacity(all - sent);
        if sending.capacity() == 0 {
            poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap();
        }
        let part = sending.capacity().min(all - sent);
        sending.send_data(Bytes::from(vec![0; part]), false).unwrap();
        sent += part;
    }
    sending.reserve_capacity(1);
    let mut gathered = 0;
    while gathered < all {
        bodies.gather();
        gathered = lock(&body.held).pieces.iter().map(Bytes::len).sum();
        tokio::task::yield_now().await;
    }
    assert_eq!(sending.capacity(), 0);
    let mut read = 0;
    while read < all {
        read += data(&body).await.unwrap().unwrap().len();
    }
    timeout(Duration::from_secs(10), poll_fn(|cx| sending.poll_capacity(cx)))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    drop((body, sending));
    let (_answer, _other) = requests.send_request(request(), true).unwrap();
}

#[tokio::test]
async fn a_connection_ends_once_its_reader_has_heard_of_too_many_small_frames_and_gives_way_before() {
    let (mut theirs, ours) = tokio::io::duplex(1 << 20);
    let frames = [&[0; PREFACE][..], &b"\0\0\x01\0\0\0\0\0\x01x".repeat(3 * MANY)].concat();
    theirs.write_all(&frames).await.unwrap();
    let mut heard = 0;
    let mut counted = Counting::new(ours, |came| {
        heard += came;
        heard <= 2 * MANY
    });
    let (mut pauses, mut buffer) = (0, [0; 4096]);
    let ended = poll_fn(|cx| {
        loop {
            let mut into = ReadBuf::new(&mut buffer);
            match Pin::new(&mut counted).poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => {
                    pauses += 1;
                    return Poll::Pending;
                }
            }
        }
    });
    timeout(Duration::from_secs(10), ended).await.unwrap();
    assert!(pauses >= 1);
    assert!(heard > 2 * MANY);
}
