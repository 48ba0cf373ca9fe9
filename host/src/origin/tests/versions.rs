//! Origins over either version of HTTP: which one is spoken, under which name, and how bodies end.

use super::*;

#[test]
fn trailers_and_the_word_that_they_are_welcome_cross_http2_in_both_directions() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        serve(listener, server::Builder::new(), |_, request, mut respond| async move {
            assert_eq!(request.headers()["te"], "trailers");
            let mut body = request.into_body();
            while body.data().await.is_some() {}
            let sent = body.trailers().await.unwrap().unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"data"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", sent["x-end"].clone());
            for forbidden in ["content-length", "adit-not-here"] {
                trailers.insert(forbidden, HeaderValue::from_static("1"));
            }
            stream.send_trailers(trailers).unwrap();
        });
        let mut head = head("POST", "/");
        head.headers.insert("te", HeaderValue::from_static("trailers"));
        let origin = over_http2(address);
        let response = origin.send(&Pool::default(), head, body(&["x"], Some("7"))).await.unwrap();
        let (body, trailers) = text(response).await;
        let trailers = trailers.unwrap();
        assert_eq!(
            (body.as_str(), trailers.len(), &trailers["grpc-status"]),
            ("data", 1, &HeaderValue::from_static("7"))
        );
    });
}

#[test]
fn trailers_cross_http1_in_both_directions_when_they_are_announced() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"x-end: 7\r\n\r\n") {
                assert_ne!(
                    stream.read_buf(&mut request).await.unwrap(),
                    0,
                    "{}",
                    String::from_utf8_lossy(&request)
                );
            }
            let request = String::from_utf8(request).unwrap();
            assert!(
                request.contains("te: trailers\r\n") && request.contains("connection: te\r\n"),
                "{request}"
            );
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\ndata\r\n0\r\nx-sum: 9\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            // The connection is kept: it is the client's to close.
            assert_eq!(stream.read_buf(&mut Vec::new()).await.unwrap(), 0);
        };
        let asked = async {
            let (origin, pool) = (origin(&format!("http://{address}"), ""), Pool::default());
            let mut head = head("POST", "/");
            head.headers.insert("te", HeaderValue::from_static("trailers"));
            head.headers.insert("trailer", HeaderValue::from_static("x-end"));
            let response = origin.send(&pool, head, body(&["x"], Some("7"))).await.unwrap();
            let (body, trailers) = text(response).await;
            assert_eq!(
                (body.as_str(), &trailers.unwrap()["x-sum"]),
                ("data", &HeaderValue::from_static("9"))
            );
        };
        tokio::join!(served, asked);
    });
}

#[test]
fn an_origin_that_is_not_there_gets_one_connection_for_all_that_wait() {
    on_a_shard(async {
        let gone = listen().await.1;
        let (origin, pool) = (over_http2(gone), Pool::default());
        let errors = join_all((0..8).map(|_| origin.send(&pool, head("GET", "/"), empty()))).await;
        for error in errors {
            let error = error.err().unwrap();
            assert!(matches!(error, OriginError::Connect { .. }) && error.is_unsent(), "{error}");
        }
    });
}

#[test]
fn an_origin_over_tls_must_agree_to_http2() {
    on_a_shard(async {
        for protocols in [vec![b"h2".to_vec()], vec![]] {
            let (listener, address) = listen().await;
            let agrees = !protocols.is_empty();
            let tls = frames::tls(protocols);
            let served = async {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await.unwrap();
                if agrees {
                    let mut connection = server::handshake(stream).await.unwrap();
                    let (request, respond) = connection.accept().await.unwrap().unwrap();
                    assert_eq!(request.uri().scheme_str(), Some("https"));
                    answer(respond, "over TLS");
                    while connection.accept().await.is_some() {}
                }
            };
            let asked = async {
                let origin = origin(&format!("https://{address}"), "http2 = true\ntls-verify = false");
                origin.send(&Pool::default(), head("GET", "/"), empty()).await
            };
            let asked = async {
                match asked.await {
                    Ok(response) => text(response).await.0,
                    Err(error) => {
                        assert!(error.is_unsent());
                        error.to_string()
                    }
                }
            };
            let ((), outcome) = tokio::join!(served, asked);
            assert!(outcome.contains(if agrees { "over TLS" } else { "does not speak HTTP/2" }), "{outcome}");
        }
    });
}

