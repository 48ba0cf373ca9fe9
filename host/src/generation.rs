//! What runs: routes, origins and plugins, built completely before it serves and never changed
//! afterwards. Does not know where its plan came from or who is connected.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::config::plan::{OriginPlan, Plan, PluginPlan, Rule as RulePlan, Service};
use crate::origin::Origin;
use crate::plugin::{Chain, Engine, LARGEST_COMPONENT, Plugin};
use crate::report;
use crate::route::Routes;
use crate::tenure::{Tally, Tenure};

/// Everything that one request needs, as one unit.
#[derive(Debug)]
pub struct Generation {
    /// Counts up with every generation that was built; never goes back.
    pub number: u64,
    /// Outlives the generation where an answer of it is still under way.
    pub tenure: Arc<Tenure>,
    /// One line is logged for each request.
    pub access_log: bool,
    /// What the edge is told about it (wire.md, 9.4), JSON.
    pub report: Vec<u8>,
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
    pub origin: Arc<Origin>,
    /// Counts on from the rule of the same name in the last generation.
    pub tally: Arc<Tally>,
    made_from: OriginSource,
}

/// What an origin was made from, so that the next generation can tell whether it needs another.
#[derive(Debug, PartialEq)]
struct OriginSource {
    service: Service,
    plan: OriginPlan,
    /// Of the file that holds its certificate authorities.
    ca: Option<[u8; 32]>,
}

/// Why there is no generation: everything that is wrong, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", reasons.join("\n"))]
pub struct BuildError {
    pub reasons: Vec<String>,
}

impl Generation {
    /// Compiles and configures the plugins, prepares the origins. Nothing serves until all of it
    /// has succeeded. A component that `previous` runs is not compiled again; a plugin that it runs
    /// with the same configuration and limits is taken over with its instances, and so is an origin
    /// that is spoken to in the same way.
    ///
    /// # Errors
    /// Everything that is wrong, not the first of it.
    pub async fn build(
        number: u64,
        plan: &Plan,
        engine: &Engine,
        shards: usize,
        previous: Option<&Self>,
    ) -> Result<Self, BuildError> {
        let mut reasons = Vec::new();
        let mut plugins = Vec::with_capacity(plan.plugins.len());
        for wanted in &plan.plugins {
            match load(wanted, engine, shards, previous, &plugins).await {
                Ok(loaded) => plugins.push(loaded),
                Err(error) => {
                    let (name, component) = (&wanted.name, wanted.component.display());
                    reasons.push(format!("plugin {name} ({component}): {error:#}"));
                }
            }
        }
        let mut origins = Vec::with_capacity(plan.rules.len());
        for rule in &plan.rules {
            match origin(rule, previous) {
                Ok(origin) => origins.push(origin),
                Err(error) => reasons.push(format!("ingress rule {}: {error:#}", rule.name)),
            }
        }
        if !reasons.is_empty() {
            return Err(BuildError { reasons });
        }
        let mut rules: Vec<Rule> = Vec::with_capacity(plan.rules.len());
        for (rule, (origin, made_from)) in plan.rules.iter().zip(origins) {
            let chain = Chain::new(rule.plugins.iter().map(|&index| plugins[index].plugin.clone()).collect());
            let known = previous.into_iter().flat_map(|previous| &previous.rules).chain(&rules);
            let tally = known.map(|known| &known.tally).find(|tally| tally.name == rule.name).cloned();
            let tally = tally.unwrap_or_else(|| Arc::new(Tally::new(&rule.name, shards)));
            rules.push(Rule { name: rule.name.clone(), chain, origin, tally, made_from });
        }
        Ok(Self {
            number,
            tenure: Arc::new(Tenure::new(number, shards)),
            access_log: plan.access_log,
            report: report::of(plan),
            routes: Routes::new(&plan.rules),
            rules,
            plugins,
        })
    }

    /// In the order of the document.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The digest of each plugin's component, by the plugin's name.
    pub fn components(&self) -> impl Iterator<Item = (&Path, [u8; 32])> {
        self.plugins.iter().map(|loaded| (&*loaded.plan.component, loaded.digest))
    }

    /// The first rule that matches. `host` may carry a port.
    pub fn route(&self, host: &str, path: &str) -> Option<&Rule> {
        self.routes.find(host, path).map(|index| &self.rules[index])
    }

    /// For status: every plugin of this generation.
    pub fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        self.plugins.iter().map(|loaded| &*loaded.plugin)
    }
}

/// One plugin, or as much of it as `previous` and those loaded before it have.
async fn load(
    wanted: &Arc<PluginPlan>,
    engine: &Engine,
    shards: usize,
    previous: Option<&Generation>,
    before: &[Loaded],
) -> anyhow::Result<Loaded> {
    let wasm = read_limited(&wanted.component, LARGEST_COMPONENT).context("the component cannot be read")?;
    let digest = Sha256::digest(&wasm).into();
    let known = previous.into_iter().flat_map(|previous| &previous.plugins).chain(before);
    let compiled: Vec<&Loaded> = known.filter(|loaded| loaded.digest == digest).collect();
    let plugin = match (compiled.iter().find(|loaded| loaded.plan == *wanted), compiled.first()) {
        (Some(same), _) => same.plugin.clone(),
        (None, Some(other)) => Arc::new(other.plugin.load_again(wanted).await?),
        (None, None) => Arc::new(Plugin::load(engine, wanted, &wasm, shards, previous.is_some()).await?),
    };
    Ok(Loaded { plan: wanted.clone(), digest, plugin })
}

fn origin(rule: &RulePlan, previous: Option<&Generation>) -> anyhow::Result<(Arc<Origin>, OriginSource)> {
    let ca = match &rule.origin.ca_file {
        Some(file) => {
            let pem = read_limited(file, LARGEST_CA_FILE)
                .with_context(|| format!("the ca-file {} cannot be read", file.display()))?;
            Some(Sha256::digest(&pem).into())
        }
        None => None,
    };
    let made_from = OriginSource { service: rule.service.clone(), plan: rule.origin.clone(), ca };
    let mut known = previous.into_iter().flat_map(|previous| &previous.rules);
    let origin = match known.find(|known| known.made_from == made_from) {
        Some(same) => same.origin.clone(),
        None => Arc::new(Origin::new(&rule.service, &rule.origin)?),
    };
    Ok((origin, made_from))
}

/// The file, and a byte more than the limit, so that whoever is given it sees that there is more.
fn read_limited(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit)?;
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))?;
    Ok(bytes)
}

/// A bundle of every public authority has a quarter of it.
const LARGEST_CA_FILE: usize = 1 << 20;
