//! The plugin as the host sees it: WIT on the outside, [`judge`] and [`Encoder`] inside.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use bindings::exports::wasi::http::handler::Guest as Handler;
use bindings::wasi::http::handler;
use bindings::wasi::http::types::{ErrorCode, Fields, Method, Request, Response};
use bindings::{wit_future, wit_stream};
use wit_bindgen::{FutureReader, StreamReader, StreamResult, StreamWriter};

use crate::encoder::Encoder;
use crate::head::{Asked, OF_THE_PLAIN_BODY, Outcome, judge};
use crate::plan::Plan;

settings::component! {
    Compress: "package adit:shelf; world it { import wasi:http/handler@0.3.0; export wasi:http/handler@0.3.0; export adit:plugin/lifecycle@0.1.0; export adit:plugin/schema@0.1.0; }"
        from ["../wasi3/clocks.wit", "../wasi3/http.wit", "../../wit"],
    headers: [],
    state: Plan = Plan::read,
}

/// How a body ends: with trailers or without, or broken.
type End = Result<Option<Fields>, ErrorCode>;

impl Handler for Compress {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let asked = Asked::read(&request.get_headers().copy_all());
        let is_head = matches!(request.get_method(), Method::Head);
        let response = handler::handle(request).await?;
        let (status, mut headers) = (response.get_status_code(), response.get_headers().copy_all());
        let judged = configured(|plan| match judge(plan, &asked, status, &mut headers) {
            outcome @ Outcome::Compressed(coding) => (outcome, Some(Encoder::new(plan, coding))),
            outcome @ (Outcome::AsItIs | Outcome::Marked) => (outcome, None),
        });
        let (outcome, encoder) = judged.map_err(|fault| internal(fault.message))?;
        if outcome == Outcome::AsItIs {
            return Ok(response);
        }
        let fields = Fields::from_list(&headers).map_err(|error| internal(format!("{error:?}")))?;
        let (body, end) = Response::consume_body(response, wit_future::new(|| Ok(())).1);
        let (body, end) = match encoder {
            _ if is_head => (None, end),
            Some(encoder) => {
                let (body, end) = compressed(body, end, encoder);
                (Some(body), end)
            }
            None => (Some(body), end),
        };
        let (response, _) = Response::new(fields, body, end);
        response.set_status_code(status).map_err(|()| internal("a status that cannot be set".to_owned()))?;
        Ok(response)
    }
}

/// The body as it is written from now on, in step with its reader.
fn compressed(
    body: StreamReader<u8>,
    end: FutureReader<End>,
    encoder: Encoder,
) -> (StreamReader<u8>, FutureReader<End>) {
    let (mut writer, reader) = wit_stream::new();
    // What is not written to its end must not look complete.
    let (ending, ended) = wit_future::new(|| Err(ErrorCode::HttpResponseIncomplete));
    wit_bindgen::spawn_local(async move {
        let end = press(body, end, &mut writer, encoder).await;
        drop(writer);
        // One that has gone wants none.
        let _ = ending.write(end).await;
    });
    (reader, ended)
}

/// Compresses to the end of the body and hands that on.
async fn press(
    mut body: StreamReader<u8>,
    end: FutureReader<End>,
    writer: &mut StreamWriter<u8>,
    mut encoder: Encoder,
) -> End {
    let broken = |error: io::Error| internal(error.to_string());
    let mut buffer = Vec::with_capacity(PIECE);
    loop {
        let (result, mut piece) = {
            let mut reading = pin!(body.read(buffer));
            let at_once = poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await;
            match at_once {
                Poll::Ready(read) => read,
                Poll::Pending => {
                    // Nothing waits here for what may come late, or never.
                    send(writer, encoder.flush().map_err(broken)?).await?;
                    reading.await
                }
            }
        };
        send(writer, encoder.press(&piece).map_err(broken)?).await?;
        if result == StreamResult::Dropped {
            break;
        }
        piece.clear();
        buffer = piece;
    }
    // Before the checksum, which would make a broken body look whole.
    let trailers = end.await?;
    send(writer, encoder.finish().map_err(broken)?).await?;
    Ok(trailers.map(without_digests))
}

async fn send(writer: &mut StreamWriter<u8>, bytes: Vec<u8>) -> Result<(), ErrorCode> {
    if bytes.is_empty() || writer.write_all(bytes).await.is_empty() {
        return Ok(());
    }
    Err(ErrorCode::ConnectionTerminated)
}

fn without_digests(trailers: Fields) -> Fields {
    let trailers = trailers.clone();
    for name in OF_THE_PLAIN_BODY {
        // One that cannot be removed cannot be there.
        let _ = trailers.delete(name);
    }
    trailers
}

fn internal(message: String) -> ErrorCode {
    ErrorCode::InternalError(Some(message))
}

/// Of a body, read at a time: bytes.
const PIECE: usize = 16 * 1024;
