//! Promises of the plugin host, shown with real components: the plugins that we ship and guests
//! that break on purpose. `cargo xtask plugins` builds them.

mod calls;
mod chain;
mod component;
mod concurrent;
mod forge;
mod hostile;
mod imports;
mod load;
mod served;
mod services;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adit_rules::grants::Grants;
use adit_rules::plan::{Limits, OnError, PluginPlan};
use http::{HeaderMap, Request, Response, request, response};

use crate::{
    Chain, ChainProgress, Compiled, Engine, EngineSettings, Facts, Failure, FailureKind, LoadError, Number,
    Plugin, RequestOutcome, ResponseOutcome, Secrets, Served, ServiceBody, TestHost,
};

/// A guest that does in a request or its response what a header asks for; see `tests/guests`.
const MISBEHAVE: &str = "test/misbehave.wasm";
const REQUEST_ONLY: &str = "test/request_only.wasm";
const HEADERS: &str = "headers.wasm";

const FACTS: Facts<'_> =
    Facts { id: "a1b2", client_ip: "192.0.2.7", scheme: "https", stopwatch: None, exchange: None };

/// One engine for all tests, as a process has one.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(EngineSettings { instances: 100 }).expect("the engine starts"))
}

fn component(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins").join(name);
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask plugins`", path.display()))
}

/// What `keys`, TOML, grants.
pub(crate) fn grants(keys: &str) -> Grants {
    let text = format!(
        "[[plugin]]\nname = \"a\"\ncomponent = \"a\"\n[plugin.grants]\n{keys}\n[[ingress]]\nservice = \"hello_world\"\n"
    );
    let plan = adit_rules::read("host.toml", &text, Path::new("/etc/adit")).expect("good grants");
    plan.plugins[0].grants.clone()
}

fn plan(config: &str) -> PluginPlan {
    PluginPlan {
        name: "tested".to_owned(),
        component: "not read here".into(),
        config: config.to_owned(),
        on_error: OnError::Deny,
        on_away: OnError::Deny,
        // Enough time for a guest that is about to trap, on a busy machine; little memory to eat.
        limits: Limits { memory: 4 << 20, timeout: Some(Duration::from_millis(200)), concurrency: 2 },
        grants: Grants::default(),
        reuse: None,
        experimental: true,
        tick: Duration::from_secs(3600),
    }
}

async fn try_load(component_name: &str, plan: PluginPlan) -> Result<Arc<Plugin>, LoadError> {
    let wasm = component(component_name);
    Plugin::load(engine(), &Arc::new(plan), &wasm, &Secrets::default(), 1).await.map(Arc::new)
}

async fn load(component_name: &str, config: &str) -> Arc<Plugin> {
    try_load(component_name, plan(config)).await.expect("a good plugin")
}

async fn load_with(component_name: &str, plan: PluginPlan) -> Arc<Plugin> {
    try_load(component_name, plan).await.expect("a good plugin")
}

/// A chain of one guest that counts the calls of each of its instances in its response phase.
async fn counting(change: impl FnOnce(&mut PluginPlan)) -> (Chain, Arc<Plugin>) {
    let mut plan = plan(r#"{"on": "response", "do": "count"}"#);
    change(&mut plan);
    let plugin = load_with(MISBEHAVE, plan).await;
    (Chain::new(vec![plugin.clone()]), plugin)
}

fn request(headers: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::get("https://a.example/one?two").header("host", "a.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a good request").into_parts().0
}

fn response() -> response::Parts {
    Response::new(()).into_parts().0
}

async fn ask(chain: &Chain, headers: &[(&str, &str)]) -> RequestOutcome {
    chain.on_request(0, &FACTS, &mut request(headers)).await
}

async fn progress(chain: &Chain, headers: &[(&str, &str)]) -> ChainProgress {
    match ask(chain, headers).await {
        RequestOutcome::Continue(progress) => progress,
        RequestOutcome::Respond(reply, _) => panic!("a reply: {reply:?}"),
        RequestOutcome::Failed(failure) => panic!("{failure}"),
    }
}

/// The headers of the response after both phases have run.
async fn exchange(chain: &Chain, headers: &[(&str, &str)]) -> HeaderMap {
    let progress = progress(chain, headers).await;
    let mut head = response();
    match chain.on_response(progress, 0, &FACTS, &mut head).await {
        ResponseOutcome::Continue => head.headers,
        ResponseOutcome::Respond(reply) => panic!("a reply: {reply:?}"),
        ResponseOutcome::Failed(failure) => panic!("{failure}"),
    }
}

async fn request_failure(chain: &Chain, act: &str) -> FailureKind {
    match ask(chain, &[("x-misbehave", act)]).await {
        RequestOutcome::Failed(failure) => {
            assert_eq!(failure.plugin, "tested");
            failure.kind
        }
        RequestOutcome::Continue(_) | RequestOutcome::Respond(..) => panic!("{act} did no harm"),
    }
}

async fn response_failure(chain: &Chain, act: &str) -> FailureKind {
    let progress = progress(chain, &[("x-misbehave-response", act)]).await;
    match chain.on_response(progress, 0, &FACTS, &mut response()).await {
        ResponseOutcome::Failed(failure) => failure.kind,
        ResponseOutcome::Continue | ResponseOutcome::Respond(_) => panic!("{act} did no harm"),
    }
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("ASCII").to_owned()).collect()
}
