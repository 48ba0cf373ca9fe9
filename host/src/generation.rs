//! What runs: routes, origins and plugins, built completely before it serves and never changed
//! afterwards. Does not know where its plan came from or who is connected.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use crate::config::grants::SecretSource;
use crate::config::plan::{Plan, PluginPlan, Service};
use crate::origin::Origin;
use crate::plugin::{Chain, Engine, LARGEST_COMPONENT, Plugin, Secrets};
use crate::route::Routes;

/// Everything that one request needs, as one unit.
#[derive(Debug)]
pub struct Generation {
    /// Counts up from 1 with every generation that this process built.
    pub number: u64,
    routes: Routes,
    rules: Vec<Rule>,
    plugins: Vec<Loaded>,
}

/// A plugin with what it was made from, so that the next generation can tell whether it needs another.
#[derive(Debug)]
struct Loaded {
    plan: Arc<PluginPlan>,
    digest: [u8; 32],
    secrets: Secrets,
    plugin: Arc<Plugin>,
}

/// A rule as it runs.
#[derive(Debug)]
pub struct Rule {
    pub name: String,
    pub chain: Chain,
    pub backend: Backend,
}

/// Who answers the requests of a rule.
#[derive(Debug)]
pub enum Backend {
    Origin(Origin),
    /// A plugin that is a service.
    Component(Arc<Plugin>),
}

impl Generation {
    /// Compiles and configures the plugins, prepares the origins. Nothing serves until all of it
    /// has succeeded. A component that `previous` runs is not compiled again; a plugin that it runs
    /// with the same configuration and limits is taken over with its instances.
    pub async fn build(
        number: u64,
        plan: &Plan,
        engine: &Engine,
        shards: usize,
        previous: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let mut plugins = Vec::with_capacity(plan.plugins.len());
        for wanted in &plan.plugins {
            let about = || format!("plugin {} ({})", wanted.name, wanted.component.display());
            let wasm = read_component(&wanted.component).with_context(about)?;
            let digest = Sha256::digest(&wasm).into();
            let secrets = read_secrets(wanted).with_context(about)?;
            let known = previous.into_iter().flat_map(|previous| &previous.plugins).chain(&plugins);
            let compiled: Vec<&Loaded> = known.filter(|loaded| loaded.digest == digest).collect();
            let same = |loaded: &&&Loaded| loaded.plan == *wanted && loaded.secrets == secrets;
            let plugin = match (compiled.iter().find(same), compiled.first()) {
                (Some(same), _) => same.plugin.clone(),
                (None, Some(other)) => {
                    Arc::new(other.plugin.load_again(wanted, &secrets).await.with_context(about)?)
                }
                (None, None) => {
                    let loading = Plugin::load(engine, wanted, &wasm, &secrets, shards);
                    Arc::new(loading.await.with_context(about)?)
                }
            };
            plugins.push(Loaded { plan: wanted.clone(), digest, secrets, plugin });
        }
        let mut rules = Vec::with_capacity(plan.rules.len());
        for rule in &plan.rules {
            let about = || format!("ingress rule {}", rule.name);
            let backend = if let Service::Component(index) = rule.service {
                Backend::Component(service(&plugins[index]).with_context(about)?)
            } else {
                Backend::Origin(Origin::new(&rule.service, &rule.origin).with_context(about)?)
            };
            let filters = rule.plugins.iter().map(|&index| filter(&plugins[index]));
            let chain = Chain::new(filters.collect::<anyhow::Result<_>>().with_context(about)?);
            rules.push(Rule { name: rule.name.clone(), chain, backend });
        }
        Ok(Self { number, routes: Routes::new(&plan.rules), rules, plugins })
    }

    /// The first rule that matches. `host` may carry a port.
    pub fn route(&self, host: &str, path: &str) -> Option<&Rule> {
        self.routes.find(host, path).map(|index| &self.rules[index])
    }

    /// In the order of the document.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// For status: every plugin of this generation.
    pub fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        self.plugins.iter().map(|loaded| &*loaded.plugin)
    }
}

/// The plugin as a link of a chain.
fn filter(loaded: &Loaded) -> anyhow::Result<Arc<Plugin>> {
    let name = loaded.plugin.name();
    ensure!(
        loaded.plugin.filters(),
        "plugin {name} is a service and cannot stand in a chain; write service = \"wasm:{name}\""
    );
    Ok(loaded.plugin.clone())
}

/// The plugin as what answers a rule.
fn service(loaded: &Loaded) -> anyhow::Result<Arc<Plugin>> {
    let name = loaded.plugin.name();
    ensure!(
        loaded.plugin.serves(),
        "plugin {name} is a filter and cannot answer a rule; write plugins = [{name:?}]"
    );
    Ok(loaded.plugin.clone())
}

/// The secrets that a plugin is granted, from where they are kept.
fn read_secrets(plan: &PluginPlan) -> anyhow::Result<Secrets> {
    let mut secrets = BTreeMap::new();
    for (name, source) in &plan.grants.secrets {
        let mut value = match source {
            SecretSource::File(path) => {
                let about = || format!("secret {name} ({})", path.display());
                let mut value = Vec::new();
                let file =
                    File::open(path).and_then(|file| file.take(LARGEST_SECRET + 1).read_to_end(&mut value));
                file.with_context(about)?;
                value
            }
            SecretSource::Environment(variable) => match std::env::var_os(variable) {
                Some(value) => value.into_encoded_bytes(),
                None => bail!("secret {name}: the environment has no variable {variable}"),
            },
        };
        ensure!(value.len() as u64 <= LARGEST_SECRET, "secret {name} is over {LARGEST_SECRET} bytes");
        if value.ends_with(b"\n") {
            value.truncate(value.len() - if value.ends_with(b"\r\n") { 2 } else { 1 });
        }
        secrets.insert(name.clone(), value);
    }
    Ok(Secrets(secrets))
}

/// Largest secret, bytes.
const LARGEST_SECRET: u64 = 64 * 1024;

fn read_component(path: &Path) -> anyhow::Result<Vec<u8>> {
    let limit = u64::try_from(LARGEST_COMPONENT)?;
    let mut wasm = Vec::new();
    File::open(path)
        // One byte more than the limit, so that the plugin module sees that there is more.
        .and_then(|file| file.take(limit + 1).read_to_end(&mut wasm))
        .context("the component cannot be read")?;
    Ok(wasm)
}
