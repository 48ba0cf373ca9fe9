//! Origins over HTTP/2: many requests on a connection, and what becomes of them when it ends.

use super::*;

#[test]
fn many_requests_at_once_share_one_connection() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let connections = Rc::new(Cell::new(0));
        let seen = connections.clone();
        serve(listener, server::Builder::new(), move |number, request, respond| {
            seen.set(seen.get().max(number + 1));
            async move {
                assert_eq!(request.uri().to_string(), "http://app.example.com/path?x=1");
                assert!(!request.headers().contains_key("host"));
                let body = whole(request.into_body()).await;
                answer(respond, &body);
            }
        });
        let (origin, pool) = (over_http2(address), Pool::default());
        let answers = join_all((0..64).map(async |_| {
            let response =
                origin.send(&pool, head("POST", "/path?x=1"), body(&["some ", "body"], None)).await.unwrap();
            text(response).await.0
        }));
        assert_eq!(answers.await, vec!["some body"; 64]);
        assert_eq!(connections.get(), 1);
    });
}

#[test]
fn a_further_connection_is_opened_when_the_origin_takes_no_more_on_the_first() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let waiting = Rc::new(RefCell::new(Vec::new()));
        let (told, mut arrived) = mpsc::unbounded_channel();
        let (kept, mut builder) = (waiting.clone(), server::Builder::new());
        builder.max_concurrent_streams(2);
        serve(listener, builder, move |number, request, respond| {
            if request.uri().path() == "/first" {
                answer(respond, "");
            } else {
                kept.borrow_mut().push(respond);
                told.send(number).unwrap();
            }
            async {}
        });
        let (origin, pool) = (Rc::new(over_http2(address)), Pool::default());
        // Until the origin has said how many it takes, its limit is not known.
        text(origin.send(&pool, head("GET", "/first"), empty()).await.unwrap()).await;
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (origin, pool) = (origin.clone(), pool.clone());
            asked.spawn_local(async move {
                text(origin.send(&pool, head("GET", "/"), empty()).await.unwrap()).await.0
            });
        }
        // Four connections of two; the last two requests wait for room.
        let mut by_connection = [0; 4];
        for _ in 0..8 {
            by_connection[arrived.recv().await.unwrap()] += 1;
        }
        assert_eq!(by_connection, [2, 2, 2, 2]);
        waiting.borrow_mut().drain(..).for_each(|respond| answer(respond, "done"));
        arrived.recv().await.unwrap();
        arrived.recv().await.unwrap();
        waiting.borrow_mut().drain(..).for_each(|respond| answer(respond, "done"));
        assert_eq!(asked.join_all().await, vec!["done"; 10]);
    });
}

#[test]
fn a_refused_stream_is_sent_again_with_its_whole_body() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let refusals = Rc::new(Cell::new(0));
        let count = refusals.clone();
        serve(listener, server::Builder::new(), move |_, request, mut respond| {
            let is_refused = count.get() < 2;
            count.set(count.get() + usize::from(is_refused));
            async move {
                let (head, mut body) = request.into_parts();
                assert_eq!(head.method, Method::POST);
                if is_refused {
                    // It was received, and still not looked at.
                    assert_eq!(body.data().await.unwrap().unwrap(), "one");
                    return respond.send_reset(Reason::REFUSED_STREAM);
                }
                answer(respond, &whole(body).await);
            }
        });
        let origin = over_http2(address);
        let response =
            origin.send(&Pool::default(), head("POST", "/"), body(&["one", "two"], None)).await.unwrap();
        assert_eq!((text(response).await.0.as_str(), refusals.get()), ("onetwo", 2));
    });
}

#[test]
fn an_origin_that_always_refuses_is_not_asked_for_ever_and_not_called_absent() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        serve(listener, server::Builder::new(), move |_, _, mut respond| {
            count.set(count.get() + 1);
            respond.send_reset(Reason::REFUSED_STREAM);
            async {}
        });
        let error =
            over_http2(address).send(&Pool::default(), head("GET", "/"), empty()).await.err().unwrap();
        assert!(matches!(error, OriginError::Exchange { .. }) && !error.is_unsent(), "{error}");
        assert_eq!(asked.get(), 4);
    });
}

#[test]
fn what_runs_is_finished_after_goaway_and_what_follows_takes_a_new_connection() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let (go_on, mut may_go_on) = mpsc::channel::<()>(1);
        let (left, has_left) = oneshot::channel();
        let served = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = server::handshake(stream).await.unwrap();
            let (_, respond) = connection.accept().await.unwrap().unwrap();
            let mut pings = connection.ping_pong().unwrap();
            connection.graceful_shutdown();
            tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
            // With the answer to this, the other side has read all that was sent before.
            pings.ping(h2::Ping::opaque()).await.unwrap();
            left.send(()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = server::handshake(stream).await.unwrap();
            let (_, second) = connection.accept().await.unwrap().unwrap();
            answer(second, "second");
            tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
            may_go_on.recv().await.unwrap();
            answer(respond, "first");
        };
        let (origin, pool) = (over_http2(address), Pool::default());
        let first = async { text(origin.send(&pool, head("POST", "/"), empty()).await.unwrap()).await.0 };
        let second = async {
            has_left.await.unwrap();
            let answer = text(origin.send(&pool, head("POST", "/"), empty()).await.unwrap()).await.0;
            go_on.send(()).await.unwrap();
            answer
        };
        let ((), first, second) = tokio::join!(served, first, second);
        assert_eq!((first.as_str(), second.as_str()), ("first", "second"));
    });
}

