//! Interfaces of WASI that nobody serves, for components that import and never call them: each function is
//! there and traps. What is served stays served, whatever else a component imports.

use wasmtime::bail;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError};

use super::super::store::State;

/// Links the imports of these names with traps.
pub(crate) fn link(
    linker: &mut Linker<State>,
    component: &Component,
    names: &[String],
) -> wasmtime::Result<()> {
    let engine = component.engine();
    let ty = component.component_type();
    let imports: Vec<_> = ty.imports(engine).map(|(name, import)| (name.to_owned(), import.ty)).collect();
    let mut shared = Vec::new();
    for (name, item) in &imports {
        let ComponentItem::ComponentInstance(instance) = item else { continue };
        for (interface, resource, host) in SHARED {
            if name.strip_prefix(interface).is_some_and(|rest| rest.starts_with("@0.2"))
                && let Some(ComponentItem::Resource(used)) = export(instance, engine, resource)
            {
                shared.push((used, host()));
            }
        }
    }
    for (name, item) in imports.iter().filter(|(name, _)| names.contains(name)) {
        match item {
            ComponentItem::ComponentInstance(instance) => {
                let mut linked = linker.instance(name)?;
                for (export, item) in instance.exports(engine) {
                    trap(&mut linked, name, export, &item.ty, &shared)?;
                }
            }
            ComponentItem::ComponentFunc(_)
            | ComponentItem::CoreFunc(_)
            | ComponentItem::Module(_)
            | ComponentItem::Component(_)
            | ComponentItem::Type(_)
            | ComponentItem::Resource(_) => trap(&mut linker.root(), "", name, item, &shared)?,
        }
    }
    Ok(())
}

/// What a resource is to the host.
type HostType = fn() -> ResourceType;

/// Resources that interfaces of others use: theirs must be the ones that are linked.
const SHARED: [(&str, &str, HostType); 4] = [
    ("wasi:io/poll", "pollable", ResourceType::host::<DynPollable>),
    ("wasi:io/streams", "input-stream", ResourceType::host::<DynInputStream>),
    ("wasi:io/streams", "output-stream", ResourceType::host::<DynOutputStream>),
    ("wasi:io/error", "error", ResourceType::host::<IoError>),
];

fn export(instance: &ComponentInstance, engine: &wasmtime::Engine, name: &str) -> Option<ComponentItem> {
    instance.exports(engine).find(|(export, _)| *export == name).map(|(_, item)| item.ty)
}

fn trap(
    linked: &mut LinkerInstance<'_, State>,
    interface: &str,
    name: &str,
    item: &ComponentItem,
    shared: &[(ResourceType, ResourceType)],
) -> wasmtime::Result<()> {
    let place = if interface.is_empty() { name.to_owned() } else { format!("{interface}#{name}") };
    match item {
        ComponentItem::ComponentFunc(function) if function.async_() => {
            linked.func_new_concurrent(name, move |_, _, _, _| {
                let place = place.clone();
                Box::pin(async move { bail!("{place} is not served here") })
            })
        }
        ComponentItem::ComponentFunc(_) => {
            linked.func_new(name, move |_, _, _, _| bail!("{place} is not served here"))
        }
        ComponentItem::Resource(ty) => {
            let host = shared.iter().find(|(used, _)| used == ty).map(|(_, host)| *host);
            linked.resource(name, host.unwrap_or_else(ResourceType::host::<()>), |_, _| Ok(()))
        }
        // What has no code needs none.
        ComponentItem::Type(_) => Ok(()),
        ComponentItem::CoreFunc(_)
        | ComponentItem::Module(_)
        | ComponentItem::Component(_)
        | ComponentItem::ComponentInstance(_) => bail!("{place} is of a kind that is not served here"),
    }
}
