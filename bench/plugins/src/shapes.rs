//! The shapes, host to guest, in an engine that is set up like the product's.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use wasmtime::component::{Component, HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine, PoolingAllocationConfig, Store, StoreLimits, StoreLimitsBuilder, UpdateDeadline,
};

use crate::HEADERS;
use crate::timing::table_row;
use bindings::adit::shapes::heads;
use bindings::exports::adit::shapes::shapes::{Action, Request};
use bindings::{Guest, GuestPre};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "guest",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
        exports: { default: async },
        with: { "adit:shapes/heads.head": super::Kept },
    });
}

/// A head that stays in the host. Public since the generated code exports it again.
#[allow(unreachable_pub)]
pub struct Kept;

struct State {
    table: ResourceTable,
    limits: StoreLimits,
}

impl heads::Host for State {}

impl heads::HostHead for State {
    fn path(&mut self, _head: Resource<Kept>) -> wasmtime::Result<String> {
        Ok(PATH.to_owned())
    }

    fn header(&mut self, _head: Resource<Kept>, name: String) -> wasmtime::Result<Option<String>> {
        Ok(HEADERS.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    fn drop(&mut self, head: Resource<Kept>) -> wasmtime::Result<()> {
        self.table.delete(head)?;
        Ok(())
    }
}

const PATH: &str = "/account/orders?page=2";
// The kernel counts in ticks of milliseconds: a round must be many of them.
const CALLS: u64 = 50_000;

pub(crate) async fn measure() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins/test/shapes.wasm");
    let wasm =
        std::fs::read(&path).with_context(|| format!("{}: run `cargo xtask plugins`", path.display()))?;
    let engine = engine()?;
    let component = Component::new(&engine, &wasm).map_err(|error| anyhow!(error))?;
    let mut linker = Linker::<State>::new(&engine);
    heads::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).map_err(|error| anyhow!(error))?;
    linker.define_unknown_imports_as_traps(&component).map_err(|error| anyhow!(error))?;
    let pre = linker.instantiate_pre(&component).and_then(GuestPre::new).map_err(|error| anyhow!(error))?;

    println!("| shape, one reused instance | least | median |\n|---|---|---|");
    let mut store = store(&engine);
    let guest = pre.instantiate_async(&mut store).await.map_err(|error| anyhow!(error))?;
    table_row("empty call", CALLS, async || {
        for _ in 0..CALLS {
            guest.adit_shapes_shapes().call_nothing(&mut store).await?;
        }
        Ok(())
    })
    .await?;
    for count in [0, 2, 15] {
        table_row(&format!("record with {count} headers"), CALLS, async || {
            for _ in 0..CALLS {
                by_record(&guest, &mut store, &HEADERS[..count]).await?;
            }
            Ok(())
        })
        .await?;
    }
    for count in [0, 2, 15] {
        table_row(&format!("flat text with {count} headers"), CALLS, async || {
            for _ in 0..CALLS {
                let (lengths, text) = blob(&HEADERS[..count]);
                let action = guest.adit_shapes_shapes().call_by_blob(&mut store, &lengths, &text).await?;
                anyhow::ensure!(matches!(action, Action::Next), "it blocked");
            }
            Ok(())
        })
        .await?;
    }
    table_row("resource, path and 1 header asked for", CALLS, async || {
        for _ in 0..CALLS {
            let head = store.data_mut().table.push(Kept)?;
            let shown = Resource::new_borrow(head.rep());
            let action = guest.adit_shapes_shapes().call_by_resource(&mut store, shown).await?;
            anyhow::ensure!(matches!(action, Action::Next), "it blocked");
            store.data_mut().table.delete(head)?;
        }
        Ok(())
    })
    .await?;
    table_row("fresh instance: record with 2 headers", CALLS / 10, async || {
        for _ in 0..CALLS / 10 {
            let mut store = self::store(&engine);
            let guest = pre.instantiate_async(&mut store).await?;
            by_record(&guest, &mut store, &HEADERS[..2]).await?;
        }
        Ok(())
    })
    .await
}

async fn by_record(guest: &Guest, store: &mut Store<State>, headers: &[(&str, &str)]) -> Result<()> {
    // The list of references is what the product makes for each call.
    let headers: Vec<(&str, &str)> = headers.to_vec();
    let request = Request {
        id: "8d2f1c7e9a0b1c2d-TST",
        method: "GET",
        scheme: "https",
        authority: "app.example.com",
        path_with_query: PATH,
        client_ip: "192.0.2.17",
        headers: &headers,
    };
    let action = guest.adit_shapes_shapes().call_by_record(store, request).await?;
    anyhow::ensure!(matches!(action, Action::Next), "it blocked");
    Ok(())
}

fn blob(headers: &[(&str, &str)]) -> (Vec<u32>, String) {
    let fixed = ["8d2f1c7e9a0b1c2d-TST", "GET", "https", "app.example.com", PATH, "192.0.2.17"];
    let parts = fixed.into_iter().chain(headers.iter().flat_map(|(name, value)| [*name, *value]));
    let (mut lengths, mut text) = (Vec::with_capacity(6 + 2 * headers.len()), String::with_capacity(1024));
    for part in parts {
        lengths.push(u32::try_from(part.len()).unwrap_or(u32::MAX));
        text.push_str(part);
    }
    (lengths, text)
}

fn engine() -> Result<Engine> {
    let is_told_pages = PoolingAllocationConfig::is_pagemap_scan_available();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(100)
        .linear_memory_keep_resident(if is_told_pages { 1024 } else { 128 } * 1024)
        .pagemap_scan(Enabled::Auto)
        .table_keep_resident(16 * 1024);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .wasm_threads(false)
        .gc_support(false)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .max_wasm_stack(512 * 1024)
        .allocation_strategy(pool);
    Engine::new(&config).map_err(|error| anyhow!(error))
}

fn store(engine: &Engine) -> Store<State> {
    let limits = StoreLimitsBuilder::new().memory_size(64 << 20).build();
    let mut store = Store::new(engine, State { table: ResourceTable::new(), limits });
    store.limiter(|state| &mut state.limits);
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
    store.set_epoch_deadline(1);
    store
}
