//! What a component is, for whoever is about to trust it: its role, what it asks for, what it says
//! of itself. Runs no more of it than `describe`, with nothing granted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_rules::grants::Grants;
use adit_rules::plan::PluginPlan;

use super::component::LinkedComponent;
use super::engine::Engine;
use super::failure::{CallError, LoadError};
use super::meter::LOADING;
use super::sandbox::{Given, Sandbox};
use super::store::Instance;
use super::text::printable;
use super::{compiler, imports};
use crate::filter::LONGEST_NAME;

/// What was found.
#[derive(Debug)]
pub struct Inspection {
    pub is_filter: bool,
    pub is_service: bool,
    pub is_middleware: bool,
    /// Whether the document must say `experimental = true`.
    pub is_experimental: bool,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Imports of WASI that are not served; a call of one is a trap.
    pub unserved: Vec<String>,
    /// Imports that take a grant, and the key of `[plugin.grants]`.
    pub grants: Vec<(String, &'static str)>,
    /// Imports that are of no use without a grant, and the key of `[plugin.grants]`.
    pub useful_grants: Vec<(String, &'static str)>,
    /// Wall time, on a machine that may do other work; next to nothing if the engine kept the code.
    pub compile_time: Duration,
    /// Of a component with a lifecycle.
    pub description: Option<Description>,
}

/// What a component says of itself.
#[derive(Debug)]
pub struct Description {
    pub name: String,
    pub version: String,
    pub request_headers: Vec<String>,
    pub response_headers: Vec<String>,
    /// The JSON Schema of its configuration.
    pub schema: Option<String>,
}

/// Compiles a component and lets it describe itself within the limits of `plan`, whose grants and
/// configuration do not matter. Needs a tokio runtime with its timer.
pub async fn inspect(engine: &Engine, plan: &PluginPlan, wasm: &[u8]) -> Result<Inspection, LoadError> {
    let begun = Instant::now();
    let compiled = compiler::component(engine, &plan.name, wasm).await?;
    let compile_time = begun.elapsed();
    let linked_component = LinkedComponent::link(engine, &plan.name, compiled)?;
    let component = &linked_component.component;
    let ty = component.component_type();
    let needs = imports::Needs::of(component);
    let description = match &linked_component.phases {
        None => None,
        Some(phases) => {
            let nothing = PluginPlan { grants: Grants::default(), ..plan.clone() };
            let sandbox = Arc::new(Sandbox::new(&nothing, &Given::default(), engine.persistent())?);
            let broken = |during| {
                move |trouble: CallError| LoadError::Broken {
                    during,
                    kind: trouble.kind,
                    backtrace: trouble.backtrace,
                }
            };
            let _running = engine.clock().running(0);
            let instance = Instance::new(&linked_component, phases, &sandbox, LOADING).await;
            let mut instance = instance.map_err(broken("instantiation"))?;
            let manifest = instance.describe(LOADING).await.map_err(broken("describe"))?;
            let text = |text: &str| printable(text, LONGEST_NAME).into_owned();
            Some(Description {
                name: text(&manifest.name),
                version: text(&manifest.version),
                request_headers: manifest.request_headers.iter().map(|name| text(name)).collect(),
                response_headers: manifest.response_headers.iter().map(|name| text(name)).collect(),
                schema: instance.schema(LOADING).await.map_err(broken("config-schema"))?,
            })
        }
    };
    Ok(Inspection {
        is_filter: linked_component.phases.is_some(),
        is_service: linked_component.serves(),
        is_middleware: linked_component.mediates(),
        is_experimental: linked_component.is_experimental(),
        imports: ty.imports(component.engine()).map(|(name, _)| name.to_owned()).collect(),
        exports: ty.exports(component.engine()).map(|(name, _)| name.to_owned()).collect(),
        unserved: needs.unserved,
        grants: imports::missing(component, &Grants::default()),
        useful_grants: imports::useful(component),
        compile_time,
        description,
    })
}
