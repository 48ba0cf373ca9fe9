//! Components come from registries: pinned, verified, kept, and never needed again by whoever has them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_oci::client::Client;
use adit_oci::digest::Digest;
use adit_oci::manifest::{INDEX, MANIFEST};
use adit_oci::reference::Reference;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::{Outcome, Process, adit, component};
use e2e::product::{Product, Site};
use e2e::registry::Registry;
use serde_json::json;

/// A site with a registry beside it; nothing where there is no registry to be had.
async fn depot(htpasswd: Option<&str>) -> Option<(Site, Registry)> {
    let site = Site::new();
    let registry = Registry::start(site.folder(), htpasswd).await?;
    site.write("edge-ca.pem", e2e::certificate::Certificate::new(&["quic.cftunnel.com"]).ca_pem);
    Some((site, registry))
}

async fn run(site: &Site, arguments: &[&str]) -> Outcome {
    Process::run(arguments, site.folder(), "").await
}

/// Pushes a component and hands back the reference that always means it.
async fn push(site: &Site, name: &str, reference: &str) -> String {
    let path = component(name).display().to_string();
    let pushed = run(site, &["plugin", "push", &path, reference]).await;
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    pushed.output.trim().to_owned()
}

/// A host whose only plugin is this one.
fn host(reference: &str, more: &str, service: &str) -> HostDocument {
    HostDocument::new()
        .keys("state-dir = \"state\"")
        .plugin("shipped", Path::new(reference), more)
        .rule(&format!("service = \"{service}\"\nplugins = [\"shipped\"]"))
}

/// Writes a document that nobody runs.
fn document(site: &Site, reference: &str, more: &str) {
    let host = HostDocument { edge_ca: "edge-ca.pem".into(), ..host(reference, more, "hello_world") };
    site.write("host.toml", host.to_toml(&["127.0.0.1:1".parse().unwrap()]));
}

/// Whether the origin is told what `test/request_only` adds.
async fn is_new(product: &Product) -> bool {
    let answer = product.get("/echo").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().contains("x-request-only")
}

