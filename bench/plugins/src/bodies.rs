//! Filters of bodies as the product calls them: what a body of 16 KiB costs through one, whole or as it passes.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adit_engine::{
    BodyFilter, BodyRoom, BodySource, Chain, Engine, EngineSettings, Facts, FilteredBody, Gathered, Plugin,
    RequestOutcome, Secrets,
};
use adit_rules::grants::Grants;
use adit_rules::plan::{Limits, OnError, PluginPlan};
use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use http::{HeaderValue, Request, request};
use http_body::Body;
use http_body_util::{BodyExt, Full};

use crate::HEADERS;
use crate::timing::table_row;

const LENGTH: usize = 16 * 1024;
const CALLS: u64 = 10_000;

pub(crate) async fn measure() -> Result<()> {
    let engine = Engine::new(EngineSettings { instances: 100 })?;
    println!(
        "| a request with a body of 16 KiB through the product's chain | least | median |\n|---|---|---|"
    );
    row("body: no plugin", Chain::default(), "").await?;
    let whole = load(&engine, "bodies", r#"{"most": 65536}"#).await?;
    let streamed = load(&engine, "streams", "{}").await?;
    let of = |plugin: &Arc<Plugin>| Chain::new(vec![plugin.clone()]);
    row("body: whole, left as it is", of(&whole), "look").await?;
    row("body: whole, capitals in its place", of(&whole), "shout").await?;
    row("body: streams, not asked for", of(&streamed), "none").await?;
    row("body: streams, read", of(&streamed), "read").await?;
    row("body: streams, capitals in its place", of(&streamed), "shout").await
}

async fn row(name: &str, chain: Chain, told: &'static str) -> Result<()> {
    let facts = Facts {
        id: "8d2f1c7e9a0b1c2d-TST",
        client_ip: "192.0.2.17",
        scheme: "https",
        stopwatch: None,
        exchange: None,
    };
    let text = Bytes::from(vec![b'a'; LENGTH]);
    let head = head(told);
    table_row(name, CALLS, async || {
        for _ in 0..CALLS {
            let mut head = head.clone();
            let mut body = Whole::new(text.clone());
            let outcome = chain.on_whole_request(0, &facts, &mut head, &mut body).await;
            let RequestOutcome::Continue(_) = outcome else { bail!("the filter did not let it go on") };
            let passed = body.0.collect().await.map_err(|error| anyhow!("{error}"))?.to_bytes();
            ensure!(passed.len() == LENGTH, "{} bytes have passed", passed.len());
        }
        Ok(())
    })
    .await
}

fn head(told: &'static str) -> request::Parts {
    let mut request = Request::new(());
    *request.uri_mut() = http::Uri::from_static("https://app.example.com/account/orders?page=2");
    for (name, value) in HEADERS {
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    request.headers_mut().insert("x-do", HeaderValue::from_static(told));
    request.into_parts().0
}

/// A guest of the tests, as `cargo xtask plugins` builds it.
async fn load(engine: &Engine, name: &str, config: &str) -> Result<Arc<Plugin>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/plugins/test/{name}.wasm"));
    let wasm = std::fs::read(&path).with_context(|| format!("{}: `cargo xtask plugins`", path.display()))?;
    let plan = PluginPlan {
        name: name.to_owned(),
        component: path,
        config: config.to_owned(),
        on_error: OnError::Deny,
        on_away: OnError::Deny,
        limits: Limits { memory: 16 << 20, timeout: None, concurrency: 64 },
        grants: Grants::default(),
        reuse: None,
        experimental: false,
        tick: Duration::from_secs(10),
    };
    Ok(Arc::new(Plugin::load(engine, &Arc::new(plan), &wasm, &Secrets::default(), 1).await?))
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that is there, as one that has just come.
struct Whole(Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>);

impl Whole {
    fn new(body: Bytes) -> Self {
        Self(Box::pin(Full::new(body).map_err(|never| match never {})))
    }
}

impl BodySource for Whole {
    async fn gather(&mut self, most: usize, mut room: BodyRoom) -> Gathered {
        let taken = std::mem::replace(self, Self::new(Bytes::new()));
        let Ok(body) = taken.0.collect().await else { return Gathered::Broken };
        let body = body.to_bytes();
        *self = Self::new(body.clone());
        if body.len() <= most && room.grow(body.len()) { Gathered::Whole(body) } else { Gathered::Beyond }
    }

    fn may_have_one(&self) -> bool {
        true
    }

    fn is_empty(&self) -> bool {
        self.0.is_end_stream()
    }

    fn replace(&mut self, body: Bytes) {
        *self = Self::new(body);
    }

    fn filter(&mut self, filter: BodyFilter) {
        let Self(body) = std::mem::replace(self, Self::new(Bytes::new()));
        self.0 = Box::pin(FilteredBody::new(body, filter));
    }
}
