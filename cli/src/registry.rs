//! `adit plugin push`, `pull` and `update`: components and the registries that they lie in.

use std::path::{Path, PathBuf};

use adit_engine::LARGEST_COMPONENT;
use adit_host::revision::resolve::{self, Mode};
use adit_oci::client::Client;
use adit_oci::digest::Digest;
use adit_oci::reference::Reference;
use adit_oci::signature;
use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;

use crate::Failure;

#[derive(clap::Args)]
pub(crate) struct Push {
    /// The component
    #[arg(value_name = "FILE")]
    component: PathBuf,
    /// Where it goes: oci://REGISTRY/NAME:TAG
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    #[command(flatten)]
    reach: Reach,
}

#[derive(clap::Args)]
pub(crate) struct Pull {
    /// Which one: oci://REGISTRY/NAME:TAG, or a digest behind @
    #[arg(value_name = "REFERENCE", required_unless_present = "config", conflicts_with = "config")]
    reference: Option<Reference>,
    /// Where to write it; NAME.wasm if it is left out
    #[arg(long, short = 'o', value_name = "FILE", conflicts_with = "config")]
    output: Option<PathBuf>,
    /// A public key of which one must have signed it; may be given several times
    #[arg(long = "key", value_name = "FILE", conflicts_with = "config")]
    keys: Vec<PathBuf>,
    /// All that this configuration refers to, into the place where its host looks for it, and into adit.lock
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Lock each tag to what it means now
    #[arg(long, requires = "config")]
    update: bool,
    /// Where that host keeps its generations; goes before `state-dir`
    #[arg(long, value_name = "FOLDER", env = "ADIT_STATE_DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

#[derive(clap::Args)]
pub(crate) struct Update {
    /// The host's configuration (TOML)
    #[arg(value_name = "FILE")]
    config: PathBuf,
    /// Where its host keeps its generations; goes before `state-dir`
    #[arg(long, value_name = "FOLDER", env = "ADIT_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Reach {
    /// A registry that is spoken to in clear; those on this machine are anyway
    #[arg(long, value_name = "REGISTRY")]
    insecure_registry: Vec<String>,
}

/// Puts a component into a registry and prints the reference that will always mean it.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn push(asked: Push) -> Result<(), Failure> {
    let Push { component, reference, reach } = asked;
    let wasm = read(&component).map_err(Failure::Configuration)?;
    let client = Client::new(&reach.insecure_registry)?;
    let digest = client.push(&reference, wasm.into()).await.with_context(|| reference.to_string())?;
    println!("{}", reference.at(digest));
    Ok(())
}

/// Gets a component, or all of a configuration.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn pull(asked: Pull) -> Result<(), Failure> {
    if let Some(config) = &asked.config {
        let mode = if asked.update { Mode::Update } else { Mode::Load };
        return provide(config, asked.state_dir.as_deref(), mode).await;
    }
    let reference = asked.reference.ok_or_else(|| anyhow!("say which one"))?;
    let client = Client::new(&asked.reach.insecure_registry)?;
    let one = fetch(&client, &reference, &asked.keys).await;
    let (digest, wasm) = one.with_context(|| reference.to_string())?;
    let name = reference.repository.rsplit('/').next().unwrap_or_default();
    let output = asked.output.unwrap_or_else(|| PathBuf::from(format!("{name}.wasm")));
    std::fs::write(&output, &wasm).with_context(|| format!("writing {}", output.display()))?;
    println!("{}", reference.at(digest));
    println!("{} ({} KiB)", output.display(), wasm.len().div_ceil(1024));
    Ok(())
}

/// The component of a reference, for a command that looks at it and keeps nothing.
pub(crate) async fn look(reference: &str) -> anyhow::Result<Vec<u8>> {
    let parsed: Reference = reference.parse().with_context(|| format!("{reference:?}"))?;
    let one = fetch(&Client::new(&[])?, &parsed, &[]).await;
    one.map(|(_, wasm)| wasm.into()).with_context(|| reference.to_owned())
}

/// A component with the digest that its reference means now, signed by one of the keys if there are some.
async fn fetch(client: &Client, reference: &Reference, keys: &[PathBuf]) -> anyhow::Result<(Digest, Bytes)> {
    let keys = keys.iter().map(|path| signature::Key::read(path));
    let keys = keys.collect::<anyhow::Result<Vec<_>>>()?;
    let (digest, json) = client.manifest(reference).await?.context("the registry does not have it")?;
    if !keys.is_empty() {
        let signed = signature::fetch(client, reference, digest).await?;
        ensure!(signature::verify(digest, &signed, &keys), "no key that was given has signed {digest}");
    }
    let component = client.component(reference, &json).await?;
    Ok((digest, client.blob(reference, component, LARGEST_COMPONENT).await?))
}

/// Locks every tag of a configuration to what it means now.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn update(asked: Update) -> Result<(), Failure> {
    provide(&asked.config, asked.state_dir.as_deref(), Mode::Update).await
}

async fn provide(config: &Path, state_dir: Option<&Path>, mode: Mode) -> Result<(), Failure> {
    let (_, plan) = resolve::load(config, state_dir, mode).await.map_err(Failure::Configuration)?;
    for plugin in &plan.plugins {
        println!("{}: {}", plugin.name, plugin.component.display());
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let wasm = crate::plugin::component(path)?;
    if wasm.len() > LARGEST_COMPONENT {
        bail!("{} has more than the {LARGEST_COMPONENT} bytes that are allowed", path.display());
    }
    ensure!(
        wasm.starts_with(&COMPONENT),
        "{} is not a component; `adit plugin check` says what it is",
        path.display()
    );
    Ok(wasm)
}

/// The first eight bytes of every component: magic, version 13, layer 1.
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
