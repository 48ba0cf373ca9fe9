//! What `wit/plugin.wit` says, as Rust: generated, nothing by hand. The world
//! `everything` has every interface; which of them a component exports is looked at one by one.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "everything",
    imports: { "adit:plugin/http-client.send": async },
    ownership: Borrowing { duplicate_if_necessary: true },
    exports: { default: async },
});
