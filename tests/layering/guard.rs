//! Holds every manifest and every source file of the workspace against the tables of ARCHITECTURE.md's
//! directions, and says in a sentence what breaks which rule, and where.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::imports::{self, Import, Source};
use crate::manifest::{self, Manifest};
use crate::{CRATES, Crate, IMPURE, KEPT_TO, Module, STATUSES};

/// All texts that the guard looks at, by their paths from the root of the workspace.
#[derive(Clone)]
pub(crate) struct Tree {
    manifests: BTreeMap<String, Manifest>,
    members: Vec<String>,
    shared: BTreeMap<String, String>,
    texts: BTreeMap<String, String>,
    /// What was read of a text as a module of its crate. Reading takes far longer than judging.
    read: HashMap<(String, String), Arc<Source>>,
}

/// A source file in the place that it has in its crate.
struct File {
    path: String,
    module: String,
    source: Arc<Source>,
    is_test: bool,
}

impl Tree {
    pub(crate) fn load(root: &Path) -> Self {
        let text = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace has a manifest");
        let (members, shared) = manifest::workspace(&text);
        let mut tree = Self {
            manifests: BTreeMap::new(),
            members,
            shared,
            texts: BTreeMap::new(),
            read: HashMap::new(),
        };
        for member in tree.members.clone() {
            let path = format!("{member}/Cargo.toml");
            let text = fs::read_to_string(root.join(&path)).expect("a member has a manifest");
            tree.plant(&path, &text);
            tree.load_folder(root, &member);
        }
        tree
    }

    /// A workspace of its own in `folder`, with the crates of this one known by their names. Its members are judged
    /// alike, by `rule`.
    pub(crate) fn beside(&self, root: &Path, rule: &Crate) -> (Self, Vec<Crate>) {
        let text = fs::read_to_string(root.join(rule.folder).join("Cargo.toml")).expect("it has a manifest");
        let (members, shared) = manifest::workspace(&text);
        let members: Vec<String> = members.iter().map(|member| joined(rule.folder, member)).collect();
        let mut tree = Self {
            manifests: self.manifests.clone(),
            members: members.clone(),
            shared,
            texts: BTreeMap::new(),
            read: HashMap::new(),
        };
        for member in &members {
            let path = format!("{member}/Cargo.toml");
            let text = fs::read_to_string(root.join(&path)).expect("a member has a manifest");
            tree.plant(&path, &text);
            tree.load_folder(root, member);
        }
        let crates = members.into_iter().map(|member| Crate { folder: member.leak(), ..*rule }).collect();
        (tree, crates)
    }

    fn load_folder(&mut self, root: &Path, folder: &str) {
        let path = root.join(folder);
        for entry in fs::read_dir(&path).expect("a folder of the workspace").flatten() {
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            // What has a manifest of its own is a crate of its own.
            if entry.path().is_dir() && !entry.path().join("Cargo.toml").exists() {
                self.load_folder(root, &name);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(entry.path()).expect("a source file is text");
                self.texts.insert(name, text);
            }
        }
    }

    /// Puts a file into the tree, or another in its place.
    pub(crate) fn plant(&mut self, path: &str, text: &str) {
        match path.strip_suffix("/Cargo.toml") {
            Some(member) => {
                self.manifests.insert(member.to_owned(), manifest::read(text, &self.shared));
            }
            None => self.read.retain(|(read, _), _| read != path),
        }
        self.texts.insert(path.to_owned(), text.to_owned());
    }

    /// Makes a folder a member, with this manifest.
    pub(crate) fn plant_member(&mut self, member: &str, manifest: &str) {
        self.members.push(member.to_owned());
        self.plant(&format!("{member}/Cargo.toml"), manifest);
    }

    /// Everything that breaks a rule: the file, the line and the rule.
    pub(crate) fn violations(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.judge_members(&mut wrong);
        for krate in CRATES {
            wrong.append(&mut self.violations_of(krate));
        }
        wrong
    }