#[test]
fn only_what_failed_before_there_was_a_connection_is_not_here() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let served = async {
            let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            // The request is there, and the origin dies at it.
            stream.read_buf(&mut Vec::new()).await.unwrap();
        };
        let origin = origin(&format!("http://{address}"), "");
        let pool = Pool::default();
        let ((), answer) = tokio::join!(served, origin.send(&pool, head("GET", "/"), empty()));
        assert!(!answer.err().unwrap().is_unsent());
        drop(listener);
        assert!(origin.send(&pool, head("GET", "/"), empty()).await.err().unwrap().is_unsent());
    });
}

/// Serves TLS for as many connections as are asked for: HTTP/2 where it was agreed on, else the head of a
/// request over HTTP/1.1. Says of each which it was, and under which name.
fn serve_tls(listener: TcpListener, protocols: Vec<Vec<u8>>, told: mpsc::UnboundedSender<(bool, String)>) {
    let tls = tokio_rustls::TlsAcceptor::from(frames::tls(protocols));
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, told) = (tls.clone(), told.clone());
            tokio::task::spawn_local(async move {
                let mut stream = tls.accept(stream).await.unwrap();
                let name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                told.send((is_http2, name)).unwrap();
                if is_http2 {
                    let mut connection = server::handshake(stream).await.unwrap();
                    while let Some(Ok((_, respond))) = connection.accept().await {
                        answer(respond, "2");
                    }
                    return;
                }
                let mut request = Vec::new();
                while let Ok(1..) = stream.read_buf(&mut request).await {
                    if request.ends_with(b"\r\n\r\n") {
                        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1";
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        request.clear();
                    }
                }
            });
        }
    });
}

#[test]
fn http2_if_offered_is_spoken_where_it_is_and_elsewhere_the_question_is_asked_once() {
    on_a_shard(async {
        for (protocols, version) in [
            (vec![b"h2".to_vec(), b"http/1.1".to_vec()], "2"),
            (vec![b"http/1.1".to_vec()], "1"),
            (vec![], "1"),
        ] {
            let (listener, address) = listen().await;
            let (told, mut connections) = mpsc::unbounded_channel();
            serve_tls(listener, protocols, told);
            let keys = "http2 = \"if-offered\"\ntls-verify = false";
            let (origin, pool) = (origin(&format!("https://{address}"), keys), Pool::default());
            origin.probe().await.unwrap();
            assert!(!connections.recv().await.unwrap().0);
            for _ in 0..3 {
                let response = origin.send(&pool, head("GET", "/"), empty()).await.unwrap();
                assert_eq!(text(response).await.0, version);
            }
            let mut agreed = Vec::new();
            while let Ok((is_http2, _)) = connections.try_recv() {
                agreed.push(is_http2);
            }
            // One to find out, and where HTTP/2 was not agreed on, one that serves.
            assert_eq!(agreed, if version == "2" { vec![true] } else { vec![false, false] });
        }
    });
}

#[test]
fn http2_if_offered_does_not_ask_for_it_where_nothing_can_be_offered() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let origin = origin(&format!("http://{address}"), "http2 = \"if-offered\"");
        let pool = Pool::default();
        let ((), answer) = tokio::join!(served, origin.send(&pool, head("GET", "/"), empty()));
        assert_eq!(answer.unwrap().status(), 204);
    });
}

