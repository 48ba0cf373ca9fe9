//! Packs a program that was built: `cargo xtask release` calls it. Reads files, runs the program for its manual
//! and its completions, writes a folder, and holds what it has written against the code that verifies plugins.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use adit_oci::signature::{Key, Signed, verify, verify_file};
use adit_oci::signing::SigningKey;
use adit_release::{Parts, checksums, deb, image, sbom};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

// It is written for a library.
#[allow(dead_code, unreachable_pub)]
#[path = "../../rules/src/shelf.rs"]
mod shelf;

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adit-release: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Result<()> {
    let mut given = BTreeMap::new();
    let mut words = arguments.into_iter();
    while let Some(word) = words.next() {
        let name =
            word.strip_prefix("--").with_context(|| format!("{word} is no option\n\n{USAGE}"))?.to_owned();
        ensure!(NAMES.contains(&name.as_str()), "--{name} is no option\n\n{USAGE}");
        given.insert(name, words.next().with_context(|| format!("{word} has no value"))?);
    }
    let value = |name: &str| given.get(name).map(String::as_str);
    let path = |name: &str| {
        value(name).map(PathBuf::from).with_context(|| format!("--{name} is missing\n\n{USAGE}"))
    };
    let (program, tree, output) = (path("program")?, path("tree")?, path("output")?);
    let time = value("time").unwrap_or("0").parse().context("--time: seconds since 1970")?;
    let commit = value("commit").unwrap_or_default().to_owned();
    let key = value("key").map(|path| SigningKey::read(Path::new(path))).transpose()?;
    let roots = path("roots")?;
    let roots = fs::read(&roots).with_context(|| format!("reading {}", roots.display()))?;

    let text = |file: &str| fs::read_to_string(tree.join(file)).with_context(|| format!("reading {file}"));
    let facts: Value = serde_json::from_slice(&asked(&program, &["version", "--verbose", "-o", "json"])?)?;
    let fact = |name: &str| facts[name].as_str().unwrap_or_default();
    let version = fact("version").to_owned();
    let locks = [text("Cargo.lock")?, text("plugins/Cargo.lock")?];
    let target = fact("target");
    let metadata =
        ["Cargo.toml", "plugins/Cargo.toml"].map(|manifest| metadata(&tree.join(manifest), target));
    let [ours, plugins] = metadata;
    let shelf: Vec<&str> =
        facts["shelf"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let missing: Vec<&str> = shelf::NAMES.into_iter().filter(|name| !shelf.contains(name)).collect();
    ensure!(
        missing.is_empty(),
        "the program does not hold the whole shelf: {} are missing",
        missing.join(", ")
    );
    let inside: Vec<&str> = std::iter::once("adit").chain(shelf).collect();
    let sbom = sbom::write(&version, &commit, &inside, &[&locks[0], &locks[1]], &[ours?, plugins?])?;
    let units = ["adit-edge", "adit-tunnel"]
        .map(|name| Ok((name.to_owned(), text(&format!("packaging/systemd/{name}.service"))?)))
        .into_iter()
        .collect::<Result<_>>()?;
    let parts = Parts {
        architecture: architecture(target)?.to_owned(),
        licence: "Apache-2.0".to_owned(),
        is_static: fact("libc").ends_with("static"),
        manual: manual(&program)?,
        completions: completions(&program)?,
        changelog: text("CHANGELOG.md")?,
        program: fs::read(&program)?,
        level: 9,
        version,
        commit,
        time,
        units,
        sbom,
    };
    let image = image::pack(&parts, &roots, key.as_ref())?;
    let base = format!("adit-{}-linux-{}", parts.version, parts.architecture);
    let mut files = vec![
        (base.clone(), parts.program.clone()),
        (format!("{base}.oci.tar"), image.archive(time)?),
        (format!("adit_{}_{}.deb", parts.version, parts.architecture), deb::pack(&parts)?),
        (format!("{base}.cdx.json"), parts.sbom.clone()),
    ];
    let sums = checksums(files.iter().map(|(name, content)| (name.as_str(), content.as_slice())));
    files.push(("SHA256SUMS".to_owned(), sums.clone().into_bytes()));
    if let Some(key) = &key {
        let signature = key.sign(sums.as_bytes())?;
        files.push(("SHA256SUMS.sig".to_owned(), signature.into_bytes()));
        files.push(("adit.pub".to_owned(), key.public_pem().into_bytes()));
    }
    fs::create_dir_all(&output).with_context(|| format!("making {}", output.display()))?;
    for (name, content) in &files {
        fs::write(output.join(name), content).with_context(|| format!("writing {name}"))?;
        println!("{:>9} KiB  {name}", content.len().div_ceil(1024));
    }
    println!("image {}", image.digest);
    match key {
        Some(key) => check(&output, &image, &key),
        None => {
            println!("not signed: --key names a private key (PKCS #8 in PEM, ECDSA P-256)");
            Ok(())
        }
    }
}

/// What was written is what the code takes that verifies plugins.
fn check(output: &Path, image: &image::Layout, key: &SigningKey) -> Result<()> {
    let keys = [Key::read(&output.join("adit.pub"))?];
    let (sums, signature) =
        (fs::read(output.join("SHA256SUMS"))?, fs::read_to_string(output.join("SHA256SUMS.sig"))?);
    ensure!(verify_file(&sums, &signature, &keys), "the signature of SHA256SUMS is none");
    let signed = key.sign_manifest(image.digest, "adit")?;
    ensure!(
        verify(image.digest, &[Signed::new(&signed.payload, signed.signature)], &keys),
        "the signature of the image is none"
    );
    println!("signed, and verified by the code that verifies plugins");
    Ok(())
}

fn asked(program: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("starting {}", program.display()))?;
    ensure!(output.status.success(), "{} {}: {}", program.display(), arguments.join(" "), output.status);
    Ok(output.stdout)
}

