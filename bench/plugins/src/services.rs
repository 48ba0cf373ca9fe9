//! Services as the product asks them: the same short answer of one of `wasi:http` 0.2 and of one of 0.3, an instance for
//! each request and, where that is possible, instances that serve again; and the same body that comes back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_engine::{Engine, EngineSettings, Plugin, Secrets};
use adit_rules::grants::Grants;
use adit_rules::plan::{Limits, OnError, PluginPlan};
use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};

use crate::timing::table_row;

const LENGTH: usize = 16 * 1024;
const CALLS: u64 = 1_000;

pub(crate) async fn measure() -> Result<()> {
    let engine = Engine::new(EngineSettings { instances: 100 })?;
    println!("| an exchange with a service of the product | least | median |\n|---|---|---|");
    for (name, guest, reuse) in [
        ("wasi:http 0.2, instances that serve again", "service", true),
        ("wasi:http 0.2, an instance for each", "service", false),
        ("wasi:http 0.3, an instance for each", "service3", false),
    ] {
        let plugin = load(&engine, guest, reuse).await?;
        row(&format!("service: {name}, short"), &plugin, "/", Bytes::new()).await?;
        row(&format!("service: {name}, 16 KiB back"), &plugin, "/echo", vec![b'a'; LENGTH].into()).await?;
    }
    Ok(())
}

async fn row(name: &str, plugin: &Plugin, path: &str, body: Bytes) -> Result<()> {
    table_row(name, CALLS, async || {
        for _ in 0..CALLS {
            let request = Request::post(format!("http://a.example{path}")).header("host", "a.example");
            let request = request.body(Full::new(body.clone()))?;
            let response = plugin.serve(0, "8d2f1c7e9a0b1c2d-TST", true, request).await?;
            ensure!(response.status() == 200, "it answers {}", response.status());
            let answered = response
                .into_body()
                .collect()
                .await
                .map_err(|error| anyhow!("a whole answer: {error}"))?
                .to_bytes();
            ensure!(body.is_empty() || answered == body, "{} bytes came back", answered.len());
        }
        Ok(())
    })
    .await
}

/// A guest of the tests, as `cargo xtask plugins` builds it.
async fn load(engine: &Engine, name: &str, reuse: bool) -> Result<Arc<Plugin>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/plugins/test/{name}.wasm"));
    let wasm = std::fs::read(&path).with_context(|| format!("{}: `cargo xtask plugins`", path.display()))?;
    let plan = PluginPlan {
        name: name.to_owned(),
        component: path,
        config: "{}".to_owned(),
        on_error: OnError::Deny,
        on_away: OnError::Deny,
        limits: Limits { memory: 16 << 20, timeout: None, concurrency: 64 },
        grants: Grants::default(),
        reuse: Some(reuse),
        experimental: true,
        tick: Duration::from_secs(10),
    };
    Ok(Arc::new(Plugin::load(engine, &Arc::new(plan), &wasm, &Secrets::default(), 1).await?))
}
