//! Credentials are read in every form that is around, and do not print.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use adit_protocol::credentials::{
    ApiToken, Credentials, CredentialsError, MAX_CREDENTIALS, OriginCert, OriginCertError, TunnelSecret,
};
use uuid::uuid;

const FILE: &str = r#"{"AccountTag":"acc","TunnelSecret":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","TunnelID":"11111111-2222-4333-8444-555555555555","Endpoint":""}"#;

fn secret() -> TunnelSecret {
    let bytes: Vec<u8> = (0..32).collect();
    TunnelSecret::new(&bytes).unwrap()
}

fn credentials() -> Credentials {
    Credentials {
        account_tag: "acc".into(),
        tunnel_secret: secret(),
        tunnel_id: uuid!("11111111-2222-4333-8444-555555555555"),
        endpoint: None,
    }
}

#[test]
fn a_credentials_file_is_read_and_written_as_the_reference_does() {
    assert_eq!(Credentials::from_json(FILE.as_bytes()).unwrap(), credentials());
    assert_eq!(credentials().to_json(), FILE);
    let bound = Credentials { endpoint: Some("fed".into()), ..credentials() };
    assert_eq!(Credentials::from_json(bound.to_json().as_bytes()).unwrap(), bound);
}

#[test]
fn unknown_keys_and_a_missing_endpoint_do_not_matter() {
    let file = FILE.replace(r#""Endpoint":"""#, r#""TunnelName":"demo","Tags":[1,{}]"#);
    assert_eq!(Credentials::from_json(file.as_bytes()).unwrap(), credentials());
    let file = FILE.replace(r#""Endpoint":"""#, r#""Endpoint":null"#);
    assert_eq!(Credentials::from_json(file.as_bytes()).unwrap(), credentials());
}

#[test]
fn a_token_is_read_and_written_as_the_reference_does() {
    let token = credentials().to_token();
    assert!(token.starts_with("eyJhIjoiYWNjIiwicyI6Ik"), "{token}");
    assert_eq!(Credentials::from_token(&token).unwrap(), credentials());
    assert_eq!(Credentials::from_token(&format!("  {token}\n")).unwrap(), credentials());
    let bound = Credentials { endpoint: Some("us".into()), ..credentials() };
    assert_eq!(Credentials::from_token(&bound.to_token()).unwrap(), bound);
}

#[test]
fn a_secret_of_any_length_up_to_the_limit_is_one() {
    for length in [1, 31, 32, 33, TunnelSecret::MAX_LENGTH] {
        let bytes = vec![7; length];
        let credentials = Credentials { tunnel_secret: TunnelSecret::new(&bytes).unwrap(), ..credentials() };
        let read = Credentials::from_json(credentials.to_json().as_bytes()).unwrap();
        assert_eq!(read.tunnel_secret.as_bytes(), bytes);
    }
    for length in [0, TunnelSecret::MAX_LENGTH + 1] {
        let refused = TunnelSecret::new(&vec![7; length]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("tunnel secret is {length} bytes long, it must be 1 to 1024")
        );
    }
}

#[test]
fn equal_secrets_are_equal_and_others_are_not() {
    assert_eq!(secret(), secret());
    let mut other = secret().as_bytes().to_vec();
    other[31] ^= 1;
    assert_ne!(secret(), TunnelSecret::new(&other).unwrap());
    assert_ne!(secret(), TunnelSecret::new(&other[..31]).unwrap());
    assert_eq!(ApiToken::new("a"), ApiToken::new("a"));
    assert_ne!(ApiToken::new("a"), ApiToken::new("b"));
}

#[test]
fn a_mistake_is_named_and_no_value_is_quoted() {
    let mistake = |file: &str| {
        let error = Credentials::from_json(file.as_bytes()).unwrap_err();
        assert!(!format!("{error:?}").contains("AAEC"), "{error:?}");
        error.to_string()
    };
    assert_eq!(
        mistake(&FILE.replace("TunnelSecret", "tunnelSecret")),
        "not the JSON of credentials: missing field `TunnelSecret` at line 1 column 146"
    );
    assert_eq!(
        mistake(r#""AAECAwQFBg==""#),
        "not the JSON of credentials: wrong kind of value at line 1 column 14"
    );
    assert_eq!(
        mistake(&FILE.replace("Hh8=", "Hh8")),
        "not the JSON of credentials: tunnel secret is not standard base64 at line 1 column 80"
    );
    assert!(mistake(&FILE.replace("-5555555", "-")).contains("UUID"));
    assert!(matches!(Credentials::from_token("not base64"), Err(CredentialsError::Base64)));
    let long = "A".repeat(MAX_CREDENTIALS + 1);
    assert!(matches!(Credentials::from_token(&long), Err(CredentialsError::TooLong)));
    assert!(matches!(Credentials::from_json(long.as_bytes()), Err(CredentialsError::TooLong)));
}

#[test]
fn nothing_prints_a_secret() {
    assert_eq!(format!("{:?}", secret()), "TunnelSecret(..)");
    let printed = format!("{:?} {:?}", credentials(), certificate());
    assert!(!printed.contains("AAEC") && !printed.contains("hush"), "{printed}");
}

fn certificate() -> OriginCert {
    OriginCert {
        zone_id: "zone".into(),
        account_id: "acc".into(),
        api_token: ApiToken::new("hush-hush-hush-hush-hush-hush-hush-hush"),
        endpoint: Some("fed".into()),
    }
}

#[test]
fn a_certificate_is_read_among_the_blocks_of_older_files() {
    let pem = certificate().to_pem();
    assert!(pem.starts_with("-----BEGIN ARGO TUNNEL TOKEN-----\n"));
    assert!(pem.lines().all(|line| line.len() <= 64), "{pem}");
    assert_eq!(OriginCert::from_pem(&pem).unwrap(), certificate());

    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let chain = "-----BEGIN CERTIFICATE-----\r\nAAAA\r\n-----END CERTIFICATE-----\r\n";
    assert_eq!(OriginCert::from_pem(&format!("a comment\n{key}{chain}{pem}")).unwrap(), certificate());
    assert_eq!(OriginCert::from_pem(&pem.replace('\n', "\r\n")).unwrap(), certificate());

    let upper = OriginCert { endpoint: Some("FED".into()), ..certificate() };
    assert_eq!(OriginCert::from_pem(&upper.to_pem()).unwrap(), certificate(), "an endpoint is in lower case");
    let unbound = OriginCert { endpoint: None, ..certificate() };
    assert_eq!(OriginCert::from_pem(&unbound.to_pem()).unwrap(), unbound);
}

#[test]
fn what_does_not_belong_into_a_certificate_is_refused() {
    let pem = certificate().to_pem();
    let read = |pem: &str| OriginCert::from_pem(pem).unwrap_err();
    assert!(matches!(read(""), OriginCertError::NoToken));
    assert!(matches!(read(&format!("{pem}{pem}")), OriginCertError::SecondToken));
    assert!(matches!(read(&pem[..pem.len() - 5]), OriginCertError::Unfinished { .. }));
    let other = pem.replace("ARGO TUNNEL TOKEN", "RSA PRIVATE KEY");
    assert!(matches!(read(&other), OriginCertError::UnknownBlock { name } if name == "RSA PRIVATE KEY"));
    assert!(matches!(read(&pem.replacen("ey", "??", 1)), OriginCertError::Base64));
    let empty = OriginCert { api_token: ApiToken::new(""), ..certificate() };
    assert!(matches!(read(&empty.to_pem()), OriginCertError::NoApiToken));
    let no_json = "-----BEGIN ARGO TUNNEL TOKEN-----\nAAAA\n-----END ARGO TUNNEL TOKEN-----\n";
    assert!(matches!(read(no_json), OriginCertError::Json(_)));
    assert!(matches!(read(&" ".repeat(MAX_CREDENTIALS + 1)), OriginCertError::TooLong));
}