    /// The same for one crate.
    pub(crate) fn violations_of(&mut self, krate: &Crate) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.manifests.contains_key(krate.folder) {
            self.judge_manifest(krate, &mut wrong);
            let files = self.files(krate.folder, &mut wrong);
            for file in &files {
                self.judge_file(krate, file, &mut wrong);
            }
            if let Some(modules) = krate.modules {
                judge_modules(krate, modules, &files, &mut wrong);
            }
        }
        wrong
    }

    /// The files of a crate with their modules, without its tests.
    pub(crate) fn modules(&mut self, folder: &str) -> Vec<(String, String)> {
        let files = self.files(folder, &mut Vec::new());
        files.into_iter().filter(|file| !file.is_test).map(|file| (file.path, file.module)).collect()
    }

    /// Adds to a file, or to the manifest of a member.
    pub(crate) fn add(&mut self, path: &str, text: &str) {
        let text = format!("{}\n{text}\n", self.texts[path]);
        self.plant(path, &text);
    }

    /// A file that a target of the crate begins with, one of its tests only where there is nothing else.
    pub(crate) fn root(&mut self, folder: &str) -> String {
        let files = self.files(folder, &mut Vec::new());
        let roots = files.into_iter().filter(|file| file.module.is_empty());
        roots.min_by_key(|file| file.is_test).expect("a crate has a target").path
    }

    pub(crate) fn package(&self, folder: &str) -> String {
        self.manifests[folder].package.clone()
    }

    /// Our packages, and what code calls them.
    pub(crate) fn packages(&self) -> Vec<(String, String)> {
        self.manifests.values().map(|known| (known.package.clone(), known.ident.clone())).collect()
    }

    fn judge_members(&self, wrong: &mut Vec<String>) {
        for member in &self.members {
            if !CRATES.iter().any(|krate| krate.folder == member) {
                wrong.push(format!(
                    "{member}/Cargo.toml: the crate is in no line of CRATES: say in tests/layering.rs what it may depend on"
                ));
            }
        }
        for krate in CRATES.iter().filter(|krate| !self.members.iter().any(|member| member == krate.folder)) {
            wrong.push(format!("CRATES in tests/layering.rs: `{}` is no member", krate.folder));
        }
    }

    /// The package of one of our crates.
    fn ours(&self, package: &str) -> Option<&Manifest> {
        self.manifests.values().find(|manifest| manifest.package == package)
    }

    fn judge_manifest(&self, krate: &Crate, wrong: &mut Vec<String>) {
        let file = format!("{}/Cargo.toml", krate.folder);
        for dependency in &self.manifests[krate.folder].dependencies {
            let (package, table) = (dependency.package.as_str(), &dependency.table);
            let allowed = |package: &&str| *package == dependency.package;
            let is_allowed = krate.knows.iter().any(&allowed)
                || (dependency.is_dev && krate.tests_know.iter().any(allowed));
            if self.ours(package).is_some() && !is_allowed {
                wrong.push(format!(
                    "{file}: {table} has {package}, which CRATES does not allow to {}",
                    krate.folder
                ));
            }
            if dependency.is_dev {
                continue;
            }
            let ident = package.replace('-', "_");
            if krate.is_pure && IMPURE.iter().any(|word| *word == ident) {
                wrong.push(format!("{file}: {table} has {package}, and {} is pure (IMPURE)", krate.folder));
            }
            if let Some((_, homes)) = KEPT_TO.iter().find(|(kept, _)| *kept == ident)
                && !homes.iter().any(|home| home.starts_with(&format!("{}/", krate.folder)))
            {
                wrong.push(format!(
                    "{file}: {table} has {package}, which KEPT_TO keeps to {}",
                    homes.join(", ")
                ));
            }
        }
    }

    /// Every file of a crate in its place, from the roots of its targets on.
    fn files(&mut self, folder: &str, wrong: &mut Vec<String>) -> Vec<File> {
        let manifest = &self.manifests[folder];
        let mut roots: Vec<(String, bool)> =
            manifest.roots.iter().map(|root| (format!("{folder}/{}", root.path), root.is_test)).collect();
        let usual = |path: &str| {
            let rest = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'))?;
            let parts: Vec<&str> = rest.split('/').collect();
            match parts.as_slice() {
                ["build.rs"] => Some(false),
                ["src", "lib.rs" | "main.rs"] | ["src", "bin", _] | ["src", "bin", _, "main.rs"] => {
                    Some(false)
                }
                ["tests" | "benches" | "examples", _] | ["tests" | "benches" | "examples", _, "main.rs"] => {
                    manifest.finds_tests.then_some(true)
                }
                _ => None,
            }
        };
        roots.extend(self.texts.keys().filter_map(|path| Some((path.clone(), usual(path)?))));
        let mut files: Vec<File> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut open: Vec<(String, String, bool, bool)> =
            roots.into_iter().map(|(path, is_test)| (path, String::new(), is_test, true)).collect();
        while let Some((path, module, is_test, is_root)) = open.pop() {
            if !seen.insert((path.clone(), module.clone())) {
                continue;
            }
            let source = match self.read(&path, &module, is_test) {
                Ok(source) => source,
                Err(error) => {
                    wrong.push(format!("{path}: cannot be read: {error}"));
                    continue;
                }
            };
            let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let below = if is_root || name == "mod.rs" {
                above.to_owned()
            } else {
                format!("{above}/{}", name.trim_end_matches(".rs"))
            };
            for child in &source.children {
                let file = match &child.path {
                    Some(path) => joined(above, path),
                    None => {
                        let file = format!("{below}/{}", child.names.join("/"));
                        let [flat, nested] = [format!("{file}.rs"), format!("{file}/mod.rs")];
                        if self.texts.contains_key(&nested) { nested } else { flat }
                    }
                };
                let names = std::iter::once(module.as_str()).chain(child.names.iter().map(String::as_str));
                let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
                open.push((file, names.join("::"), is_test || child.is_test, false));
            }
            files.push(File { path, module, source, is_test });
        }
        let sources = format!("{folder}/src/");
        for path in self.texts.keys().filter(|path| path.starts_with(&sources)) {
            if !files.iter().any(|file| file.path == *path) {
                wrong.push(format!(
                    "{path}: no target of {folder} has this file: name it in a `mod`, or delete it"
                ));
            }
        }
        files
    }

    fn read(&mut self, path: &str, module: &str, is_test: bool) -> Result<Arc<Source>, String> {
        let key = (path.to_owned(), module.to_owned());
        if let Some(source) = self.read.get(&key) {
            return Ok(source.clone());
        }
        let text = self.texts.get(path).ok_or("there is no such file")?;
        let source = imports::read(text, module, is_test)
            .map_err(|error| format!("line {}: {error}", error.span().start().line))?;
        Ok(self.read.entry(key).or_insert(Arc::new(source)).clone())
    }

    /// What holds for every file of a crate, wherever it stands.
    fn judge_file(&self, krate: &Crate, file: &File, wrong: &mut Vec<String>) {
        let manifest = &self.manifests[krate.folder];
        let path = &file.path;
        for import in &file.source.imports {
            let is_test = file.is_test || import.is_test;
            let line = import.line;
            let (first, rest) = import.path.split_once("::").unwrap_or((&import.path, ""));
            // A package may have another name in this crate.
            let known = manifest.dependencies.iter().find(|dependency| dependency.ident == first);
            let package = known.map_or(first, |dependency| dependency.package.as_str());
            let ident = package.replace('-', "_");
            let named = if rest.is_empty() { ident.clone() } else { format!("{ident}::{rest}") };
            let ours = self.manifests.values().find(|manifest| manifest.ident == ident);
            if let Some(ours) = ours.filter(|ours| ours.ident != manifest.ident) {
                let mut allowed = krate.knows.iter().chain(krate.tests_know.iter().filter(|_| is_test));
                if !allowed.any(|known| *known == ours.package) {
                    wrong.push(format!(
                        "{path}:{line}: names {}, and CRATES does not allow {} to {}",
                        import.path, ours.package, krate.folder
                    ));
                }
            }
            if is_test {
                continue;
            }
            if krate.is_pure && path.contains("/src/") && IMPURE.iter().any(|word| is_within(&named, word)) {
                wrong.push(format!("{path}:{line}: names {named}, and {} is pure (IMPURE)", krate.folder));
            }
            for (_, homes) in KEPT_TO.iter().filter(|(kept, _)| is_within(&named, kept)) {
                let is_home =
                    homes.iter().any(|home| path == home || (home.ends_with('/') && path.starts_with(home)));
                if !is_home {
                    wrong.push(format!(
                        "{path}:{line}: names {named}, which KEPT_TO keeps to {}",
                        homes.join(", ")
                    ));
                }
            }
            let built = import.path.rsplit("::").next().unwrap_or_default();
            if let Some((_, homes)) = STATUSES.iter().find(|(folder, _)| path.starts_with(folder))
                && FAILURES.contains(&built)
                && !homes.contains(&path.as_str())
            {
                wrong.push(format!(
                    "{path}:{line}: makes the status {built}, which STATUSES keeps to {}",
                    homes.join(", ")
                ));
            }
        }
    }
}