#[tokio::test]
async fn a_tag_means_what_it_meant_until_somebody_updates_and_no_registry_is_needed_after_that() {
    let Some((site, registry)) = depot(None).await else { return };
    let tag = registry.reference("acme/shipped:1");
    let old = push(&site, "headers", &tag).await;
    let (_, digest) = old.split_once('@').unwrap();
    let pulled =
        run(&site, &["plugin", "pull", &registry.reference(&format!("acme/shipped@{digest}"))]).await;
    assert!(pulled.code == Some(0) && pulled.output.contains(digest), "{pulled:?}");
    assert_eq!(fs::read(site.path("shipped.wasm")).unwrap(), fs::read(component("headers")).unwrap());

    let origin = Origin::start();
    let host = host(&tag, "", &origin.service());
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host.clone()).await;
    assert!(!is_new(&product).await);
    let lock = fs::read_to_string(product.site.path("adit.lock")).unwrap();
    assert!(lock.contains(digest) && lock.contains(&tag), "{lock}");

    // The tag moves. Neither a reload nor anything else but an update sees that.
    let new = push(&product.site, "test/request_only", &tag).await;
    assert_ne!(old, new);
    let applied = async |number: u64| {
        product.host.process.event("configuration applied", |event| event["generation"] == number).await;
    };
    product.host.process.hang_up();
    applied(2).await;
    assert!(!is_new(&product).await);
    let updated = run(&product.site, &["plugin", "update", "host.toml"]).await;
    assert_eq!(updated.code, Some(0), "{updated:?}");
    applied(3).await;
    assert!(is_new(&product).await);

    // The registry is gone.
    registry.process.kill();
    registry.process.exit().await;
    let Product { host: running, edge, site } = product;
    running.process.terminate();
    running.process.exit().await;
    let running = site.host(&edge, &host).await;
    let product = Product { host: running, edge, site };
    assert!(is_new(&product).await);
    assert!(product.host.process.events("component pulled").is_empty());

    // And so is what was kept of it: the last good generation has a copy of its own.
    let Product { host: running, edge, site } = product;
    running.process.terminate();
    running.process.exit().await;
    fs::remove_dir_all(site.path("state/components")).unwrap();
    let running = site.host(&edge, &host).await;
    let degraded = "the document cannot be used: the last good generation serves in its place";
    running.process.event(degraded, |_| true).await;
    let product = Product { host: running, edge, site };
    assert!(is_new(&product).await);
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_refused() {
    let Some((site, registry)) = depot(None).await else { return };
    let reference = push(&site, "headers", &registry.reference("shipped:1")).await;
    document(&site, &reference, "");
    let wasm = fs::read(component("headers")).unwrap();
    let hex = Digest::of(&wasm).hex();
    let kept =
        registry.folder.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(&hex).join("data");
    let mut tampered = wasm.clone();
    let middle = tampered.len() / 2;
    tampered[middle] ^= 1;

    fs::write(&kept, &tampered).unwrap();
    let pulled = run(&site, &["plugin", "pull", &reference, "-o", "out.wasm"]).await;
    assert!(pulled.code == Some(1) && pulled.log.contains("tampered with"), "{pulled:?}");
    assert!(!site.path("out.wasm").exists());
    let checked = run(&site, &["config", "check", "host.toml"]).await;
    assert!(checked.code == Some(2) && checked.log.contains("tampered with"), "{checked:?}");
    assert!(checked.log.contains("shipped") && checked.log.contains(&hex), "{checked:?}");

    // What was pulled whole and then changed on the disk is pulled again.
    fs::write(&kept, &wasm).unwrap();
    assert_eq!(run(&site, &["config", "check", "host.toml"]).await.code, Some(0));
    let ours = site.path("state/components/blobs").join(format!("sha256-{hex}"));
    fs::write(&ours, &tampered).unwrap();
    assert_eq!(run(&site, &["config", "check", "host.toml"]).await.code, Some(0));
    assert_eq!(fs::read(&ours).unwrap(), wasm);

    // Something else than a component is neither pushed nor pulled.
    let text = site.write("text.wasm", "this is a text").display().to_string();
    let pushed = run(&site, &["plugin", "push", &text, &registry.reference("text:1")]).await;
    assert!(pushed.code == Some(2) && pushed.log.contains("not a component"), "{pushed:?}");
    document(&site, &registry.reference("absent:1"), "");
    let checked = run(&site, &["config", "check", "host.toml"]).await;
    assert!(checked.code == Some(2) && checked.log.contains("does not have it"), "{checked:?}");
    document(&site, "oci://127.0.0.1/NoName", "");
    let checked = run(&site, &["config", "check", "host.toml"]).await;
    assert!(checked.code == Some(2) && checked.log.contains("host.toml:"), "{checked:?}");
}

/// A key as `cosign generate-key-pair` makes it, and its public half in a file.
fn key(site: &Site, name: &str) -> (EcdsaKeyPair, PathBuf) {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref()).unwrap();
    let prefix = STANDARD.decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgA=").unwrap();
    let der = STANDARD.encode([&prefix, pair.public_key().as_ref()].concat());
    let path = site.write(name, format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n"));
    (pair, path)
}

