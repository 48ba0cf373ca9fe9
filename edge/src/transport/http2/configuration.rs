//! The one request over HTTP/2 that is no visitor's: a configuration for the host (wire.md, section 6).

use adit_protocol::headers::serialized::UPGRADE;
use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, StatusCode, Uri};

use super::Link;
use super::stream::Sending;

/// A verdict has a few lines.
const LARGEST_VERDICT: usize = 1 << 20;

impl Link {
    /// Sends a configuration and hands back the verdict, both JSON. May be dropped midway.
    pub(crate) async fn update_configuration(&self, json: Bytes) -> anyhow::Result<Bytes> {
        let channel = self.channel().await?;
        let mut request = Request::new(());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = Uri::from_static("https://h2.cftunnel.com/");
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static("update-configuration"));
        let (response, stream) = self.send(request, false)?;
        let channel = std::sync::Arc::new(channel);
        let mut sending = Sending::new(stream, false, channel);
        sending.load(json);
        sending.flush().await?;
        sending.finish(None);
        let (head, mut body) = response.await?.into_parts();
        if head.status != StatusCode::OK {
            bail!("the host answered {} instead of a verdict", head.status);
        }
        let mut verdict = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data.context("the verdict broke off")?;
            body.flow_control().release_capacity(data.len())?;
            verdict.extend_from_slice(&data);
            if verdict.len() > LARGEST_VERDICT {
                bail!("the verdict is larger than {LARGEST_VERDICT} bytes");
            }
        }
        Ok(verdict.freeze())
    }
}