/// What modules of one crate may know of one another.
fn judge_modules(krate: &Crate, modules: &[Module], files: &[File], wrong: &mut Vec<String>) {
    let table = krate.table;
    let file_of_table = table.to_lowercase();
    let mut seen = BTreeSet::new();
    let sources = format!("{}/src/", krate.folder);
    for file in files.iter().filter(|file| !file.is_test && file.path.starts_with(&sources)) {
        // The root lists, and `app` wires and may know all.
        if ["", "app"].contains(&file.module.as_str()) {
            continue;
        }
        let path = &file.path;
        // The most exact line of the table counts.
        let lines = modules.iter().filter(|(name, ..)| is_within(&file.module, name));
        let Some((name, allowed, forbidden)) = lines.max_by_key(|(name, ..)| name.len()) else {
            wrong.push(format!(
                "{path}: the module `{}` is in no line of {table}: say in tests/layering/{file_of_table}.rs what it may know",
                file.module
            ));
            continue;
        };
        seen.insert(*name);
        for import in file.source.imports.iter().filter(|import| !import.is_test) {
            let Import { path: named, line, is_glob, .. } = import;
            if let Some(word) = forbidden.iter().find(|word| is_within(named, word)) {
                wrong.push(format!("{path}:{line}: names {named}, and {table} forbids {word} to `{name}`"));
            }
            let Some(known) = within_crate(named) else { continue };
            if *is_glob && !is_within(known, name) {
                wrong.push(format!(
                    "{path}:{line}: takes all of {named}, which hides what it knows: name each thing"
                ));
            }
            let is_allowed =
                is_within(known, name) || allowed.iter().any(|allowed| is_within(known, allowed));
            if !is_allowed {
                wrong.push(format!(
                    "{path}:{line}: names {named}, and {table} does not allow that to `{name}`"
                ));
            }
        }
    }
    for (name, ..) in modules.iter().filter(|(name, ..)| !seen.contains(name)) {
        wrong.push(format!(
            "{table} in tests/layering/{file_of_table}.rs: no file of {} is in `{name}`",
            krate.folder
        ));
    }
}

fn within_crate(path: &str) -> Option<&str> {
    if path == "crate" { Some("") } else { path.strip_prefix("crate::") }
}

pub(crate) fn is_within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `#[path]` counted from the folder of its file.
fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Statuses that say that something failed.
const FAILURES: &[&str] =
    &["BAD_GATEWAY", "GATEWAY_TIMEOUT", "INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE", "NOT_FOUND"];
