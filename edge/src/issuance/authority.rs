//! HTTP towards an authority: each request on a connection of its own, to an address that was judged. Knows what the
//! operator has named; does not know what is ordered.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use adit_net::judge;
use adit_net::outbound::{Client, OutboundError, Target};
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use serde_json::Value;
use tokio::time::timeout;

use super::Terms;

/// What asks the authority.
#[derive(Clone)]
pub(super) struct Authority {
    client: Client,
    /// The host that the operator has named, wherever it is.
    home: String,
}

impl Authority {
    /// # Errors
    /// A certificate that is to be believed is no authority's, or the URL is none.
    pub(super) fn new(terms: &Terms) -> anyhow::Result<Self> {
        let client = if terms.ca.is_empty() {
            Client::new(AT_ONCE)?
        } else {
            Client::believing(AT_ONCE, terms.ca.clone())?
        };
        let home = Target::of(&terms.directory.parse::<Uri>()?)?.host;
        Ok(Self { client, home })
    }

    /// As what the authority is known in CAA records (RFC 8555 9.7.6): nothing if it does not say.
    pub(super) async fn identities(&self, directory: &str) -> Option<Vec<String>> {
        let request = Request::get(directory).body(Full::<Bytes>::default()).ok()?;
        let answer = self.clone().exchange(request).await.ok()?;
        let said = answer.into_body().collect().await.ok()?.to_bytes();
        let said: Value = serde_json::from_slice(&said).ok()?;
        let all = said.pointer("/meta/caaIdentities").and_then(Value::as_array);
        let all = all.into_iter().flatten().filter_map(Value::as_str);
        Some(all.map(str::to_ascii_lowercase).collect())
    }

    async fn exchange<B>(self, request: Request<B>) -> Result<Response<Full<Bytes>>, OutboundError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let target = Target::of(request.uri())?;
        if !target.tls {
            return Err(OutboundError::Denied("an authority is asked over https:// alone".to_owned()));
        }
        let is_home = target.host == self.home;
        let may = move |address: IpAddr| is_home || !judge::is_private(address);
        let exchange = self.client.exchange(&target, request, may, PATIENCE).await?;
        let (parts, body) = exchange.response.into_parts();
        let body = timeout(PATIENCE, Limited::new(body, LARGEST_ANSWER).collect());
        let body = match body.await.map_err(|_| OutboundError::Timeout)? {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(OutboundError::TooLarge),
            Err(error) => return Err(OutboundError::Failed(error.to_string())),
        };
        drop(exchange.connection);
        Ok(Response::from_parts(parts, Full::new(body)))
    }
}

impl HttpClient for Authority {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let exchange = self.clone().exchange(request);
        Box::pin(async move {
            exchange.await.map(BytesResponse::from).map_err(|error| Error::Other(Box::new(error)))
        })
    }
}

/// Requests to the authority.
const AT_ONCE: usize = 16;
/// For a connection, the head of an answer and its body, each.
const PATIENCE: Duration = Duration::from_secs(20);
/// A chain has some kilobytes.
const LARGEST_ANSWER: usize = 256 << 10;
