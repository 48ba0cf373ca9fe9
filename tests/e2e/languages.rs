//! Whoever knows one of five languages writes a plugin in it, and the host runs it beside the others.
//!
//! `cargo xtask languages` says which languages this machine has the tools for.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::{Origin, Watched};
use e2e::process::{adit, target};
use e2e::product::{Product, Site};
use e2e::visitor::{Connection, Speaks, bare, to};
use e2e::within;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// Cargo builds one, a snapshot of an interpreter is compiled for another, and others want the processors too.
const LONGEST: Duration = Duration::from_secs(15 * 60);

const ALL: [&str; 5] = ["rust", "js", "python", "c", "go"];

/// Three of them, each with the file that an example is.
const SOURCES: [(&str, &str); 3] = [("rust", "src/lib.rs"), ("js", "plugin.js"), ("python", "app.py")];

struct Built {
    folder: PathBuf,
    languages: Vec<String>,
}

static BUILT: OnceCell<Built> = OnceCell::const_new();

/// What the script made of every language that is to be had here.
async fn built() -> &'static Built {
    BUILT.get_or_init(build).await
}

async fn build() -> Built {
    let (tools, languages) = (tools(), languages());
    for language in ALL.iter().filter(|language| !languages.iter().any(|there| there == *language)) {
        e2e::skip(&format!("no plugins in {language}: `cargo xtask languages` says what is missing"));
    }
    let folder = target().join("tmp/every-language");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    if languages.is_empty() {
        return Built { folder, languages };
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/plugins/every-language.sh");
    let mut command = Command::new("sh");
    command.args(["-c", ". \"$1\" && exec \"$2\" \"$3\"", "sh"]).arg(&tools).arg(&script).arg(&folder);
    command.env("ADIT", adit()).env("XDG_CACHE_HOME", target().join("tmp/cache"));
    command.env_remove("CACHE_DIRECTORY").env_remove("ADIT_LOG").env_remove("ADIT_LOG_FORMAT");
    // Beside the plugins of the product, whose dependencies are built already.
    command.env("CARGO_TARGET_DIR", target().join("plugins-build"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(LONGEST, command.output()).await;
    let output = output.expect("the script ends").unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    for language in &languages {
        assert!(said.contains(&format!("hello from {language}, Ada!")), "{language}: {said}");
    }
    Built { folder, languages }
}

/// What `cargo xtask languages` has written.
fn tools() -> PathBuf {
    target().join("tools/languages/env")
}

/// Those that this machine has the tools for.
fn languages() -> Vec<String> {
    let tools = std::fs::read_to_string(tools()).unwrap_or_default();
    let languages = tools.lines().find_map(|line| line.strip_prefix("export ADIT_LANGUAGES="));
    languages.unwrap_or_default().trim_matches('\'').split_whitespace().map(str::to_owned).collect()
}

/// Has a shell run something with the tools of all languages. Hands back what it said.
async fn with_tools(what: &str, arguments: &[&Path]) -> String {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(". \"$0\" && {what}")).arg(tools());
    command.args(arguments).env("ADIT", adit()).env("XDG_CACHE_HOME", target().join("tmp/cache"));
    command.env_remove("CACHE_DIRECTORY").env_remove("ADIT_LOG").env_remove("ADIT_LOG_FORMAT");
    // Beside the plugins of the product, whose dependencies are built already.
    command.env("CARGO_TARGET_DIR", target().join("plugins-build"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(LONGEST, command.output()).await;
    let output = output.expect("it ends").unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}

impl Built {
    fn component(&self, language: &str) -> PathBuf {
        self.folder.join(format!("hello-{language}/build/plugin.wasm"))
    }

    /// A host that says `hello from LANGUAGE` in each of these, by one rule.
    async fn product(&self, origin: &Origin, languages: &[&str]) -> Product {
        let mut host = HostDocument::new();
        for language in languages {
            let config = format!("[plugin.config]\ntext = \"hello from {language}\"");
            host = host.plugin(language, &self.component(language), &config);
        }
        let rule = format!("service = \"{}\"\nplugins = {languages:?}", origin.service());
        Product::start(EdgeDocument::new(&["west"], 1), host.rule(&rule)).await
    }
}

#[tokio::test]
async fn every_language_is_begun_built_tested_and_served() {
    built().await;
}

#[tokio::test]
async fn typescript_is_begun_built_and_tested_like_javascript() {
    if !built().await.languages.iter().any(|language| language == "js") {
        return;
    }
    let folder = target().join("tmp/typescript");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let what = "\"$ADIT\" plugin new --lang ts --in \"$1\" hello && \"$ADIT\" plugin build \"$1/hello\" && \"$ADIT\" \
                plugin test \"$1/hello\"";
    let said = with_tools(what, &[&folder]).await;
    assert!(said.contains("0 failed"), "{said}");
}

/// The languages in which a kind of plugin can be begun.
const KINDS: [(&str, &[&str]); 4] = [
    ("service", &["rust"]),
    ("middleware", &["rust"]),
    ("ticker", &["rust", "js", "python"]),
    ("access-log", &["rust", "js", "python"]),
];

#[tokio::test]
async fn every_kind_of_plugin_is_begun_built_and_tested() {
    let built = built().await;
    let folder = target().join("tmp/every-kind");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (kind, languages) in KINDS {
        for language in
            languages.iter().filter(|language| built.languages.iter().any(|there| there == *language))
        {
            let project = format!("\"$1/my-{kind}-{language}\"");
            let what = format!(
                "\"$ADIT\" plugin new --lang {language} --kind {kind} --in \"$1\" my-{kind}-{language} && \
                 \"$ADIT\" plugin build {project} && \"$ADIT\" plugin test {project}"
            );
            let said = with_tools(&what, &[&folder]).await;
            assert!(said.contains(" 0 failed"), "{kind} in {language}: {said}");
        }
    }
}

/// It was a component, and a trap at the first request.
#[tokio::test]
async fn a_function_that_javascript_does_not_export_is_named_when_it_is_built() {
    if !built().await.languages.iter().any(|language| language == "js") {
        return;
    }
    let folder = target().join("tmp/misnamed");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    with_tools("\"$ADIT\" plugin new --lang js --in \"$1\" misnamed", &[&folder]).await;
    let source = folder.join("misnamed/plugin.js");
    let text = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, text.replace("onResponse", "onRespons")).unwrap();
    let said = with_tools("! \"$ADIT\" plugin build \"$1/misnamed\" 2>&1", &[&folder]).await;
    assert!(said.contains("responseFilter.onResponse") && !said.contains("requestFilter"), "{said}");
}

/// The same guard, which compares with a secret that it does not see, as each of these would write it.
#[tokio::test]
async fn a_body_is_guarded_by_a_signature_in_three_languages() {
    in_three_languages("body-signature", 3).await;
}

#[tokio::test]
async fn a_list_that_is_fetched_keeps_visitors_out_in_three_languages() {
    in_three_languages("block-list", 3).await;
}

#[tokio::test]
async fn another_service_is_asked_about_each_request_in_three_languages() {
    in_three_languages("forward-auth", 5).await;
}

/// A tag may be cut anywhere, and nobody waits for the end of a page; two of them keep no more of it than such a tag.
#[tokio::test]
async fn links_of_pages_are_rewritten_as_they_pass_by_in_three_languages() {
    let components = in_three_languages("html-rewrite", 4).await;
    for protocol in ["quic", "http2"] {
        let origin = Origin::start();
        let mut host = HostDocument::new().over(protocol);
        for (language, component) in &components {
            let config =
                "[plugin.config]\nfrom = \"https://old.example.com\"\nto = \"https://new.example.com/b\"";
            let rule = format!(
                "path = \"^/{language}\"\nservice = \"{}\"\nplugins = [\"{language}\"]",
                origin.service()
            );
            host = host.plugin(language, component, config).rule(&rule);
        }
        let host = host.otherwise("http_status:404");
        let site = Site::new().giving_back_at_once();
        let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
        for (language, _) in &components {
            a_cut_tag_is_rewritten(&product, &origin, language).await;
            // What an interpreter takes of its own it has taken then.
            a_long_page_is_rewritten(&product, &origin, language).await;
            if *language == "python" {
                // Its runtime keeps what it gives: docs/plugins/python.md.
                continue;
            }
            let watch = product.host.process.watch_memory();
            a_long_page_is_rewritten(&product, &origin, language).await;
            let grown = watch.growth() / 1024;
            assert!(grown < 8 * 1024, "{language} over {protocol}: the host grew by {grown} KiB");
        }
    }
}

/// A page that the origin is asked for here, by a visitor that has its head.
async fn page(product: &Product, origin: &Origin, language: &str) -> (Watched, Connection, Incoming) {
    let path = format!("/{language}");
    let mut watched = origin.watch(&path);
    let connection = product.visitor(Speaks::Http1).connect().await;
    let directed = async {
        watched.arrived().await;
        watched.answer(Response::builder().header("content-type", "text/html").body(()).unwrap());
    };
    let (response, ()) = tokio::join!(connection.send(bare(to("GET", &path))), directed);
    (watched, connection, response.into_body())
}

async fn a_cut_tag_is_rewritten(product: &Product, origin: &Origin, language: &str) {
    let (watched, _connection, mut body) = page(product, origin, language).await;
    for (said, arrives) in [
        ("<p>old <a href=\"https://old.exam", "<p>old "),
        // The next does not exist before what can go on of this one has arrived.
        (
            "ple.com/x\">here</a> and https://old.example",
            "<a href=\"https://new.example.com/b/x\">here</a> and https://old.example",
        ),
        (".com<br", ".com"),
    ] {
        watched.say(said);
        let mut arrived = Vec::new();
        while arrived.len() < arrives.len() {
            let frame = within("a piece", body.frame()).await.expect("the page goes on").unwrap();
            arrived.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(String::from_utf8_lossy(&arrived), arrives, "{language}");
    }
    watched.end();
    let rest = within("the end", body.collect()).await.unwrap().to_bytes();
    assert_eq!(rest, "<br", "{language}");
}

async fn a_long_page_is_rewritten(product: &Product, origin: &Origin, language: &str) {
    let (watched, _connection, mut body) = page(product, origin, language).await;
    let line = "<p><a class=\"x\" href=\"https://old.example.com/page\">https://old.example.com</a></p>\n";
    let page = line.repeat(LONG_PAGE / line.len());
    for piece in page.as_bytes().chunks(61_003) {
        watched.say(Bytes::copy_from_slice(piece));
    }
    watched.end();
    let mut arrived = Vec::new();
    while let Some(frame) = within("a piece of the page", body.frame()).await {
        arrived.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    let changed = page.replace("\"https://old.example.com", "\"https://new.example.com/b");
    assert!(arrived == changed.as_bytes(), "{language}: {} of {} bytes", arrived.len(), changed.len());
}

/// Longer than what a host may grow by while it passes.
const LONG_PAGE: usize = 12 * 1024 * 1024;

/// The example builds in each of these that is here, is short, and all cases of its tests hold. Hands back the components.
async fn in_three_languages(name: &str, cases: usize) -> Vec<(&'static str, PathBuf)> {
    let built = built().await;
    let mut components = Vec::new();
    let folder = target().join("tmp").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (language, file) in SOURCES {
        if !built.languages.iter().any(|there| there == language) {
            continue;
        }
        let lines = example(name, language, file, &folder).await;
        assert!(lines < 60, "{name} in {language}: {lines} lines");
        let project = folder.join(language);
        let said =
            with_tools("\"$ADIT\" plugin build \"$1\" && \"$ADIT\" plugin test \"$1\"", &[&project]).await;
        assert!(said.contains(&format!("{cases} passed, 0 failed")), "{name} in {language}: {said}");
        components.push((language, project.join("build/plugin.wasm")));
    }
    components
}

/// Makes a project of an example, as its page says, in a folder of the language's name. How many lines its source has.
async fn example(name: &str, language: &str, file: &str, folder: &Path) -> usize {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/plugins").join(name);
    let text = std::fs::read_to_string(example.join(language).join(file)).unwrap();
    with_tools(&format!("\"$ADIT\" plugin new --lang {language} --in \"$1\" {name}-{language}"), &[folder])
        .await;
    let project = folder.join(language);
    std::fs::rename(folder.join(format!("{name}-{language}")), &project).unwrap();
    std::fs::write(project.join(file), &text).unwrap();
    for shared in ["tests.toml", "wit/world.wit"] {
        std::fs::copy(example.join(shared), project.join(shared)).unwrap();
    }
    text.lines().count()
}

/// The component of an example in one language, whose tests pass; nothing where the language is not here.
pub(super) async fn example_in(name: &str, language: &str) -> Option<PathBuf> {
    let (_, file) = SOURCES.into_iter().find(|(known, _)| *known == language)?;
    if !languages().iter().any(|there| there == language) {
        e2e::skip(&format!("no plugins in {language}: `cargo xtask languages` says what is missing"));
        return None;
    }
    let folder = target().join("tmp").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    example(name, language, file, &folder).await;
    let project = folder.join(language);
    let said = with_tools("\"$ADIT\" plugin build \"$1\" && \"$ADIT\" plugin test \"$1\"", &[&project]).await;
    assert!(said.contains(" 0 failed"), "{name} in {language}: {said}");
    Some(project.join("build/plugin.wasm"))
}

#[tokio::test]
async fn filters_in_several_languages_stand_in_one_chain() {
    let built = built().await;
    let languages: Vec<&str> = built.languages.iter().map(String::as_str).collect();
    if languages.len() < 2 {
        return;
    }
    let origin = Origin::start();
    let product = built.product(&origin, &languages).await;
    let answer = product.get("/echo").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = answer.text();
    for language in &languages {
        let header = format!("x-hello-{language}");
        let text = format!("hello from {language}");
        assert_eq!(answer.header(&header), text, "on the way back");
        assert!(seen.contains(&text), "the origin saw {seen}");
    }
    // The first of them answers, and the others do not see that it does.
    let answer = product.get("/hello").await;
    assert_eq!(answer.text(), format!("hello from {}, world!\n", languages[0]));
    assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("x-hello-")));
}

/// A collector of garbage runs now and then, and must not do so where a guest may not call out.
#[tokio::test]
async fn a_language_with_a_collector_serves_thousands_of_requests_from_one_instance() {
    let built = built().await;
    let collected: Vec<&str> = built
        .languages
        .iter()
        .map(String::as_str)
        .filter(|name| ["js", "python", "go"].contains(name))
        .collect();
    if collected.is_empty() {
        return;
    }
    let origin = Origin::start();
    let product = built.product(&origin, &collected).await;
    let visitor = product.visitor(Speaks::Http1);
    let long = "n".repeat(8000);
    for number in 0..1500 {
        let answer = visitor.send(bare(to("GET", "/echo/x").header("x-name", &long))).await;
        assert_eq!(answer.status, 200, "request {number}: {}", answer.text());
    }
}