/// Signs a pushed component as `cosign sign --key` does.
async fn sign(reference: &str, pair: &EcdsaKeyPair) {
    let reference: Reference = reference.parse().unwrap();
    let digest = reference.digest.unwrap();
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": format!("{}/{}", reference.registry, reference.repository)},
            "image": {"docker-manifest-digest": digest.to_string()},
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    let payload = Bytes::from(payload.to_string());
    let signature = pair.sign(&SystemRandom::new(), &payload).unwrap();
    let blob = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let mut layer = blob("application/vnd.dev.cosign.simplesigning.v1+json", &payload);
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": STANDARD.encode(signature)});
    let config = blob("application/vnd.oci.image.config.v1+json", b"{}");
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let client = Client::new(&[]).unwrap();
    client.upload(&reference, payload).await.unwrap();
    client.upload(&reference, Bytes::from_static(b"{}")).await.unwrap();
    let tag = format!("sha256-{}.sig", digest.hex());
    client.put_manifest(&reference, &tag, manifest.to_string().into()).await.unwrap();
}

/// The description of a part, for a manifest or an index.
fn part(kind: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

/// Signs a pushed component as `cosign sign --key` of version 3 does, at a registry that keeps no list of what refers to
/// what.
async fn sign_in_a_bundle(reference: &str, pair: &EcdsaKeyPair) {
    const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
    const STATEMENT: &str = "application/vnd.in-toto+json";
    let reference: Reference = reference.parse().unwrap();
    let digest = reference.digest.unwrap();
    let client = Client::new(&[]).unwrap();
    let (_, signed) = client.manifest(&reference).await.unwrap().unwrap();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest.hex()}, "annotations": {}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    })
    .to_string();
    let signed_text = format!("DSSEv1 {} {STATEMENT} {} {statement}", STATEMENT.len(), statement.len());
    let signature = pair.sign(&SystemRandom::new(), signed_text.as_bytes()).unwrap();
    let bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": "key"}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": STANDARD.encode(&statement),
            "payloadType": STATEMENT,
            "signatures": [{"sig": STANDARD.encode(signature)}],
        },
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": BUNDLE,
        "config": part("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [part(BUNDLE, bundle.as_bytes())],
        "subject": part(MANIFEST, &signed),
    })
    .to_string();
    client.upload(&reference, bundle.into()).await.unwrap();
    client.upload(&reference, Bytes::from_static(b"{}")).await.unwrap();
    let name = Digest::of(manifest.as_bytes()).to_string();
    let mut listed = part(MANIFEST, manifest.as_bytes());
    listed["artifactType"] = BUNDLE.into();
    client.put_manifest(&reference, &name, manifest.into()).await.unwrap();
    index(&client, &reference, &format!("sha256-{}", digest.hex()), listed).await;
}

/// Puts an index of one manifest under a tag.
async fn index(client: &Client, reference: &Reference, tag: &str, listed: serde_json::Value) {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]});
    client.put_manifest(reference, tag, index.to_string().into()).await.unwrap();
}

#[tokio::test]
async fn a_bundle_of_cosign_3_is_a_signature_too() {
    let Some((site, registry)) = depot(None).await else { return };
    let reference = push(&site, "headers", &registry.reference("bundled:1")).await;
    let ((ours, _), (theirs, _)) = (key(&site, "cosign.pub"), key(&site, "other.pub"));
    let pull = async || {
        run(&site, &["plugin", "pull", &reference, "-o", "out.wasm", "--key", "cosign.pub"]).await.code
    };
    assert_eq!(pull().await, Some(1));
    sign_in_a_bundle(&reference, &theirs).await;
    assert_eq!(pull().await, Some(1));
    sign_in_a_bundle(&reference, &ours).await;
    assert_eq!(pull().await, Some(0));
    document(&site, &reference, "[plugin.verify]\nkeys = [\"cosign.pub\"]");
    assert_eq!(run(&site, &["plugin", "pull", "--config", "host.toml"]).await.code, Some(0));
}

