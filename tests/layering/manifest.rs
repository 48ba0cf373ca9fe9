//! What a crate depends on, read from its manifest: every table of it, and packages under other names too.
//! Knows Cargo's format; does not know which crate may depend on which.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// A crate of the workspace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manifest {
    /// As code names it.
    pub(crate) ident: String,
    pub(crate) package: String,
    pub(crate) dependencies: Vec<Dependency>,
    /// Files that targets begin with, where the manifest says so.
    pub(crate) roots: Vec<Root>,
    pub(crate) finds_tests: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub(crate) path: String,
    pub(crate) is_test: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    /// As code names it.
    pub(crate) ident: String,
    pub(crate) package: String,
    /// Only tests, benches and examples see it.
    pub(crate) is_dev: bool,
    /// The table that it stands in.
    pub(crate) table: String,
}

/// What `[workspace.dependencies]` says: the name that members use, and the package.
pub(crate) fn workspace(text: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let manifest: Table = text.parse().expect("the workspace's manifest is TOML");
    let workspace = manifest["workspace"].as_table().expect("there is a workspace");
    let members = workspace.get("members").and_then(Value::as_array);
    // A package may be a workspace of its own.
    let members = members.map_or_else(
        || vec![".".to_owned()],
        |members| members.iter().filter_map(|member| member.as_str().map(str::to_owned)).collect(),
    );
    let shared = workspace.get("dependencies").and_then(Value::as_table).cloned().unwrap_or_default();
    (members, shared.iter().map(|(name, value)| (name.clone(), package(name, value))).collect())
}

pub(crate) fn read(text: &str, shared: &BTreeMap<String, String>) -> Manifest {
    let manifest: Table = text.parse().expect("a manifest is TOML");
    let package_name = manifest["package"]["name"].as_str().expect("a package has a name").to_owned();
    let library = manifest.get("lib").and_then(|library| library.get("name")).and_then(Value::as_str);
    let mut read = Manifest {
        ident: library.unwrap_or(&package_name).replace('-', "_"),
        package: package_name.clone(),
        finds_tests: manifest["package"].get("autotests").and_then(Value::as_bool) != Some(false),
        ..Manifest::default()
    };
    add_tables(&manifest, "", shared, &mut read.dependencies);
    let targets = manifest.get("target").and_then(Value::as_table).cloned().unwrap_or_default();
    for (condition, tables) in &targets {
        let tables = tables.as_table().expect("a target has tables");
        add_tables(tables, &format!("target.'{condition}'."), shared, &mut read.dependencies);
    }
    for (kind, is_test) in [("bin", false), ("bench", true), ("test", true), ("example", true)] {
        for target in manifest.get(kind).and_then(Value::as_array).into_iter().flatten() {
            if let Some(path) = target.get("path").and_then(Value::as_str) {
                read.roots.push(Root { path: path.to_owned(), is_test });
            }
        }
    }
    if let Some(path) = manifest.get("lib").and_then(|library| library.get("path")).and_then(Value::as_str) {
        read.roots.push(Root { path: path.to_owned(), is_test: false });
    }
    read
}

fn add_tables(manifest: &Table, around: &str, shared: &BTreeMap<String, String>, into: &mut Vec<Dependency>) {
    for (table, is_dev) in [
        ("dependencies", false),
        ("build-dependencies", false),
        ("build_dependencies", false),
        ("dev-dependencies", true),
        ("dev_dependencies", true),
    ] {
        for (name, value) in manifest.get(table).and_then(Value::as_table).into_iter().flatten() {
            let is_shared = value.get("workspace").and_then(Value::as_bool) == Some(true);
            let package = match shared.get(name) {
                Some(package) if is_shared => package.clone(),
                Some(_) | None => package(name, value),
            };
            let ident = name.replace('-', "_");
            into.push(Dependency { ident, package, is_dev, table: format!("[{around}{table}]") });
        }
    }
}

/// A package may have another name where it is depended on.
fn package(name: &str, value: &Value) -> String {
    value.get("package").and_then(Value::as_str).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_and_every_name_is_read() {
        let (members, shared) = workspace(
            "[workspace]\nmembers = [\"a\"]\n[workspace.dependencies]\nshort = { package = \"tokio\", version = \"1\" }",
        );
        assert_eq!(members, ["a"]);
        let manifest = read(
            r#"
                [package]
                name = "adit-a"
                [dependencies]
                one = "1"
                short.workspace = true
                [dependencies.two]
                package = "adit-b"
                path = "../b"
                [build-dependencies]
                three = "1"
                [dev-dependencies]
                four = "1"
                [target.'cfg(unix)'.dependencies]
                five = "1"
                [target.'cfg(unix)'.dev-dependencies]
                six-seven = "1"
            "#,
            &shared,
        );
        let found: Vec<_> = manifest
            .dependencies
            .iter()
            .map(|found| (found.ident.as_str(), found.package.as_str(), found.is_dev))
            .collect();
        let wanted = [
            ("one", "one", false),
            ("short", "tokio", false),
            ("two", "adit-b", false),
            ("three", "three", false),
            ("four", "four", true),
            ("five", "five", false),
            ("six_seven", "six-seven", true),
        ];
        assert_eq!(manifest.ident, "adit_a");
        assert_eq!(found.len(), wanted.len());
        assert!(wanted.iter().all(|one| found.contains(one)), "{found:?}");
    }
}
