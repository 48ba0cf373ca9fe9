//! The interface of a project, read from its folder `wit`, and what is made from it: bindings, and a
//! component around a core module.

use std::path::Path;

use anyhow::{Context, Result};
use wit_bindgen_core::wit_parser::{Resolve, WorldId, WorldItem};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

pub(super) struct World {
    resolve: Resolve,
    id: WorldId,
}

/// What a core module has been told of the world that it is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Metadata {
    /// It carries the world, since it was linked with generated objects.
    Inside,
    Missing,
}

impl World {
    /// The only world of the package in a folder.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut resolve = Resolve::default();
        let reading = || format!("reading the interface in {}", folder.display());
        let (package, _) = resolve.push_dir(folder).with_context(reading)?;
        let id = resolve.select_world(&[package], None).with_context(reading)?;
        Ok(Self { resolve, id })
    }

    pub(super) fn name(&self) -> &str {
        &self.resolve.worlds[self.id].name
    }

    /// Whether it names interfaces of WASI itself, so that they cannot be taken from what is built.
    pub(super) fn names_wasi(&self) -> bool {
        let world = &self.resolve.worlds[self.id];
        world.imports.values().chain(world.exports.values()).any(|item| {
            let WorldItem::Interface { id, .. } = item else { return false };
            let package = self.resolve.interfaces[*id].package;
            package.is_some_and(|package| self.resolve.packages[package].name.namespace == "wasi")
        })
    }

    /// The functions that a component of it has to have, by interface.
    pub(super) fn exports(&self) -> Vec<(String, Vec<String>)> {
        let world = &self.resolve.worlds[self.id];
        let interfaces = world.exports.values().filter_map(|item| {
            let WorldItem::Interface { id, .. } = item else { return None };
            let interface = &self.resolve.interfaces[*id];
            let functions = interface.functions.values();
            let functions = functions.filter(|function| function.kind.resource().is_none());
            Some((interface.name.clone()?, functions.map(|function| function.name.clone()).collect()))
        });
        interfaces.collect()
    }

    /// Source files by their paths.
    pub(super) fn bindings(&self, mut generator: Box<dyn WorldGenerator>) -> Result<Files> {
        let mut files = Files::default();
        let mut resolve = self.resolve.clone();
        generator.generate(&mut resolve, self.id, &mut files).context("generating the bindings")?;
        Ok(files)
    }

    /// Makes a component of a core module. `preview1` answers what it asks of WASI preview 1.
    pub(super) fn component(
        &self,
        mut module: Vec<u8>,
        metadata: Metadata,
        preview1: &[u8],
    ) -> Result<Vec<u8>> {
        if metadata == Metadata::Missing {
            embed_component_metadata(&mut module, &self.resolve, self.id, StringEncoding::UTF8)?;
        }
        let encoder = ComponentEncoder::default().validate(true).module(&module)?;
        encoder.adapter(PREVIEW1, preview1)?.encode().context("making a component of the module")
    }
}

const PREVIEW1: &str = "wasi_snapshot_preview1";
