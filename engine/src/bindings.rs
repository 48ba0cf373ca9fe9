//! What `wit/plugin.wit` says, as Rust: generated, nothing by hand. The world
//! `everything` has every interface; which of them a component exports is looked at one by one.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "everything",
    imports: {
        "adit:plugin/http-client.send": async,
        // Of a bucket that is elsewhere; where its server is away the call of the guest ends.
        "adit:plugin/key-value.get": async | trappable,
        "adit:plugin/key-value.set": async | trappable,
        "adit:plugin/key-value.delete": async | trappable,
        "adit:plugin/key-value.increment": async | trappable,
    },
    ownership: Borrowing { duplicate_if_necessary: true },
    exports: { default: async },
});
