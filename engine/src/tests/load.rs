//! From bytes to a plugin: what is refused, and how that reads.

use super::*;

const OURS: [&str; 2] = ["adit:plugin/lifecycle@0.1.0", "adit:plugin/request-filter@0.1.0"];

/// A component in the binary format, just large enough: it imports and exports instances without
/// anything in them.
fn hollow(imports: &[&str], exports: &[&str]) -> Vec<u8> {
    const EMPTY_INSTANCE_TYPE: [u8; 2] = [0x42, 0];
    const EMPTY_INSTANCE: [u8; 2] = [0x01, 0];
    const INSTANCE: u8 = 5;
    let count = |list: &[&str]| u8::try_from(list.len()).expect("a short list");
    let name = |name: &str| {
        let length = u8::try_from(name.len()).expect("a short name");
        [&[0, length], name.as_bytes()].concat()
    };
    let section = |id: u8, count: u8, items: Vec<u8>| {
        let length = u8::try_from(items.len() + 1).expect("a short section");
        assert!(length < 0x80, "a length of one byte");
        [vec![id, length, count], items].concat()
    };
    let mut wasm = b"\0asm\x0d\0\x01\0".to_vec();
    wasm.extend(section(7, 1, EMPTY_INSTANCE_TYPE.to_vec()));
    let imported = imports.iter().flat_map(|import| [name(import), vec![INSTANCE, 0]].concat()).collect();
    wasm.extend(section(10, count(imports), imported));
    wasm.extend(section(5, 1, EMPTY_INSTANCE.to_vec()));
    let made = count(imports);
    let exported =
        exports.iter().flat_map(|export| [name(export), vec![INSTANCE, made, 0]].concat()).collect();
    wasm.extend(section(11, count(exports), exported));
    wasm
}

async fn refusal(wasm: &[u8]) -> LoadError {
    let loaded = Plugin::load(engine(), &Arc::new(plan("{}")), wasm, &Secrets::default(), 1).await;
    loaded.expect_err("not a plugin")
}

