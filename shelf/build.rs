//! Packs the plugins of the shelf, as far as they were built: `cargo xtask plugins` puts them below `target/`.
//! A program without them is whole in everything else, so what is missing is a warning.

// It is written for a library.
#[allow(dead_code, unreachable_pub)]
#[path = "../rules/src/shelf.rs"]
mod shelf;

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::DeflateEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed={FOLDER}");
    println!("cargo::rerun-if-changed=../rules/src/shelf.rs");
    let folder = env::var_os(FOLDER).map_or_else(|| PathBuf::from("../target/plugins"), PathBuf::from);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no folder")?);
    // Cargo runs this again and again for a file that is not there, hence one that always is: it changes when
    // plugins come or go.
    let list = folder.join(LIST);
    if !list.exists() && fs::create_dir_all(&folder).and_then(|()| fs::write(&list, "")).is_err() {
        println!("cargo::warning=plugins that are built later into {} are not noticed", folder.display());
    }
    println!("cargo::rerun-if-changed={}", list.display());
    let mut packed = String::new();
    let mut missing = Vec::new();
    for name in shelf::NAMES {
        let file = folder.join(name.replace('-', "_")).with_extension("wasm");
        let Ok(component) = fs::read(&file) else {
            missing.push(name);
            continue;
        };
        println!("cargo::rerun-if-changed={}", file.display());
        let place = out.join(name);
        let mut encoder = DeflateEncoder::new(fs::File::create(&place)?, Compression::best());
        encoder.write_all(&component)?;
        encoder.finish()?;
        let length = component.len();
        writeln!(
            packed,
            "    Packed {{ name: {name:?}, length: {length}, deflated: include_bytes!({place:?}) }},"
        )?;
    }
    fs::write(out.join("packed.rs"), format!("&[\n{packed}]\n"))?;
    if !missing.is_empty() {
        println!(
            "cargo::warning=adit is built without {} of the {} plugins that come with it ({}): `shelf:` components \
             of these names will be refused. `cargo xtask plugins` builds them; then build adit again.",
            missing.len(),
            shelf::NAMES.len(),
            missing.join(", ")
        );
    }
    Ok(())
}

/// Names the folder with the components, where it is another.
const FOLDER: &str = "ADIT_SHELF";

/// What `cargo xtask plugins` has put there.
const LIST: &str = "shelf.txt";