fn metadata(manifest: &Path, target: &str) -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--locked", "--format-version", "1", "--manifest-path"]).arg(manifest);
    // The plugins are for another target, and know no other dependencies there.
    if !manifest.ends_with("plugins/Cargo.toml") {
        command.args(["--filter-platform", target]);
    }
    let output = command.output().context("starting cargo")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn manual(program: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let folder = std::env::temp_dir().join(format!("adit-release-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    asked(program, &["man", folder.to_str().context("the temporary folder is not UTF-8")?])?;
    let mut pages = BTreeMap::new();
    for page in fs::read_dir(&folder)? {
        let page = page?;
        pages.insert(page.file_name().to_string_lossy().into_owned(), fs::read(page.path())?);
    }
    fs::remove_dir_all(&folder)?;
    Ok(pages)
}

fn completions(program: &Path) -> Result<BTreeMap<String, String>> {
    let shells = [
        ("bash", "bash-completion/completions/adit"),
        ("zsh", "zsh/vendor-completions/_adit"),
        ("fish", "fish/vendor_completions.d/adit.fish"),
    ];
    let one = |(shell, path): (&str, &str)| {
        Ok((path.to_owned(), String::from_utf8(asked(program, &["completions", shell])?)?))
    };
    shells.into_iter().map(one).collect()
}

fn architecture(target: &str) -> Result<&'static str> {
    match target.split('-').next() {
        Some("x86_64") => Ok("amd64"),
        Some("aarch64") => Ok("arm64"),
        _ => bail!("no package is made for {target}"),
    }
}

const NAMES: [&str; 7] = ["program", "tree", "output", "roots", "time", "commit", "key"];

const USAGE: &str = "\
Usage: adit-release --program FILE --tree FOLDER --output FOLDER --roots FILE [--time SECONDS] [--commit ID] [--key FILE]";