/// The first connection leaves once a request has arrived; later ones serve.
async fn leaving(listener: TcpListener, last: u32, then_close: bool) -> usize {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = frames::leave(stream, last).await;
    if then_close {
        stream.shutdown().await.unwrap();
    }
    let mut served = 0;
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = server::handshake(stream).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            served += 1;
            tokio::task::spawn_local(async move { answer(respond, &whole(request.into_body()).await) });
        }
    };
    let _ = timeout(Duration::from_millis(300), serve).await;
    served
}

#[test]
fn a_request_behind_the_last_that_a_leaving_origin_works_on_is_sent_again() {
    for method in ["GET", "POST"] {
        on_a_shard(async {
            let (listener, address) = listen().await;
            let (origin, pool) = (over_http2(address), Pool::default());
            let asked = origin.send(&pool, head(method, "/"), body(&["body"], None));
            let asked = async { text(asked.await.unwrap()).await.0 };
            let (served, answer) = tokio::join!(leaving(listener, 0, false), asked);
            assert_eq!((served, answer.as_str()), (1, "body"), "{method}");
        });
    }
}

#[test]
fn a_request_that_a_leaving_origin_may_have_worked_on_is_not_sent_again() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let (origin, pool) = (over_http2(address), Pool::default());
        let asked = origin.send(&pool, head("POST", "/"), empty());
        let (served, answer) = tokio::join!(leaving(listener, 1, true), asked);
        assert_eq!((served, answer.is_err_and(|error| !error.is_unsent())), (0, true));
    });
}

#[test]
fn bytes_go_both_ways_at_once_and_the_origin_learns_that_the_visitor_left() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let (told, mut reset) = mpsc::channel(1);
        serve(listener, server::Builder::new(), move |_, request, mut respond| {
            let told = told.clone();
            async move {
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    stream.send_data(data, false).unwrap();
                }
                let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
                told.send(reason).await.unwrap();
            }
        });
        let (sender, body) = open_body();
        let origin = over_http2(address);
        let mut response = origin.send(&Pool::default(), head("POST", "/"), body).await.unwrap();
        for number in 0..5 {
            // The next piece does not exist before the echo of this one.
            sender.send(Bytes::from(format!("piece {number}"))).await.unwrap();
            let echo = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(echo, format!("piece {number}"));
        }
        drop(response);
        assert_eq!(reset.recv().await, Some(Reason::CANCEL));
        drop(sender);
    });
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let served = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = server::handshake(stream).await.unwrap();
            let (_, respond) = connection.accept().await.unwrap().unwrap();
            answer(respond, "x");
            while connection.accept().await.is_some() {}
        };
        let asked = async {
            let origin = origin(&format!("http://{address}"), "http2 = true\nkeep-alive-timeout = \"0s\"");
            let pool = Pool::default();
            let response = origin.send(&pool, head("GET", "/"), empty()).await.unwrap();
            pool.multiplexed.borrow_mut().retain(|_, connections| connections.sweep());
            assert_eq!(pool.multiplexed.borrow().len(), 1, "it has a request");
            text(response).await;
            pool.multiplexed.borrow_mut().retain(|_, connections| connections.sweep());
            assert_eq!(pool.multiplexed.borrow().len(), 0);
        };
        tokio::join!(served, asked);
    });
}

#[test]
fn an_origin_that_ends_a_connection_without_goodbye_loses_no_request_that_may_be_sent_twice() {
    for method in ["GET", "PUT", "POST"] {
        on_a_shard(async {
            let (listener, address) = listen().await;
            let asked = Rc::new(Cell::new(0));
            let count = asked.clone();
            tokio::task::spawn_local(async move {
                for number in 0.. {
                    let (stream, _) = listener.accept().await.unwrap();
                    let count = count.clone();
                    tokio::task::spawn_local(async move {
                        let mut connection = server::handshake(stream).await.unwrap();
                        while let Some(Ok((request, respond))) = connection.accept().await {
                            let is_second = count.get() % 2 == 1;
                            count.set(count.get() + 1);
                            if number == 0 && is_second {
                                // The connection is dropped as it is.
                                return;
                            }
                            tokio::task::spawn_local(async move {
                                answer(respond, &whole(request.into_body()).await);
                            });
                        }
                    });
                }
            });
            let (origin, pool) = (over_http2(address), Pool::default());
            text(origin.send(&pool, head("GET", "/"), empty()).await.unwrap()).await;
            let answer = origin.send(&pool, head(method, "/"), body(&["body"], None)).await;
            if method == "POST" {
                assert!(!answer.err().unwrap().is_unsent());
                assert_eq!(asked.get(), 2);
            } else {
                assert_eq!(text(answer.unwrap()).await.0, "body", "{method}");
                assert_eq!(asked.get(), 3, "{method}");
            }
        });
    }
}
