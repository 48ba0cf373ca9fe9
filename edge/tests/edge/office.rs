//! An edge with a control API, and a caller of it, for the tests that need both.

use std::sync::Arc;

use adit_edge::{Provisioning, TokenRequest};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{AnyBody, Fixture, empty, full, http1, read, start_told};

pub(crate) const API: &str =
    "[api]\nlisten = \"127.0.0.1:0\"\ntunnel-domain = \"tunnels.test\"\nquick-domain = \"try.test\"\n";

const BEHIND_PROXY: &str = "trusted-proxies = [\"127.0.0.1\"]";

/// An edge with the control API, an account with two zones, and a token for all of it.
pub(crate) struct Office {
    pub(crate) edge: Fixture,
    pub(crate) ledger: Provisioning,
    pub(crate) account: String,
    pub(crate) zone: String,
    pub(crate) token: String,
}

/// What the API answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) json: Value,
}

impl Office {
    pub(crate) async fn open() -> Self {
        Self::open_in(Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// The same with more keys of `[api]`.
    pub(crate) async fn open_with(keys: &str) -> Self {
        Self::open_told(Arc::new(tempfile::tempdir().unwrap()), keys).await
    }

    pub(crate) async fn open_in(folder: Arc<TempDir>) -> Self {
        Self::open_told(folder, "").await
    }

    /// The same behind a proxy that says who asks, with more in its document.
    pub(crate) async fn open_behind_proxy(more: &str) -> Self {
        Self::open_as(Arc::new(tempfile::tempdir().unwrap()), BEHIND_PROXY, more).await
    }

    /// The same in a folder where something is already.
    pub(crate) async fn open_in_with(folder: Arc<TempDir>, keys: &str) -> Self {
        Self::open_told(folder, keys).await
    }

    async fn open_told(folder: Arc<TempDir>, more: &str) -> Self {
        Self::open_as(folder, "", more).await
    }

    async fn open_as(folder: Arc<TempDir>, visitors: &str, more: &str) -> Self {
        let zones = ["example.com".to_owned(), "deep.example.com".to_owned()];
        let (ledger, founding) =
            Provisioning::found(&folder.path().join("edge-data"), "main", &zones).await.unwrap();
        let (_, token) = ledger.create_token(TokenRequest::default()).await.unwrap();
        Self {
            edge: start_told(folder, visitors, &format!("{API}{more}")),
            ledger,
            account: founding.account,
            zone: founding.zones[0].1.clone(),
            token: token.as_str().to_owned(),
        }
    }

    /// A token beside the first one.
    pub(crate) async fn token(&self, wish: TokenRequest) -> String {
        self.ledger.create_token(wish).await.unwrap().1.as_str().to_owned()
    }

    /// Starts a new edge over the same state, after the one before has ended.
    pub(crate) fn reopen(&mut self) {
        self.edge = start_told(self.edge.folder.clone(), "", API);
    }

    /// The same with more keys of `[api]`.
    pub(crate) fn reopen_with(&mut self, keys: &str) {
        self.edge = start_told(self.edge.folder.clone(), "", &format!("{API}{keys}"));
    }

    /// Ends the edge and starts a new one over the same state, whose requests wait for hosts to come back.
    pub(crate) async fn restart_holding(&mut self) {
        self.edge.stop.cancel();
        let _ = (&mut self.edge.running).await;
        self.edge = start_told(self.edge.folder.clone(), "hold = \"30s\"", API);
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.ask_as(&self.token, method, path, body).await
    }

    pub(crate) async fn ask_as(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Reply {
        let request = Request::builder().method(method).uri(path).header("host", "api");
        let request = request.header("authorization", format!("Bearer {token}"));
        let body = body.map_or_else(empty, |body| full(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    pub(crate) async fn send(&self, request: Request<AnyBody>) -> Reply {
        let page = read(http1(self.edge.api.unwrap(), request).await).await;
        assert_eq!(
            page.headers["content-type"], "application/json",
            "exactly, or the reference reads nothing"
        );
        Reply { status: page.status, json: serde_json::from_str(&page.text).unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, None).await.result()
    }

    pub(crate) fn tunnels(&self) -> String {
        format!("/accounts/{}/cfd_tunnel", self.account)
    }

    pub(crate) fn tunnel(&self, id: &str) -> String {
        format!("{}/{id}", self.tunnels())
    }

    pub(crate) async fn create(&self, name: &str) -> Value {
        self.ask(Method::POST, &self.tunnels(), Some(json!({ "name": name }))).await.result()
    }

    pub(crate) async fn route(&self, tunnel: &str, hostname: &str, overwrite: bool) -> Reply {
        let body = json!({ "type": "dns", "user_hostname": hostname, "overwrite_existing": overwrite });
        self.ask(Method::PUT, &format!("/zones/{}/tunnels/{tunnel}/routes", self.zone), Some(body)).await
    }

    pub(crate) async fn visit(&self, host: &str) -> StatusCode {
        let request = Request::get("/").header("host", host).body(empty()).unwrap();
        self.edge.page(request).await.status
    }
}

impl Reply {
    pub(crate) fn result(self) -> Value {
        assert_eq!((self.status, &self.json["success"]), (StatusCode::OK, &json!(true)), "{}", self.json);
        assert_eq!(self.json["messages"], json!([]), "the reference reads strings here");
        self.json["result"].clone()
    }

    pub(crate) fn refused(&self, status: u16, reason: &str) {
        assert_eq!((self.status.as_u16(), &self.json["success"]), (status, &json!(false)), "{}", self.json);
        let message = self.json["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{message}");
    }
}
