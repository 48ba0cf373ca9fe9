//! What runs: routes, origins and plugins, built completely before it serves and never changed
//! afterwards. Does not know where its plan came from or who is connected.

pub mod lifetime;
pub mod routes;
pub mod streams;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use adit_engine::{BucketServer, Chain, Engine, Given, Plugin, RuleNames, Secrets};
use adit_rules::bucket_server::BucketServerPlan;
use adit_rules::reference_json;
use anyhow::{Context, bail, ensure};

use crate::bucket_server::Server;
use crate::config::grants::{LARGEST_SECRET, SecretSource};
use crate::config::plan::{OnError, OriginPlan, PathHeaders, Plan, PluginPlan, Rule as RulePlan, Service};
use crate::contents::Contents;
use crate::generation::lifetime::{GenerationLifetime, RuleMetrics};
use crate::generation::routes::{Routes, Unclear};
use crate::generation::streams::{Carrier, NoStream, Streams};
use crate::origin::{Origin, client_config};

/// Everything that one request needs, as one unit.
#[derive(Debug)]
pub struct Generation {
    /// Counts up with every generation that was built; never goes back.
    pub number: u64,
    /// Outlives the generation where an answer of it is still under way.
    pub lifetime: Arc<GenerationLifetime>,
    /// One line is logged for each request.
    pub access_log: bool,
    /// There is nothing to serve yet: the rules come from the edge.
    pub is_unconfigured: bool,
    /// What the edge is told about it (wire.md, 9.4), JSON.
    pub report: Vec<u8>,
    routes: Routes,
    streams: Streams,
    rules: Vec<Rule>,
    plugins: Vec<Loaded>,
    bucket_server: Option<SharedBuckets>,
}

/// The server of shared buckets with what it was made from, so that the next generation can tell whether it needs another.
#[derive(Clone)]
struct SharedBuckets {
    plan: BucketServerPlan,
    password: Option<Vec<u8>>,
    /// Of the file that holds its certificate authorities.
    ca: Option<[u8; 32]>,
    server: Arc<dyn BucketServer>,
}

/// A plugin with what it was made from, so that the next generation can tell whether it needs another.
#[derive(Debug)]
struct Loaded {
    plan: Arc<PluginPlan>,
    digest: [u8; 32],
    given: Given,
    plugin: Arc<Plugin>,
}

/// A rule as it runs.
#[derive(Debug)]
pub struct Rule {
    pub name: String,
    pub chain: Chain,
    pub backend: Backend,
    /// As plugins are told that ask.
    pub names: RuleNames,
    /// Whether headers in which a visitor names another path go on.
    pub passes_path_headers: bool,
    /// Circuits that there may be in this host, of all rules.
    pub most_circuits: usize,
    /// Counts on from the rule of the same name in the last generation.
    pub metrics: Arc<RuleMetrics>,
}

/// Who answers the requests of a rule.
#[derive(Debug)]
pub enum Backend {
    Origin(Arc<Origin>, Box<OriginSource>),
    /// A plugin that is a service.
    Component(Arc<Plugin>),
}

impl Backend {
    /// As it stands in the document.
    fn service(&self) -> String {
        match self {
            Self::Origin(origin, _) => origin.name().into_owned(),
            Self::Component(plugin) => format!("wasm:{}", plugin.name()),
        }
    }
}

