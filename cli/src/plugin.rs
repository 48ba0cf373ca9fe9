//! `adit plugin`: writing plugins, looking at components, trying and measuring them. Read in this order:
//! [`project`] what a folder with a plugin is, [`template`] a new one, [`build`] from sources to a component,
//! [`exchange`] asking one, [`cases`] and [`runner`] testing it, [`inspection`], [`trial`] and [`mod@bench`] looking at any component.

mod bench;
mod build;
mod cases;
mod exchange;
mod inspection;
mod outcome;
mod project;
mod runner;
mod template;
mod tool;
mod trial;
mod wit;

use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_engine::LARGEST_COMPONENT;
use adit_rules::grants::Grants;
use adit_rules::plan::{Limits, OnError, PluginPlan};
use adit_rules::shelf;
use anyhow::{Context, bail};
use clap::Subcommand;

use crate::table::Form;
use crate::{Failure, registry};

#[derive(Subcommand)]
pub(crate) enum Plugin {
    /// Begin a plugin: a folder that builds, with a test
    New(template::New),
    /// Build the plugin in a folder, by the tools of its language
    Build(build::Build),
    /// Ask a plugin what its tests.toml says, and compare what it decides
    Test(runner::Test),
    /// Measure components: start, and one call on a fresh and on a reused instance
    Bench(bench::Bench),
    /// Say what a component is: its role, what it asks for, what it says of itself
    #[command(alias = "check")]
    Inspect {
        /// The component: a file, shelf:NAME for one that comes with Adit, or oci://REGISTRY/NAME:TAG
        #[arg(value_name = "FILE")]
        component: PathBuf,
        /// In which form
        #[arg(long = "output", short = 'o', value_name = "FORM", value_enum, default_value_t)]
        form: Form,
    },
    /// Have a component handle one request, and print what it decided; what is granted to it is what --grant says
    Run(trial::Try),
    /// Put a component into a registry
    Push(registry::Push),
    /// Get a component from a registry, or all that a configuration refers to
    Pull(registry::Pull),
    /// Lock every tag of a configuration to what it means now, and pull that
    Update(registry::Update),
}

pub(crate) fn run(command: Plugin) -> Result<(), Failure> {
    match command {
        Plugin::New(new) => template::create(&new),
        Plugin::Build(build) => build::run(&build),
        Plugin::Test(test) => runner::run(&test),
        Plugin::Bench(bench) => bench::run(&bench),
        Plugin::Inspect { component, form } => inspection::run(&component, form),
        Plugin::Run(asked) => trial::run(asked),
        Plugin::Push(asked) => registry::push(asked),
        Plugin::Pull(asked) => registry::pull(asked),
        Plugin::Update(asked) => registry::update(asked),
    }
}

/// The bytes of a component that a command names: a file, one of the shelf, or one in a registry.
async fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let wasm = match path.to_str().filter(|path| path.starts_with(OCI)) {
        Some(reference) => registry::look(reference).await,
        None => component(path),
    };
    wasm.map_err(Failure::Configuration)
}

/// The bytes of a component; of one that is too large enough for the engine to say so.
pub(crate) fn component(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.is_dir() {
        let made = path.join("build").join(project::COMPONENT);
        bail!("{} is a folder\n  way out: name the component, such as {}", path.display(), made.display());
    }
    if let Some(name) = shelf::name(path).filter(|name| !shelf::NAMES.contains(name)) {
        bail!("`{}` is not on the shelf\n  way out: one of {}", name.escape_debug(), shelf::NAMES.join(", "));
    }
    let wasm = adit_host::component::read(path, LARGEST_COMPONENT);
    wasm.with_context(|| format!("reading {}", path.display()))
}

/// Waits for a component to be compiled, which takes long for some languages, and says so.
async fn patiently<T>(compiling: impl Future<Output = T>) -> T {
    let mut compiling = std::pin::pin!(compiling);
    match tokio::time::timeout(SILENT, &mut compiling).await {
        Ok(compiled) => compiled,
        Err(_) => {
            tool::say("compiling the component to machine code …");
            compiling.await
        }
    }
}

/// A plugin's configuration on the command line.
fn configuration(written: &str) -> Result<String, String> {
    let object: Result<serde_json::Map<_, _>, _> = serde_json::from_str(written);
    object
        .map(|_| written.to_owned())
        .map_err(|error| format!("not a JSON object, such as {{\"text\": \"hello\"}}: {error}"))
}

fn plan(path: &Path, config: &str) -> PluginPlan {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = shelf::name(path).unwrap_or_else(|| stem.split([':', '@']).next().unwrap_or_default());
    PluginPlan {
        name: name.to_owned(),
        component: path.to_owned(),
        config: config.to_owned(),
        on_error: OnError::Deny,
        on_away: OnError::Deny,
        limits: Limits { memory: MEMORY, timeout: None, concurrency: 1 },
        grants: Grants::default(),
        reuse: None,
        experimental: true,
        tick: TICK,
    }
}

/// How a reference to a registry begins.
const OCI: &str = "oci://";
/// What a plugin has that is looked at by itself.
const MEMORY: usize = 64 << 20;
const TICK: Duration = Duration::from_secs(10);
/// After so long a tool says what it is doing.
const SILENT: Duration = Duration::from_millis(500);

/// Whether a file of cases can be read.
#[cfg(test)]
pub(crate) fn check_cases(file: &Path) -> anyhow::Result<()> {
    cases::Cases::read(file).map(|_| ())
}
