//! What testssl.sh, which many operators run, says of the edge's TLS: nothing worse than low. It takes minutes, so it is
//! `cargo xtask testssl`, which fetches it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde_json::Value;

use crate::harness::start_told;

const NAME: &str = "edge.example.com";

/// A certificate as public authorities issue them, and who issued it.
fn write(folder: &std::path::Path) {
    let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "An authority of this test");
    std::fs::write(folder.join("root.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let (key, mut params) =
        (KeyPair::generate().unwrap(), CertificateParams::new(vec![NAME.to_owned()]).unwrap());
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.crl_distribution_points =
        vec![CrlDistributionPoint { uris: vec!["http://127.0.0.1/crl".to_owned()] }];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + (now - day);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + (now + 88 * day);
    std::fs::write(folder.join("leaf.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(folder.join("leaf.key"), key.serialize_pem()).unwrap();
}

#[ignore = "takes minutes, and testssl.sh: cargo xtask testssl"]
#[tokio::test(flavor = "multi_thread")]
async fn testssl_finds_nothing_above_low() {
    let folder =
        PathBuf::from(std::env::var_os("ADIT_TESTSSL").expect("cargo xtask testssl says where it is"));
    let program = folder.join("usr/bin/testssl");
    for policy in ["intermediate", "modern"] {
        let own = Arc::new(tempfile::tempdir().unwrap());
        write(own.path());
        let more = format!(
            "[[certificate]]\ncertificate = \"leaf.pem\"\nprivate-key = \"leaf.key\"\n\
             [[name]]\nhostnames = [\"{NAME}\"]\nhsts-days = 365\n"
        );
        let edge = start_told(own.clone(), &format!("tls = \"{policy}\""), &more);
        let findings = own.path().join("findings.json");
        let mut testssl = Command::new(&program);
        testssl.args([
            "--ip",
            "127.0.0.1",
            "--nodns",
            "none",
            "--warnings",
            "off",
            "--quiet",
            "--color",
            "0",
        ]);
        testssl.args(["--openssl", "/usr/bin/openssl", "--openssl-timeout", "20", "--connect-timeout", "20"]);
        testssl.arg("--add-ca").arg(own.path().join("root.pem"));
        testssl.arg("--jsonfile").arg(&findings);
        testssl.arg(format!("{NAME}:{}", edge.https.port()));
        testssl.env("TESTSSL_INSTALL_DIR", folder.join("etc/testssl")).stdin(Stdio::null());
        let path = std::env::var("PATH").unwrap_or_default();
        testssl.env("PATH", format!("{}:{path}", folder.join("bin").display()));
        // Its own status counts findings of every severity.
        let status = tokio::task::spawn_blocking(move || testssl.status().unwrap()).await.unwrap();
        let text = std::fs::read_to_string(&findings).unwrap();
        let all: Vec<Value> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status}: {error}: {text}"));
        println!("\n{policy}: {} findings", all.len());
        let mut bad = Vec::new();
        for finding in &all {
            let word = |field: &str| finding[field].as_str().unwrap_or_default();
            let line = format!("{:8} {:28} {}", word("severity"), word("id"), word("finding"));
            match word("severity") {
                "OK" | "INFO" | "DEBUG" => {}
                "LOW" | "WARN" => println!("{line}"),
                _ => bad.push(line),
            }
        }
        assert!(
            all.iter().any(|finding| finding["id"] == "overall_grade" || finding["id"] == "TLS1_3"),
            "{text}"
        );
        assert!(bad.is_empty(), "{policy}:\n{}", bad.join("\n"));
    }
}