/// What an origin was made from, so that the next generation can tell whether it needs another.
#[derive(Debug, PartialEq)]
pub struct OriginSource {
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
        contents: &mut Contents,
    ) -> Result<Self, BuildError> {
        let mut reasons = Vec::new();
        let bucket_server = plan.bucket_server.as_ref().map(|plan| shared_buckets(plan, previous, contents));
        let bucket_server = bucket_server.transpose().unwrap_or_else(|error| {
            reasons.push(format!("[bucket-server]: {error:#}"));
            None
        });
        let server = bucket_server.as_ref().map(|shared| &shared.server);
        let mut plugins = Vec::with_capacity(plan.plugins.len());
        for wanted in &plan.plugins {
            match load(wanted, engine, shards, previous, (&plugins, server), contents).await {
                Ok(loaded) => plugins.push(loaded),
                Err(error) => {
                    let (name, component) = (&wanted.name, wanted.component.display());
                    reasons.push(format!("plugin {name} ({component}): {error:#}"));
                }
            }
        }
        let mut made_of = Vec::with_capacity(plan.rules.len());
        for rule in &plan.rules {
            let loaded =
                |index: usize| plugins.iter().find(|known| Arc::ptr_eq(&known.plan, &plan.plugins[index]));
            match parts(rule, previous, loaded, contents) {
                Ok(made) => made_of.push(made),
                Err(error) => reasons.push(format!("ingress rule {}: {error:#}", rule.name)),
            }
        }
        if !reasons.is_empty() {
            return Err(BuildError { reasons });
        }
        let mut rules: Vec<Rule> = Vec::with_capacity(plan.rules.len());
        for (rule, (chain, backend)) in plan.rules.iter().zip(made_of.into_iter().flatten()) {
            let known = previous.into_iter().flat_map(|previous| &previous.rules).chain(&rules);
            let metrics =
                known.map(|known| &known.metrics).find(|metrics| metrics.name == rule.name).cloned();
            let metrics = metrics.unwrap_or_else(|| Arc::new(RuleMetrics::new(&rule.name, shards)));
            let passes_path_headers = rule.path_headers == PathHeaders::AsSent;
            rules.push(Rule {
                name: rule.name.clone(),
                names: RuleNames { rule: rule.name.as_str().into(), service: backend.service().into() },
                chain,
                backend,
                passes_path_headers,
                most_circuits: plan.tcp.most_circuits,
                metrics,
            });
        }
        Ok(Self {
            number,
            lifetime: Arc::new(match previous {
                Some(previous) => previous.lifetime.next(number),
                None => GenerationLifetime::new(number, shards),
            }),
            access_log: plan.access_log,
            is_unconfigured: plan.is_unconfigured,
            report: reference_json::of(plan),
            routes: Routes::new(&plan.rules),
            streams: Streams::new(&rules, &plan.tcp, previous.map(|previous| &previous.streams)),
            rules,
            plugins,
            bucket_server,
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

    /// The first rule that matches a host, as [`adit_address::host`] gives it, and a path as it was sent.
    ///
    /// # Errors
    /// Where another rule may be meant.
    pub fn route(&self, host: &str, path: &str) -> Result<Option<&Rule>, Unclear> {
        Ok(self.routes.find(host, path)?.map(|index| &self.rules[index]))
    }

    /// Who carries a stream that the edge opens to an address by itself.
    ///
    /// # Errors
    /// Why nobody does.
    pub fn stream(&self, to: SocketAddr) -> Result<Carrier<'_>, NoStream> {
        self.streams.find(&self.rules, to)
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
    (before, server): (&[Loaded], Option<&Arc<dyn BucketServer>>),
    contents: &mut Contents,
) -> anyhow::Result<Loaded> {
    let wasm = contents.read(&wanted.component).context("the component cannot be read")?;
    let digest = wasm.digest;
    let server = server.filter(|_| !wanted.grants.shared.is_empty());
    let given = Given { secrets: read_secrets(wanted, contents)?, bucket_server: server.cloned() };
    let known = previous.into_iter().flat_map(|previous| &previous.plugins).chain(before);
    let compiled: Vec<&Loaded> = known.filter(|loaded| loaded.digest == digest).collect();
    let same = |loaded: &&&Loaded| loaded.plan == *wanted && loaded.given == given;
    let plugin = match (compiled.iter().find(same), compiled.first()) {
        (Some(same), _) => same.plugin.clone(),
        (None, Some(other)) => Arc::new(other.plugin.load_again(wanted, given.clone()).await?),
        (None, None) => Arc::new(Plugin::load(engine, wanted, &wasm.bytes, given.clone(), shards).await?),
    };
    Ok(Loaded { plan: wanted.clone(), digest, given, plugin })
}

/// The plugins of a rule, and who answers it. `loaded` knows the plugin of an index; one that it does not
/// know is spoken of elsewhere.
fn parts<'p>(
    rule: &RulePlan,
    previous: Option<&Generation>,
    loaded: impl Fn(usize) -> Option<&'p Loaded>,
    contents: &mut Contents,
) -> anyhow::Result<Option<(Chain, Backend)>> {
    let mut links = Vec::with_capacity(rule.plugins.len());
    let mut is_whole = true;
    for &index in &rule.plugins {
        match loaded(index) {
            Some(plugin) => links.push(filter(plugin)?),
            None => is_whole = false,
        }
    }
    let backend = match rule.service {
        Service::Component(index) => match loaded(index) {
            Some(plugin) => Some(Backend::Component(service(plugin)?)),
            None => None,
        },
        Service::Http { .. }
        | Service::Https { .. }
        | Service::Unix { .. }
        | Service::Tcp { .. }
        | Service::Bastion
        | Service::Socks
        | Service::Status(_)
        | Service::HelloWorld => {
            let (origin, made_from) = origin(rule, previous, contents)?;
            Some(Backend::Origin(origin, Box::new(made_from)))
        }
    };
    Ok(backend.filter(|_| is_whole).map(|backend| (Chain::new(links), backend)))
}

/// The plugin as a link of a chain.
fn filter(loaded: &Loaded) -> anyhow::Result<Arc<Plugin>> {
    let name = loaded.plugin.name();
    ensure!(
        loaded.plugin.filters() || loaded.plugin.mediates(),
        "plugin {name} is a service and cannot stand in a chain; write service = \"wasm:{name}\""
    );
    ensure!(
        !loaded.plugin.mediates()
            || (loaded.plan.on_error == OnError::Deny && loaded.plan.on_away == OnError::Deny),
        "plugin {name} is middleware, which holds the request as a whole when it fails: there is nothing left \
         to go on with; leave on-error = \"skip\" and on-away = \"skip\" out"
    );
    Ok(loaded.plugin.clone())
}

/// The plugin as what answers a rule.
fn service(loaded: &Loaded) -> anyhow::Result<Arc<Plugin>> {
    let name = loaded.plugin.name();
    ensure!(
        !loaded.plugin.mediates(),
        "plugin {name} is middleware and has nobody behind it as a service; write plugins = [{name:?}]"
    );
    ensure!(
        loaded.plugin.serves(),
        "plugin {name} is a filter and cannot answer a rule; write plugins = [{name:?}]"
    );
    Ok(loaded.plugin.clone())
}

/// The secrets that a plugin is granted, read now.
pub fn secrets(plan: &PluginPlan) -> anyhow::Result<Secrets> {
    read_secrets(plan, &mut Contents::default())
}

/// The secrets that a plugin is granted, from where they are kept.
fn read_secrets(plan: &PluginPlan, contents: &mut Contents) -> anyhow::Result<Secrets> {
    let mut secrets = BTreeMap::new();
    for (name, source) in &plan.grants.secrets {
        secrets.insert(name.clone(), secret(&format!("secret {name}"), source, contents)?);
    }
    Ok(Secrets(secrets))
}

/// One secret, which people know as `name`.
fn secret(name: &str, source: &SecretSource, contents: &mut Contents) -> anyhow::Result<Vec<u8>> {
    let mut value = match source {
        SecretSource::File(path) => {
            let read = contents.read(path);
            read.with_context(|| format!("{name} ({})", path.display()))?.bytes.clone()
        }
        SecretSource::Environment(variable) => match std::env::var_os(variable) {
            Some(value) => value.into_encoded_bytes(),
            None => bail!("{name}: the environment has no variable {variable}"),
        },
    };
    ensure!(value.len() <= LARGEST_SECRET, "{name} is over {LARGEST_SECRET} bytes");
    if value.ends_with(b"\n") {
        value.truncate(value.len() - if value.ends_with(b"\r\n") { 2 } else { 1 });
    }
    Ok(value)
}

/// The server of shared buckets, which is that of `previous` if it is reached in the same way. Nothing is connected here.
fn shared_buckets(
    plan: &BucketServerPlan,
    previous: Option<&Generation>,
    contents: &mut Contents,
) -> anyhow::Result<SharedBuckets> {
    let password = plan.password.as_ref().map(|source| secret("password", source, contents)).transpose()?;
    let ca = match &plan.ca {
        Some(file) => {
            let read = contents.read(file);
            Some((file, read.with_context(|| format!("ca ({})", file.display()))?))
        }
        None => None,
    };
    let digest = ca.as_ref().map(|(_, content)| content.digest);
    let known = previous.and_then(|previous| previous.bucket_server.as_ref());
    let same = known.filter(|known| (&known.plan, &known.password, known.ca) == (plan, &password, digest));
    if let Some(same) = same {
        return Ok(same.clone());
    }
    let ca = ca.as_ref().map(|(file, content)| (file.as_path(), &*content.bytes));
    let tls = plan.tls.then(|| client_config(ca, true)).transpose()?;
    let server = Arc::new(Server::new(plan.clone(), password.clone(), tls));
    Ok(SharedBuckets { plan: plan.clone(), password, ca: digest, server })
}

/// Its password is shown nowhere.
impl std::fmt::Debug for SharedBuckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedBuckets").field("plan", &self.plan).finish_non_exhaustive()
    }
}

fn origin(
    rule: &RulePlan,
    previous: Option<&Generation>,
    contents: &mut Contents,
) -> anyhow::Result<(Arc<Origin>, OriginSource)> {
    let ca = match &rule.origin.ca_file {
        Some(file) => {
            let read = contents.read(file);
            Some(read.with_context(|| format!("the ca-file {} cannot be read", file.display()))?)
        }
        None => None,
    };
    let made_from = OriginSource {
        service: rule.service.clone(),
        plan: rule.origin.clone(),
        ca: ca.as_ref().map(|ca| ca.digest),
    };
    let rules = previous.into_iter().flat_map(|previous| &previous.rules);
    let mut same = rules.filter_map(|rule| match &rule.backend {
        Backend::Origin(origin, of) if **of == made_from => Some(origin),
        Backend::Origin(..) | Backend::Component(_) => None,
    });
    let origin = match same.next() {
        Some(same) => same.clone(),
        None => {
            let ca = ca.as_ref().map(|ca| &*ca.bytes);
            Arc::new(Origin::new(&rule.service, &rule.origin, ca)?)
        }
    };
    Ok((origin, made_from))
}
