//! `adit tunnel ready`: for health checks that have nothing but this program.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Options, usage};
use crate::Failure;

#[tokio::main(flavor = "current_thread")]
pub(super) async fn ready(options: &Options) -> Result<(), Failure> {
    let Some(address) = &options.edge.metrics else {
        return Err(usage("say where the host's admin API listens: --metrics HOST:PORT or TUNNEL_METRICS"));
    };
    let ask = async {
        let mut stream = TcpStream::connect(address.as_str()).await?;
        let request = format!("GET /ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(LIMIT, ask).await.context("no answer in time").and_then(|answer| answer);
    let answer = answer.with_context(|| format!("asking http://{address}/ready"))?;
    let ready = (|| {
        let status = answer.split(' ').nth(1).unwrap_or_default();
        if status != "200" {
            bail!("not ready: http://{address}/ready said {status}");
        }
        Ok(())
    })();
    Ok(ready?)
}

const LIMIT: Duration = Duration::from_secs(10);
const LONGEST_ANSWER: u64 = 64 << 10;