#[test]
fn a_service_named_by_the_host_of_each_request_gets_no_connection_of_another_name() {
    on_a_shard(async {
        for http2 in ["false", "true", "\"if-offered\""] {
            let (listener, address) = listen().await;
            let (told, mut connections) = mpsc::unbounded_channel();
            serve_tls(listener, vec![b"h2".to_vec()], told);
            let keys = format!("http2 = {http2}\nserver-name-from-host = true\ntls-verify = false");
            let (origin, pool) = (origin(&format!("https://{address}"), &keys), Pool::default());
            for host in
                ["a.example.com", "B.example.com:8443", "a.example.com", "[::1]", "b.example.com", "@"]
            {
                let mut head = head("GET", "/");
                head.headers.insert("host", HeaderValue::from_static(host));
                text(origin.send(&pool, head, empty()).await.unwrap()).await;
            }
            let mut names = Vec::new();
            while let Ok((_, name)) = connections.try_recv() {
                names.push(name);
            }
            // An address is not sent as a name; what is neither gets the service's own, an address here.
            assert_eq!(names, ["a.example.com", "b.example.com", "", ""], "{http2}");
        }
    });
}

#[test]
fn a_service_that_takes_no_chunks_is_told_how_long_a_body_is() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let (told, mut requests) = mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let told = told.clone();
                tokio::task::spawn_local(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"end") {
                        if stream.read_buf(&mut request).await.unwrap() == 0 {
                            return;
                        }
                    }
                    told.send(String::from_utf8(request).unwrap()).unwrap();
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
                });
            }
        });
        let (origin, pool) = (origin(&format!("http://{address}"), "chunked = false"), Pool::default());
        for pieces in [&["end"][..], &["one, ", "two, ", "end"]] {
            let length = pieces.concat().len();
            origin.send(&pool, head("POST", "/"), body(pieces, Some("7"))).await.unwrap();
            let request = requests.recv().await.unwrap();
            assert!(request.contains(&format!("content-length: {length}\r\n")), "{request}");
            assert!(
                !request.contains("transfer-encoding") && request.ends_with(&pieces.concat()),
                "{request}"
            );
        }
        // What has a length passes through as it comes.
        let (sender, streamed) = open_body();
        let mut known = head("POST", "/");
        known.headers.insert("content-length", HeaderValue::from_static("3"));
        let sent = async {
            sender.send(Bytes::from_static(b"end")).await.unwrap();
            drop(sender);
        };
        let (answer, ()) = tokio::join!(origin.send(&pool, known, streamed), sent);
        assert_eq!(answer.unwrap().status(), 204);
        requests.recv().await.unwrap();
        // And what is too long to be kept is refused, whatever another host has.
        let piece: &'static str = Box::leak("x".repeat(700_000).into_boxed_str());
        let refused = origin.send(&pool, head("POST", "/"), body(&[piece, piece], None)).await.err().unwrap();
        assert!(refused.wants_length() && !refused.is_unsent(), "{refused}");
        assert!(requests.is_empty());
    });
}

#[test]
fn a_connection_that_was_made_ahead_is_the_one_that_a_request_goes_on_and_none_is_lost_if_none_goes() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let accepted = Rc::new(Cell::new(0));
        let count = accepted.clone();
        tokio::task::spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.set(count.get() + 1);
                tokio::task::spawn_local(async move {
                    let mut buffer = [0; 1024];
                    // Each request comes in one piece: its head and a short body.
                    while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    }
                });
            }
        });
        let (origin, pool) = (origin(&format!("http://{address}"), ""), Pool::default());
        let host = HeaderValue::from_static("app.example.com");
        for _ in 0..5 {
            drop(origin.reach(&pool, Some(&host)).await.unwrap());
        }
        let reached = origin.reach(&pool, Some(&host)).await.unwrap();
        assert_eq!(accepted.get(), 1, "what is not needed is there for the next");
        let sent = origin.send_on(reached, &pool, head("GET", "/"), empty()).await.unwrap();
        assert_eq!(text(sent).await.0, "ok");
        let next = origin.send(&pool, head("GET", "/"), empty()).await.unwrap();
        assert_eq!((text(next).await.0.as_str(), accepted.get()), ("ok", 1));
    });
}

#[test]
fn an_origin_that_is_not_there_cannot_be_reached_ahead() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        drop(listener);
        for keys in ["", "http2 = true"] {
            let reached = origin(&format!("http://{address}"), keys).reach(&Pool::default(), None).await;
            let refused = reached.err().expect("there is nobody");
            assert!(refused.is_unsent(), "{keys}: {refused}");
        }
    });
}