#[tokio::test]
async fn an_index_leads_to_its_component_and_commands_look_at_what_lies_in_a_registry() {
    let Some((site, registry)) = depot(None).await else { return };
    let pushed: Reference = push(&site, "headers", &registry.reference("listed:1")).await.parse().unwrap();
    let client = Client::new(&[]).unwrap();
    let (_, manifest) = client.manifest(&pushed).await.unwrap().unwrap();
    let mut listed = part(MANIFEST, &manifest);
    listed["platform"] = json!({"architecture": "wasm", "os": "wasip2"});
    index(&client, &pushed, "all", listed).await;
    let tag = registry.reference("listed:all");
    document(&site, &tag, "");
    let pulled = run(&site, &["plugin", "pull", "--config", "host.toml"]).await;
    assert_eq!(pulled.code, Some(0), "{pulled:?}");
    for command in [&["inspect"][..], &["run", "--config", r#"{"request": {"set": {"x-a": "b"}}}"#]] {
        let looked = run(&site, &[&["plugin"], command, &[&tag]].concat()).await;
        let said = if command[0] == "run" { "  x-a: b" } else { "calls itself      headers" };
        assert!(looked.code == Some(0) && looked.output.contains(said), "{looked:?}");
    }
}

#[tokio::test]
async fn a_component_is_taken_only_with_a_signature_by_a_pinned_key() {
    let Some((site, registry)) = depot(None).await else { return };
    let tag = registry.reference("shipped:1");
    let reference = push(&site, "headers", &tag).await;
    let ((ours, _), (theirs, _)) = (key(&site, "cosign.pub"), key(&site, "other.pub"));
    document(&site, &tag, "[plugin.verify]\nkeys = [\"cosign.pub\"]");
    let check = async || run(&site, &["plugin", "pull", "--config", "host.toml"]).await;

    let refused = check().await;
    assert!(refused.code == Some(2) && refused.log.contains("is not signed"), "{refused:?}");
    sign(&reference, &theirs).await;
    let refused = check().await;
    assert!(refused.code == Some(2) && refused.log.contains("none of the 1 signatures"), "{refused:?}");
    assert!(!site.path("adit.lock").exists());
    sign(&reference, &ours).await;
    assert_eq!(check().await.code, Some(0));
    let pull = async |key: &str| {
        run(&site, &["plugin", "pull", &reference, "-o", "out.wasm", "--key", key]).await.code
    };
    assert_eq!((pull("other.pub").await, pull("cosign.pub").await), (Some(1), Some(0)));

    // The signature is kept with the component, and is still looked at.
    registry.process.kill();
    registry.process.exit().await;
    assert_eq!(check().await.code, Some(0));
    document(&site, &tag, "[plugin.verify]\nkeys = [\"other.pub\"]");
    assert_eq!(check().await.code, Some(2));
}

#[tokio::test]
async fn dockers_own_credentials_are_used_and_never_shown() {
    // hunter2
    let line = "ada:$2b$04$wCiWLTTMR.54TW2wVCq.SePKHO4lMX2mrJdP3.AMk9iQpzK2PVrce";
    let Some((site, registry)) = depot(Some(line)).await else { return };
    let path = component("headers").display().to_string();
    let reference = registry.reference("private/shipped:1");
    let push = async |config: &str| {
        let mut command = Command::new(adit());
        command.args(["--log", "trace", "plugin", "push", &path, &reference]);
        command.current_dir(site.folder()).env("DOCKER_CONFIG", site.path(config));
        let process = Process::start("adit", command);
        let code = process.exit().await.code();
        (code, format!("{}{}", process.output(), process.log()))
    };
    let (code, said) = push("nowhere").await;
    assert!(code == Some(1) && said.contains("docker login"), "{said}");
    for (folder, password, expected) in [("wrong", "hunter3", Some(1)), ("right", "hunter2", Some(0))] {
        fs::create_dir(site.path(folder)).unwrap();
        let auth = STANDARD.encode(format!("ada:{password}"));
        let config = json!({"auths": {registry.address.to_string(): {"auth": auth}}});
        site.write(&format!("{folder}/config.json"), config.to_string());
        let (code, said) = push(folder).await;
        assert_eq!(code, expected, "{said}");
        assert!(!said.contains(password) && !said.contains(&auth), "{said}");
    }
}