#[tokio::test]
async fn a_file_that_is_not_a_component_is_refused_with_the_way_out() {
    for (wasm, said) in [
        (&b"\0asm\x01\0\0\0"[..], "wasm-tools component new"),
        (b"(component)", "wasm-tools parse"),
        (b"\x7fELF", "foreign machine code is never run"),
        (b"hello", "not a WebAssembly file"),
    ] {
        let error = refusal(wasm).await;
        assert!(
            matches!(error, LoadError::NotAComponent { .. }) && error.to_string().contains(said),
            "{error}"
        );
    }
    let mut torn = component(HEADERS);
    torn.truncate(torn.len() / 2);
    let error = refusal(&torn).await;
    assert!(matches!(error, LoadError::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn a_component_that_is_no_plugin_is_refused_by_what_it_lacks() {
    let error = refusal(&hollow(&[], &["acme:things/doer@0.2.0"])).await;
    assert!(matches!(error, LoadError::NoRole { .. }), "{error}");
    assert!(error.to_string().contains("it exports acme:things/doer@0.2.0"), "{error}");

    let error = refusal(&hollow(&[], &["adit:plugin/lifecycle@0.7.0"])).await;
    assert!(error.to_string().contains("made for adit:plugin 0.7.0, and this host has 0.1"), "{error}");

    let error = refusal(&hollow(&[], &OURS[..1])).await;
    assert!(matches!(error, LoadError::NoPhase), "{error}");

    let error = refusal(&hollow(&[], &OURS)).await;
    assert!(matches!(error, LoadError::Mismatch { .. }), "{error}");
    assert!(error.to_string().contains("describe"), "{error}");
}

/// A record that somebody changed in a copy of the interface was a trap of nobody knows what.
#[tokio::test]
async fn an_interface_that_is_not_the_published_one_is_named() {
    let changed = wat::parse_str(forge::published("").replace(
        "(field \"name\" string) (field \"version\" string)",
        "(field \"name\" string) (field \"release\" string)",
    ));
    let error = refusal(&changed.expect("good text")).await.to_string();
    assert!(error.contains("its lifecycle is not the published one") && error.contains("version"), "{error}");
}

#[tokio::test]
async fn unknown_imports_refuse_the_load_and_are_all_listed() {
    let imports = ["acme:a/b@1.0.0", "adit:plugin/kv@0.1.0", "adit:plugin/log@0.2.0", "wasi:cli/stdin@0.2.0"];
    let error = refusal(&hollow(&imports, &OURS)).await;
    let LoadError::UnknownImports { imports: refused } = &error else { panic!("{error}") };
    assert_eq!(refused, &imports[..3]);
    assert!(imports[..3].iter().all(|import| error.to_string().contains(import)), "{error}");
}

#[tokio::test]
async fn what_was_built_for_drafts_of_wasi_is_refused_as_that() {
    let imports = ["wasi:cli/stdin@0.2.0-rc-2023-11-10", "wasi:cli/stdout@0.2.0"];
    let error = refusal(&hollow(&imports, &OURS)).await;
    let LoadError::Drafts { imports: refused } = &error else { panic!("{error}") };
    assert_eq!(refused, &imports[..1]);
    assert!(error.to_string().contains("built for drafts of WASI"), "{error}");
}

#[tokio::test]
async fn a_refused_configuration_says_everything_that_is_wrong_with_it() {
    let config = r#"{"request": {"set": {"bad name": "x"}}, "other": 1, "response": {"remove": [7]}}"#;
    let error = try_load(HEADERS, plan(config)).await.expect_err("a bad configuration");
    let LoadError::Refused { faults } = &error else { panic!("{error}") };
    let places: Vec<&str> = faults.iter().map(|fault| fault.code.as_str()).collect();
    for place in ["/request/set/bad name", "/other", "/response/remove/0"] {
        assert!(places.contains(&place) && error.to_string().contains(place), "{error}");
    }
}

#[tokio::test]
async fn a_plugin_that_breaks_in_its_configuration_is_refused_with_its_stack() {
    let error =
        try_load(MISBEHAVE, plan(r#"{"on": "configure", "do": "trap"}"#)).await.expect_err("it traps");
    let LoadError::Broken { during, kind, backtrace } = &error else { panic!("{error}") };
    assert_eq!((*during, kind.word()), ("configure", "trap"));
    assert!(backtrace.contains("wasm function") || backtrace.contains("configure"), "{backtrace}");
    assert!(!backtrace.contains('\n'), "one line: {backtrace}");
}

#[tokio::test]
async fn a_component_that_needs_more_memory_than_its_limit_is_refused() {
    let mut plan = plan("{}");
    plan.limits.memory = 64 << 10;
    let error = try_load(HEADERS, plan).await.expect_err("it cannot start");
    assert!(matches!(error, LoadError::Broken { during: "instantiation", .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("memory limit of 65536 bytes"), "{error}");
    let wanted = said.split("it asked for ").nth(1).and_then(|rest| rest.split(' ').next());
    assert!(
        wanted.and_then(|bytes| bytes.parse::<usize>().ok()).is_some_and(|bytes| bytes > 65536),
        "{said}"
    );
    assert!(said.contains("`memory` of the plugin"), "{said}");
}

#[tokio::test]
async fn a_loaded_plugin_has_an_instance_ready_in_every_shard() {
    let wasm = component(HEADERS);
    let plugin = Plugin::load(engine(), &Arc::new(plan("{}")), &wasm, &Secrets::default(), 3)
        .await
        .expect("a good plugin");
    assert_eq!(plugin.name(), "tested");
    assert_eq!(plugin.component().0, "headers");
    assert_eq!(plugin.counters().instantiations, 3);
    let chain = Chain::new(vec![Arc::new(plugin)]);
    for shard in 0..3 {
        let outcome = chain.on_request(shard, &FACTS, &mut request(&[])).await;
        assert!(matches!(outcome, RequestOutcome::Continue(_)));
    }
}

/// It was served without what it was configured to guard with.
#[tokio::test]
async fn a_bucket_of_a_wrong_name_refuses_the_load() {
    let mut wrong = plan("{}");
    wrong.grants = grants(
        "buckets = { sean = \"1KiB\" }\nsecrets = { key = { env = \"X\" } }\nhttp = [\"https://a.example\"]",
    );
    // Its regular work counts in the bucket `seen`.
    let error = try_load("test/toolbox.wasm", wrong).await.expect_err("a wrong name").to_string();
    assert!(error.contains(r#"what [plugin.grants] does not name: bucket "seen""#), "{error}");
}

#[tokio::test]
async fn what_is_printed_of_a_plugin_does_not_contain_its_configuration() {
    let plugin = load(HEADERS, r#"{"request": {"set": {"x-key": "secret"}}}"#).await;
    let printed = format!("{plugin:?} {:?}", Chain::new(vec![plugin.clone()]));
    assert!(printed.contains("tested") && !printed.contains("secret"), "{printed}");
}
