//! The filter as the product calls it: a chain of one, with everything around the call.

use std::sync::Arc;
use std::time::Duration;

use adit_engine::{Chain, Engine, EngineSettings, Facts, Plugin, RequestOutcome, Secrets};
use adit_rules::grants::Grants;
use adit_rules::plan::{Limits, OnError, PluginPlan};
use anyhow::{Result, bail};
use http::{Request, request};

use crate::HEADERS;
use crate::timing::table_row;

/// A component of the oldest published version, with a place for its module.
const FRAME: &str = include_str!("../../../tests/guests/published/request-filter-0.1.0.wat");
// The kernel counts in ticks of milliseconds: a round must be many of them.
const CALLS: u64 = 50_000;

pub(crate) async fn measure() -> Result<()> {
    let engine = Engine::new(EngineSettings { instances: 100 })?;
    println!("| a request through the product's chain | least | median |\n|---|---|---|");
    row("no plugin", Chain::default()).await?;
    let cases = [
        ("no-op filter, no header declared", &[][..]),
        ("no-op filter, 2 headers declared", &["accept", "cookie"][..]),
        ("no-op filter, all 15 headers", &["*"][..]),
    ];
    for (name, declared) in cases {
        row(name, Chain::new(vec![noop(&engine, declared).await?])).await?;
    }
    let mut ten = Vec::new();
    for _ in 0..10 {
        ten.push(noop(&engine, &["accept", "cookie"]).await?);
    }
    row("ten no-op filters, 2 headers declared", Chain::new(ten)).await
}

async fn row(name: &str, chain: Chain) -> Result<()> {
    let facts = Facts {
        id: "8d2f1c7e9a0b1c2d-TST",
        client_ip: "192.0.2.17",
        scheme: "https",
        stopwatch: None,
        exchange: None,
    };
    let mut head = head();
    table_row(name, CALLS, async || {
        for _ in 0..CALLS {
            let RequestOutcome::Continue(_) = chain.on_request(0, &facts, &mut head).await else {
                bail!("the filter did not let it go on");
            };
        }
        Ok(())
    })
    .await
}

fn head() -> request::Parts {
    let mut request = Request::new(());
    *request.uri_mut() = http::Uri::from_static("https://app.example.com/account/orders?page=2");
    for (name, value) in HEADERS {
        request.headers_mut().append(name, http::HeaderValue::from_static(value));
    }
    request.into_parts().0
}

/// A filter that declares these headers and lets everything go on.
async fn noop(engine: &Engine, declared: &[&str]) -> Result<Arc<Plugin>> {
    // The list at 3072, each entry an address and a length; the names behind one another at 3200.
    let (mut entries, mut names) = (Vec::new(), String::new());
    for name in declared {
        entries.extend(u32::try_from(3200 + names.len())?.to_le_bytes());
        entries.extend(u32::try_from(name.len())?.to_le_bytes());
        names.push_str(name);
    }
    let escape = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    let mut manifest = vec![0; 16];
    manifest.extend(3072u32.to_le_bytes());
    manifest.extend(u32::try_from(declared.len())?.to_le_bytes());
    manifest.extend([0; 8]);
    let module = format!(
        r#"
        (memory (export "memory") 1)
        (data (i32.const 2048) "{}") (data (i32.const 3072) "{}") (data (i32.const 3200) "{}")
        (global $end (mut i32) (i32.const 8192))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (if (i32.gt_u (global.get $end) (i32.const 32768)) (then (global.set $end (i32.const 8192))))
            (local.set $at (global.get $end))
            (global.set $end
                (i32.and (i32.add (i32.add (global.get $end) (local.get 3)) (i32.const 7)) (i32.const -8)))
            (local.get $at))
        (func (export "adit:plugin/lifecycle@0.1.0#describe") (result i32) (i32.const 2048))
        (func (export "adit:plugin/lifecycle@0.1.0#configure") (param i32 i32) (result i32) (i32.const 1024))
        (func (export "adit:plugin/request-filter@0.1.0#on-request")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (i32.const 1024))"#,
        escape(&manifest),
        escape(&entries),
        escape(names.as_bytes()),
    );
    let wasm = wat::parse_str(FRAME.replacen("MODULE)", &format!("{module})"), 1))?;
    let plan = PluginPlan {
        name: "noop".to_owned(),
        component: "forged".into(),
        config: "{}".to_owned(),
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
