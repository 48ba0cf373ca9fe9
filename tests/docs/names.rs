//! Every key of a configuration and every path of an API is on its page, and every one on a page exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, GenericArgument, Item, ItemStruct, Lit, Pat, PathArguments, Type};

use crate::limits::root;

const CONFIGURATION: &str = "docs/configuration.md";
/// What the last line of a page begins with.
const KEPT: &str = "Kept by:";
/// By a test of the command line, as it says itself.
const MADE: &str = "docs/commands.md";

#[test]
fn every_key_of_host_and_edge_is_on_the_page_of_configuration_and_no_other() {
    let (host, edge) = written();
    let mut wrong = Vec::new();
    for (whose, read, said) in [
        ("the host", keys("rules/src/document.rs"), host),
        ("the edge", keys("edge/src/settings/document.rs"), edge),
    ] {
        wrong.extend(
            read.difference(&said).map(|key| format!("{CONFIGURATION} does not say what {whose}'s {key} is")),
        );
        wrong.extend(said.difference(&read).map(|key| format!("{CONFIGURATION}: {whose} reads no {key}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn limits_name_keys_that_there_are() {
    let all: BTreeSet<String> =
        keys("rules/src/document.rs").into_iter().chain(keys("edge/src/settings/document.rs")).collect();
    let page = text("docs/limits.md");
    let mut wrong = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        for span in spans(row.split('|').nth(3).unwrap_or_default()) {
            let key = key(&span, "").0;
            let is_known = |known: &String| *known == key || known.ends_with(&format!(".{key}"));
            if !all.iter().any(is_known) {
                wrong.push(format!("docs/limits.md: nothing reads {span}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_key_of_a_config_yml_and_of_a_test_is_on_a_page() {
    let mut wrong = Vec::new();
    let page: BTreeSet<String> = words(&text("docs/differences.md"));
    let lists = lists("cli/src/tunnel/legacy/keys.rs");
    for list in ["RULE", "ORIGIN", "ACCESS", "TOP"] {
        for key in &lists[list] {
            if !page.contains(key) {
                wrong.push(format!("docs/differences.md does not say what becomes of {key}"));
            }
        }
    }
    let page = text("docs/plugins/testing.md");
    let said = words(&page);
    let examples: BTreeSet<&str> =
        page.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').collect();
    for key in keys("cli/src/plugin/cases.rs") {
        let own = key.rsplit('.').next().unwrap_or_default();
        if !said.contains(own) && !examples.contains(own) {
            wrong.push(format!("docs/plugins/testing.md does not say what {key} is"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_path_of_an_api_is_on_its_page_and_every_one_on_a_page_is_served() {
    let mut wrong = Vec::new();
    let host = parts(&["host/src/admin", "host/src/admin.rs"]);
    let mut edge = parts(&["edge/src/admin", "edge/src/admin.rs"]);
    if !text("docs/edge-admin.md").contains("/metrics") {
        // Its guard knows the path of both ends; the edge answers 404.
        edge.remove("metrics");
    }
    let openapi: serde_json::Value =
        serde_json::from_str(&text("edge/src/api/openapi.json")).expect("the API's document is JSON");
    let paths = openapi["paths"].as_object().expect("it has paths");
    let api: BTreeSet<String> = paths
        .keys()
        .flat_map(|path| path.split('/'))
        .filter(|part| !part.is_empty() && !part.starts_with('{'))
        .map(str::to_owned)
        .collect();
    for (page, served) in [(CONFIGURATION, host), ("docs/edge-admin.md", edge), ("docs/edge-api.md", api)] {
        let said = text(page);
        let said_parts: BTreeSet<String> = spans(&said).iter().flat_map(|span| path_parts(span)).collect();
        for part in served.difference(&said_parts) {
            wrong.push(format!("{page} does not say what /{part} is"));
        }
        // Only tables whose lines begin with requests are about this API alone.
        for line in said.lines().filter(|line| line.starts_with("| `")) {
            let first = line.split('|').nth(1).unwrap_or_default();
            let is_request =
                ["`GET", "`PUT", "`POST", "`PATCH", "`DELETE"].iter().any(|word| first.contains(word));
            let named: BTreeSet<String> = spans(first).iter().flat_map(|span| path_parts(span)).collect();
            if is_request {
                wrong.extend(
                    named.difference(&served).map(|part| format!("{page}: nothing serves /{part}: {first}")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_map_of_pages_has_all_of_them_and_tests_that_there_are() {
    let map = text("docs/README.md");
    let mut wrong = Vec::new();
    for folder in ["docs", "docs/plugins"] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder of pages").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!(
                "{}{name}",
                folder.trim_start_matches("docs").trim_start_matches('/').replace("plugins", "plugins/")
            );
            if name.ends_with(".md") && path != "README.md" && !map.contains(&format!("]({path})")) {
                wrong.push(format!("docs/README.md has no line for {path}"));
            }
        }
    }
    for span in spans(&map).iter().filter(|span| span.contains('/') && !span.contains(' ')) {
        if !root().join(span).exists() {
            wrong.push(format!("docs/README.md: there is no {span}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_page_says_at_its_end_what_keeps_it_as_the_map_does() {
    let map = text("docs/README.md");
    let (mut pages, mut wrong) = (0, Vec::new());
    for row in map.lines().filter(|line| line.starts_with("| [")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let kept = format!("{KEPT} {}", cells.last().expect("a cell").trim_end_matches('|').trim());
        let links = cells[0].match_indices("](").filter_map(|(at, _)| cells[0][at + 2..].split(')').next());
        for page in links.map(|link| format!("docs/{link}")).filter(|page| page != MADE) {
            pages += 1;
            let said = text(&page);
            if said.trim_end().lines().last() == Some(&kept) {
                continue;
            }
            if std::env::var_os("ADIT_WRITE").is_some() {
                let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with(KEPT)).collect();
                let said = format!("{}\n\n{kept}\n", lines.join("\n").trim_end());
                fs::write(root().join(&page), said).expect("a page can be written");
            } else {
                wrong.push(format!("{page} does not end with: {kept} (ADIT_WRITE=1 writes it)"));
            }
        }
    }
    assert!(pages > 20, "{pages} pages");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What stands between backticks.
fn spans(text: &str) -> Vec<String> {
    let lines = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    lines.map(str::to_owned).collect()
}

/// Names in spans.
fn words(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let spans = spans(text);
    spans.iter().flat_map(|span| span.split(|letter| !is_part(letter))).map(str::to_owned).collect()
}

/// Literal parts of a path in a span: `GET /tunnels/ID/config` has two.
fn path_parts(span: &str) -> Vec<String> {
    let Some(path) =
        span.split_whitespace().map(|word| word.trim_start_matches('…')).find(|word| word.starts_with('/'))
    else {
        return Vec::new();
    };
    let path = path.split(['?', '[']).next().unwrap_or_default();
    let is_name = |part: &&str| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
        part.starts_with(|letter: char| letter.is_ascii_lowercase()) && part.bytes().all(fits)
    };
    path.split('/').filter(is_name).map(str::to_owned).collect()
}

/// Literal parts of the paths that these sources compare requests with.
fn parts(of: &[&str]) -> BTreeSet<String> {
    #[derive(Default)]
    struct Reader(BTreeSet<String>);
    impl Reader {
        fn take(&mut self, text: &str) {
            if text.starts_with('/') && !text.starts_with("/proc") && !text.contains(' ') {
                self.0.extend(path_parts(text));
            }
        }

        /// In a slice of parts each text is one.
        fn slice(&mut self, pattern: &Pat) {
            match pattern {
                Pat::Lit(literal) => {
                    if let Lit::Str(text) = &literal.lit {
                        self.0.insert(text.value());
                    }
                }
                Pat::Or(either) => either.cases.iter().for_each(|case| self.slice(case)),
                Pat::Paren(inner) => self.slice(&inner.pat),
                Pat::Ident(named) => {
                    if let Some((_, inner)) = &named.subpat {
                        self.slice(inner);
                    }
                }
                _ => {}
            }
        }
    }
    impl<'ast> Visit<'ast> for Reader {
        fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
            if item.ident != "tests" {
                visit::visit_item_mod(self, item);
            }
        }

        fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
            self.take(&literal.value());
        }

        fn visit_pat_slice(&mut self, slice: &'ast syn::PatSlice) {
            slice.elems.iter().for_each(|part| self.slice(part));
        }
    }
    fn files(path: &Path, all: &mut Vec<String>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).expect("a folder").flatten() {
                files(&entry.path(), all);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            all.push(fs::read_to_string(path).expect("a source file"));
        }
    }
    let mut texts = Vec::new();
    of.iter().for_each(|path| files(&root().join(path), &mut texts));
    assert!(!texts.is_empty(), "{of:?} have moved");
    let mut reader = Reader::default();
    for text in texts {
        reader.visit_file(&syn::parse_file(&text).expect("a source file is Rust"));
    }
    reader.0
}

/// `[&str]` constants of a file.
fn lists(file: &str) -> BTreeMap<String, Vec<String>> {
    let parsed = syn::parse_file(&text(file)).expect("a source file is Rust");
    let constants = parsed.items.iter().filter_map(|item| match item {
        Item::Const(constant) => Some(constant),
        _ => None,
    });
    constants
        .map(|constant| {
            struct Texts(Vec<String>);
            impl<'ast> Visit<'ast> for Texts {
                fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
                    self.0.push(literal.value());
                }
            }
            let mut texts = Texts(Vec::new());
            texts.visit_expr(&constant.expr);
            (constant.ident.to_string(), texts.0)
        })
        .collect()
}

/// Keys of the host and of the edge, as the page has them.
fn written() -> (BTreeSet<String>, BTreeSet<String>) {
    let page = text(CONFIGURATION);
    let (mut host, mut edge) = (BTreeSet::new(), BTreeSet::new());
    let (mut is_edge, mut section, mut is_table) = (false, String::new(), false);
    for line in page.lines() {
        if let Some(title) = line.strip_prefix('#') {
            is_edge |= title.contains("The edge:");
            section =
                spans(title).first().map(|span| span.trim_matches(['[', ']']).to_owned()).unwrap_or_default();
            is_table = false;
        } else if line.starts_with("| key |") {
            is_table = true;
        } else if !line.starts_with('|') {
            is_table = false;
        } else if is_table && !line.starts_with("|--") {
            let first = line.split('|').nth(1).unwrap_or_default();
            let mut section = if is_edge { String::new() } else { section.clone() };
            for span in spans(first) {
                let (key, own) = key(&span, &section);
                section = own;
                if is_edge {
                    edge.insert(key)
                } else {
                    host.insert(key)
                };
            }
        }
    }
    (host, edge)
}

/// The whole of a key, and its section: `[[server]] region` is `server.region`.
fn key(span: &str, section: &str) -> (String, String) {
    let (section, own) = match span.split_once(' ') {
        Some((section, own)) => (section.trim_matches(['[', ']']).to_owned(), own),
        None => (section.to_owned(), span),
    };
    let whole = if section.is_empty() { own.to_owned() } else { format!("{section}.{own}") };
    (whole, section)
}

/// Keys of the documents that a file describes, from the structure that no other contains.
fn keys(file: &str) -> BTreeSet<String> {
    let parsed = syn::parse_file(&text(file)).expect("a source file is Rust");
    let structs: BTreeMap<String, &ItemStruct> = parsed
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Struct(item) if is_read(&item.attrs) => Some((item.ident.to_string(), item)),
            _ => None,
        })
        .collect();
    assert!(!structs.is_empty(), "{file} describes no document any more");
    let contained: BTreeSet<String> =
        structs.values().flat_map(|item| item.fields.iter()).flat_map(|field| named(&field.ty)).collect();
    let mut keys = BTreeSet::new();
    for (name, item) in &structs {
        if !contained.contains(name) {
            gather(item, "", &structs, &mut keys);
        }
    }
    keys
}

fn gather(item: &ItemStruct, at: &str, structs: &BTreeMap<String, &ItemStruct>, keys: &mut BTreeSet<String>) {
    for field in &item.fields {
        let Some(ident) = &field.ident else { continue };
        let own = renamed(&field.attrs).unwrap_or_else(|| ident.to_string().replace('_', "-"));
        if own.is_empty() {
            continue;
        }
        let key = if at.is_empty() { own } else { format!("{at}.{own}") };
        match structure(&field.ty, structs) {
            // Steps of cases are cases.
            Some(below) if key.split('.').count() < 6 => gather(structs[&below], &key, structs, keys),
            _ => drop(keys.insert(key)),
        }
    }
}

/// The structure that a field holds, or several of, but for what stands under names of the writer's choice.
fn structure(of: &Type, structs: &BTreeMap<String, &ItemStruct>) -> Option<String> {
    let Type::Path(path) = of else { return None };
    let last = path.path.segments.last()?;
    let name = last.ident.to_string();
    if structs.contains_key(&name) {
        return Some(name);
    }
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    if name.contains("Map") {
        return None;
    }
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(of) => structure(of, structs),
        _ => None,
    })
}

/// Every type that a field names.
fn named(of: &Type) -> Vec<String> {
    struct Names(Vec<String>);
    impl<'ast> Visit<'ast> for Names {
        fn visit_ident(&mut self, name: &'ast syn::Ident) {
            self.0.push(name.to_string());
        }
    }
    let mut names = Names(Vec::new());
    names.visit_type(of);
    names.0
}

fn is_read(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = quoted(attribute);
        text.contains("deny_unknown_fields")
    })
}

/// What serde is told that a field is called; nothing of it if it is part of what is around it.
fn renamed(attributes: &[Attribute]) -> Option<String> {
    let text =
        attributes.iter().map(quoted).find(|text| text.contains("rename = ") || text.contains("flatten"))?;
    match text.split_once("rename = \"") {
        Some((_, rest)) => rest.split('"').next().map(str::to_owned),
        None => Some(String::new()),
    }
}

fn quoted(attribute: &Attribute) -> String {
    match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("serde") => list.tokens.to_string(),
        _ => String::new(),
    }
}
