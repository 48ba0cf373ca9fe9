//! Components by hand: core modules in the text format, inside what a toolchain made for version 0.1.0
//! of the interface. For guests that no compiler would write; and since that frame is frozen, every
//! one of them is also a component of the oldest published version.

/// The frame; `MODULE` stands for the fields of the core module.
const PUBLISHED: &str = include_str!("../../../tests/guests/published/request-filter-0.1.0.wat");

/// A filter of requests with a good lifecycle; `more` are further fields of its module, and `act` is
/// the body of on-request.
pub(super) fn filter(more: &str, act: &str) -> Vec<u8> {
    filter_that_imports(more, act, "")
}

/// The same with further fields of the component behind the others. What they lower reaches the module through a
/// table that it exports, as toolchains do it.
pub(super) fn filter_that_imports(more: &str, act: &str, behind: &str) -> Vec<u8> {
    let frame = published(&module(more, act));
    let frame = frame.trim_end().strip_suffix(')').expect("it ends with the component");
    wat::parse_str(format!("{frame}{behind})")).expect("good text")
}

/// The frame around a module, as text.
pub(super) fn published(module: &str) -> String {
    let module = if module.is_empty() { self::module("", NEXT) } else { module.to_owned() };
    PUBLISHED.replacen("MODULE)", &format!("{module})"), 1)
}

fn module(more: &str, act: &str) -> String {
    // Address 1024 is all zeroes: empty strings and lists, and the first case of every variant, so
    // that it is an empty manifest, a good configuration, and the answer `next`.
    format!(
        r#"
        (memory (export "memory") 1)
        (global $end (mut i32) (i32.const 4096))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (if (i32.gt_u (global.get $end) (i32.const 32768)) (then (global.set $end (i32.const 4096))))
            (local.set $at (global.get $end))
            (global.set $end
                (i32.and (i32.add (i32.add (global.get $end) (local.get 3)) (i32.const 7)) (i32.const -8)))
            (local.get $at))
        (func (export "adit:plugin/lifecycle@0.1.0#describe") (result i32) (i32.const 1024))
        (func (export "adit:plugin/lifecycle@0.1.0#configure") (param i32 i32) (result i32) (i32.const 1024))
        (func (export "adit:plugin/request-filter@0.1.0#on-request")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            {act})
        {more}"#
    )
}

/// What on-request returns when it lets a request go on.
pub(super) const NEXT: &str = "(i32.const 1024)";
