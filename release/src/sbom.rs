//! The bill of materials in CycloneDX 1.6: every crate of a lock, with its checksum, its licence where cargo
//! knows it, and whether it is in the program. Pure.

use std::collections::{BTreeMap, BTreeSet};

use adit_oci::digest::Digest;
use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Of the program `adit` in this version. `locks` are texts of `Cargo.lock`; `metadata` is what `cargo metadata`
/// says of the same workspaces, in JSON; `roots` are the packages of ours that are inside.
///
/// # Errors
/// One of them cannot be read.
pub fn write(
    version: &str,
    commit: &str,
    roots: &[&str],
    locks: &[&str],
    metadata: &[Value],
) -> Result<Vec<u8>> {
    let mut licences = BTreeMap::new();
    let mut inside = BTreeSet::new();
    for told in metadata {
        let packages = told["packages"].as_array().context("cargo metadata names no packages")?;
        let key = |package: &Value| {
            let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
            (text("name"), text("version"))
        };
        for package in packages {
            if let Some(licence) = package["license"].as_str() {
                licences.insert(key(package), licence.replace('/', " OR "));
            }
        }
        let by_id: BTreeMap<&str, _> =
            packages.iter().filter_map(|package| Some((package["id"].as_str()?, key(package)))).collect();
        inside.extend(reached(told, roots).into_iter().filter_map(|id| by_id.get(id).cloned()));
    }
    let mut components = BTreeMap::new();
    for lock in locks {
        let lock: toml::Table = lock.parse().context("reading Cargo.lock")?;
        for package in lock["package"].as_array().context("Cargo.lock names no packages")? {
            let text = |field: &str| package.get(field).and_then(toml::Value::as_str);
            let (name, number) = (text("name").unwrap_or_default(), text("version").unwrap_or_default());
            let purl = format!("pkg:cargo/{name}@{number}");
            let key = (name.to_owned(), number.to_owned());
            let mut component = json!({
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": number,
                "scope": if inside.contains(&key) { "required" } else { "excluded" },
            });
            if text("source").is_some() {
                component["purl"] = purl.clone().into();
            }
            if let Some(checksum) = text("checksum") {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
            }
            if let Some(licence) = licences.get(&key) {
                component["licenses"] = json!([{ "expression": licence }]);
            }
            components.insert(purl, component);
        }
    }
    let components: Vec<Value> = components.into_values().collect();
    let seed = Digest::of(json!([version, commit, components]).to_string().as_bytes()).hex();
    let serial =
        format!("{}-{}-4{}-8{}-{}", &seed[..8], &seed[8..12], &seed[13..16], &seed[17..20], &seed[20..32]);
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{serial}"),
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "adit",
                "name": "adit",
                "version": version,
                "properties": [{ "name": "commit", "value": commit }],
            },
        },
        "components": components,
    });
    Ok(serde_json::to_vec_pretty(&bom)?)
}

/// What these packages are linked with: no dependency that only builds or tests them.
fn reached<'a>(told: &'a Value, roots: &[&str]) -> BTreeSet<&'a str> {
    let nodes = told["resolve"]["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let by_id: BTreeMap<&str, &Value> =
        nodes.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let packages = told["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_root = |package: &&Value| package["name"].as_str().is_some_and(|name| roots.contains(&name));
    let members = packages.iter().filter(|package| package["source"].is_null()).filter(is_root);
    // They run while something is compiled, and nothing of them is in the program.
    let is_macro = |package: &&Value| {
        let targets = package["targets"].as_array().into_iter().flatten();
        let mut kinds = targets.filter_map(|target| target["kind"].as_array()).flatten();
        kinds.any(|kind| kind == "proc-macro")
    };
    let macros: BTreeSet<&str> =
        packages.iter().filter(is_macro).filter_map(|package| package["id"].as_str()).collect();
    let mut next: Vec<&str> = members.filter_map(|package| package["id"].as_str()).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = next.pop() {
        if macros.contains(id) || !found.insert(id) {
            continue;
        }
        let dependencies = by_id.get(id).and_then(|node| node["deps"].as_array()).into_iter().flatten();
        let linked = dependencies.filter(|dependency| {
            dependency["dep_kinds"]
                .as_array()
                .is_none_or(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        });
        next.extend(linked.filter_map(|dependency| dependency["pkg"].as_str()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_of_a_lock_is_listed_and_what_only_builds_or_tests_is_not_required() {
        let lock = "[[package]]\nname = \"adit\"\nversion = \"1.0.0\"\n\
                    [[package]]\nname = \"linked\"\nversion = \"2.0.0\"\nsource = \"registry+a\"\nchecksum = \"ab\"\n\
                    [[package]]\nname = \"builds\"\nversion = \"3.0.0\"\nsource = \"registry+a\"\nchecksum = \"cd\"\n\
                    [[package]]\nname = \"derives\"\nversion = \"4.0.0\"\nsource = \"registry+a\"\nchecksum = \"ef\"\n";
        let dependency = |id: &str, kind: Value| json!({ "pkg": id, "dep_kinds": [{ "kind": kind }] });
        let package = |name: &str, version: &str, source: Value| json!({ "id": name, "name": name, "version": version, "source": source, "license": "MIT/Apache-2.0" });
        let told = json!({
            "packages": [
                package("adit", "1.0.0", Value::Null),
                package("linked", "2.0.0", "registry".into()),
                package("builds", "3.0.0", "registry".into()),
                json!({ "id": "derives", "name": "derives", "version": "4.0.0", "source": "registry",
                        "targets": [{ "kind": ["proc-macro"] }] }),
            ],
            "resolve": { "nodes": [
                { "id": "adit", "deps": [dependency("linked", Value::Null), dependency("builds", "build".into()), dependency("derives", Value::Null)] },
                { "id": "linked", "deps": [] },
                { "id": "builds", "deps": [] },
                { "id": "derives", "deps": [] },
            ] },
        });
        let bom = write("1.0.0", "abc", &["adit"], &[lock], std::slice::from_ref(&told)).unwrap();
        assert_eq!(bom, write("1.0.0", "abc", &["adit"], &[lock], &[told]).unwrap());
        let bom: Value = serde_json::from_slice(&bom).unwrap();
        let of = |name: &str| {
            let components = bom["components"].as_array().unwrap();
            components.iter().find(|component| component["name"] == name).unwrap().clone()
        };
        assert_eq!(
            (&of("linked")["scope"], &of("builds")["scope"]),
            (&"required".into(), &"excluded".into())
        );
        assert_eq!(of("derives")["scope"], "excluded");
        assert_eq!(of("linked")["hashes"][0]["content"], "ab");
        assert_eq!(of("linked")["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(of("linked")["purl"], "pkg:cargo/linked@2.0.0");
        assert!(of("adit").get("purl").is_none(), "it is in no registry");
        assert_eq!(
            (bom["specVersion"].as_str(), bom["bomFormat"].as_str()),
            (Some("1.6"), Some("CycloneDX"))
        );
    }
}
