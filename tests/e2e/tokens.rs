//! The plugin `jwt` through the host: whose tokens pass, and what becomes of the others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::{Origin, nobody};
use e2e::process::component;
use e2e::product::Product;
use serde_json::{Value, json};

use super::shelf::{ask, received};

/// Three keys, and a place that hands out their public halves.
struct Issuer {
    random: SystemRandom,
    rsa: RsaKeyPair,
    ecdsa: EcdsaKeyPair,
    edwards: Ed25519KeyPair,
    set: Arc<Mutex<String>>,
    address: SocketAddr,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let set: Arc<Mutex<String>> = Arc::default();
        let served = set.clone();
        // Ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = Vec::new();
                let mut chunk = [0; 1024];
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut chunk) {
                        Ok(0) | Err(_) => break,
                        Ok(length) => head.extend_from_slice(&chunk[..length]),
                    }
                }
                let body = served.lock().unwrap().clone();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        let issuer = Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ecdsa: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap(),
            edwards: Ed25519KeyPair::generate().unwrap(),
            random,
            set,
            address,
        };
        issuer.hand_out("");
        issuer
    }

    /// The keys' names end so from here on.
    fn hand_out(&self, version: &str) {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let der: PublicKeyX509Der<'_> = self.rsa.public_key().as_der().unwrap();
        // The modulus of 2048 bits and, behind it, five bytes of the exponent.
        let der = der.as_ref();
        let modulus = &der[der.len() - 5 - 256..der.len() - 5];
        let point = self.ecdsa.public_key().as_ref();
        let set = json!({"keys": [
            {"kty": "RSA", "kid": format!("rsa{version}"), "use": "sig", "n": encode(modulus), "e": "AQAB"},
            {"kty": "EC", "crv": "P-256", "kid": format!("ec{version}"), "x": encode(&point[1..33]), "y": encode(&point[33..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": format!("ed{version}"), "x": encode(self.edwards.public_key().as_ref())},
        ]});
        *self.set.lock().unwrap() = set.to_string();
    }

    fn token(&self, algorithm: &str, id: &str, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({"alg": algorithm, "kid": id})), encode(claims));
        let signature = match id.get(..2) {
            Some("rs") => {
                let mut signature = vec![0; 256];
                self.rsa.sign(&RSA_PKCS1_SHA256, &self.random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Some("ec") => self.ecdsa.sign(&self.random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            _ => self.edwards.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn claims() -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({"iss": "https://id.example.com", "aud": ["app"], "exp": now + 3600, "sub": "ada"})
}

#[tokio::test]
async fn only_a_token_that_a_known_key_signed_for_this_audience_passes() {
    let issuer = Issuer::new();
    let origin = Origin::start();
    let service = origin.service();
    let jwt = |url: &str| {
        format!(
            "tick = \"1h\"\ntimeout = \"10s\"\n[plugin.config]\nissuer = \"https://id.example.com\"\njwks = \"{url}/keys\"\naudience = \"app\"\nfrom = [{{ header = \"cf-access-jwt-assertion\" }}, \"bearer\", {{ cookie = \"token\" }}]\nheaders = {{ x-user = \"sub\" }}\n[plugin.grants]\nhttp = [\"{url}\"]\nbuckets = {{ jwks = \"1MiB\" }}"
        )
    };
    let rule = |path: &str, plugin: &str| {
        format!("path = \"{path}\"\nservice = \"{service}\"\nplugins = [\"{plugin}\"]")
    };
    let host = HostDocument::new()
        .plugin("known", &component("jwt"), &jwt(&format!("http://{}", issuer.address)))
        .plugin("keyless", &component("jwt"), &jwt(&format!("http://{}", nobody())))
        .rule(&rule("^/echo/known", "known"))
        .rule(&rule("^/echo/keyless", "keyless"))
        .otherwise(&service);
    let product = Product::start(EdgeDocument::new(&["west"], 1), host).await;
    let ask = async |path: &str, name: &str, value: &str| {
        ask(&product, path, &[(name, value), ("x-user", "eve")]).await
    };

    for (algorithm, id) in [("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")] {
        let token = issuer.token(algorithm, id, &claims());
        for (name, value) in [
            ("authorization", format!("Bearer {token}")),
            ("cf-access-jwt-assertion", token.clone()),
            ("cookie", format!("a=b; token={token}")),
        ] {
            let answer = ask("/echo/known", name, &value).await;
            assert_eq!(answer.status, 200, "{algorithm} in {name}");
            assert_eq!(received(&answer, "x-user").as_deref(), Some("ada"));
        }
        // Another audience, another algorithm, another signature.
        let mut other = claims();
        other["aud"] = json!("other");
        let mut forged = token.clone();
        let at = token.rfind('.').unwrap() + 10;
        forged.replace_range(at..=at, if &token[at..=at] == "A" { "B" } else { "A" });
        for bad in
            [issuer.token(algorithm, id, &other), issuer.token("none", id, &claims()), forged, String::new()]
        {
            let answer = ask("/echo/known", "authorization", &format!("Bearer {bad}")).await;
            assert_eq!(answer.status, 401, "{algorithm}: {bad}");
        }
    }
    assert_eq!(ask("/echo/known", "x-nothing", "").await.header("www-authenticate"), "Bearer");

    // A key that came later is found by the first token that names it.
    issuer.hand_out("-2");
    let answer =
        ask("/echo/known", "authorization", &format!("Bearer {}", issuer.token("ES256", "ec-2", &claims())))
            .await;
    assert_eq!(answer.status, 200, "{}", answer.text());

    // Without keys nobody passes.
    let good = format!("Bearer {}", issuer.token("ES256", "ec", &claims()));
    let answer = ask("/echo/keyless", "authorization", &good).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
    // Whoever has none, or two, will not pass by waiting.
    assert_eq!(ask("/echo/keyless", "x-nothing", "").await.status, 401);
    let two = [("authorization", good.as_str()), ("authorization", good.as_str())];
    assert_eq!(super::shelf::ask(&product, "/echo/keyless", &two).await.status, 401);
}

#[tokio::test]
async fn keys_in_a_private_network_are_asked_for_by_an_address_or_with_a_grant_for_the_network() {
    let issuer = Issuer::new();
    let origin = Origin::start();
    let service = origin.service();
    let (address, port) = (issuer.address, issuer.address.port());
    let jwt = |url: &str, networks: &str| {
        format!(
            "tick = \"1h\"\ntimeout = \"10s\"\n[plugin.config]\nissuer = \"https://id.example.com\"\njwks = \"{url}/keys\"\naudience = \"app\"\n[plugin.grants]\nhttp = [\"{url}\"]\nbuckets = {{ jwks = \"1MiB\" }}\n{networks}"
        )
    };
    let (by_address, by_name) = (format!("http://{address}"), format!("http://localhost:{port}"));
    let mut host = HostDocument::new();
    let cases = [
        ("address", jwt(&by_address, ""), 200),
        ("name", jwt(&by_name, ""), 503),
        ("elsewhere", jwt(&by_name, "private-networks = [\"10.0.0.0/8\"]"), 503),
        ("granted", jwt(&by_name, "private-networks = [\"127.0.0.0/8\", \"::1/128\"]"), 200),
    ];
    for (name, plugin, _) in &cases {
        let rule = format!("path = \"^/echo/{name}\"\nservice = \"{service}\"\nplugins = [\"{name}\"]");
        host = host.plugin(name, &component("jwt"), plugin).rule(&rule);
    }
    let product = Product::start(EdgeDocument::new(&["west"], 1), host.otherwise(&service)).await;
    let token = format!("Bearer {}", issuer.token("ES256", "ec", &claims()));
    for (name, _, status) in cases {
        let answer = ask(&product, &format!("/echo/{name}"), &[("authorization", &token)]).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
}
