//! What runs: routes, origins and plugins, built completely before it serves and never changed
//! afterwards. Does not know where its plan came from or who is connected.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::config::plan::{Plan, PluginPlan};
use crate::origin::Origin;
use crate::plugin::{Chain, Engine, LARGEST_COMPONENT, Plugin};
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
    plugin: Arc<Plugin>,
}

/// A rule as it runs.
#[derive(Debug)]
pub struct Rule {
    pub name: String,
    pub chain: Chain,
    pub origin: Origin,
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
            let known = previous.into_iter().flat_map(|previous| &previous.plugins).chain(&plugins);
            let compiled: Vec<&Loaded> = known.filter(|loaded| loaded.digest == digest).collect();
            let plugin = match (compiled.iter().find(|loaded| loaded.plan == *wanted), compiled.first()) {
                (Some(same), _) => same.plugin.clone(),
                (None, Some(other)) => Arc::new(other.plugin.load_again(wanted).await.with_context(about)?),
                (None, None) => {
                    Arc::new(Plugin::load(engine, wanted, &wasm, shards).await.with_context(about)?)
                }
            };
            plugins.push(Loaded { plan: wanted.clone(), digest, plugin });
        }
        let mut rules = Vec::with_capacity(plan.rules.len());
        for rule in &plan.rules {
            let origin = Origin::new(&rule.service, &rule.origin)
                .with_context(|| format!("ingress rule {}", rule.name))?;
            let chain = Chain::new(rule.plugins.iter().map(|&index| plugins[index].plugin.clone()).collect());
            rules.push(Rule { name: rule.name.clone(), chain, origin });
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

fn read_component(path: &Path) -> anyhow::Result<Vec<u8>> {
    let limit = u64::try_from(LARGEST_COMPONENT)?;
    let mut wasm = Vec::new();
    File::open(path)
        // One byte more than the limit, so that the plugin module sees that there is more.
        .and_then(|file| file.take(limit + 1).read_to_end(&mut wasm))
        .context("the component cannot be read")?;
    Ok(wasm)
}
