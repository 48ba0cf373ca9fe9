use std::fs;

use adit_protocol::credentials::TunnelSecret;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::tls::DevelopmentCa;

/// A folder with what documents name: credentials of two tunnels, and something that is no credentials.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, byte) in [("demo.json", 1), ("other.json", 2)] {
        let credentials = Credentials {
            account_tag: "account".to_owned(),
            tunnel_secret: TunnelSecret::new(&[byte; 32]).unwrap(),
            tunnel_id: Uuid::from_bytes([byte; 16]),
            endpoint: None,
        };
        fs::write(folder.path().join(name), credentials.to_json()).unwrap();
    }
    fs::write(folder.path().join("bad.json"), "{\"AccountTag\": 7").unwrap();
    folder
}

fn parse(folder: &TempDir, text: &str) -> Result<Settings, Mistakes> {
    Settings::parse("edge.toml", text, folder.path())
}

const VISITORS: &str = "[visitors]\nhttp = \"127.0.0.1:0\"\n";
const SERVER: &str = "[[server]]\nregion = \"west\"\nlisten = \"127.0.0.1:0\"\n";
const TUNNEL: &str =
    "[[tunnel]]\nname = \"demo\"\ncredentials-file = \"demo.json\"\nhostnames = [\"demo.localhost\"]\n";

#[test]
fn a_whole_document_becomes_settings() {
    let folder = folder();
    let text = format!(
        "data-dir = \"data\"\n[visitors]\nhttp = \"0.0.0.0:8080\"\nhttps = \"[::]:8443\"\n{SERVER}{SERVER}\
         [[server]]\nregion = \"east\"\nname = \"edge.east\"\nlisten = \"127.0.0.1:7844\"\n{TUNNEL}\
         [[tunnel]]\nname = \"other\"\ncredentials-file = \"other.json\"\nhostnames = [\"*.Demo.localhost\", \"b\u{fc}cher.example\"]\n\
         [admin]\nlisten = \"127.0.0.1:20240\"\n[api]\nlisten = \"127.0.0.1:20250\"\ntunnel-domain = \"T.example.com\"\n"
    );
    let settings = parse(&folder, &text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(settings.data_dir, folder.path().join("data"));
    assert_eq!(settings.http.unwrap().port(), 8080);
    assert_eq!(settings.https.unwrap().listen.port(), 8443);
    let names: Vec<_> = settings.servers.iter().map(|server| (&*server.region, &*server.name)).collect();
    assert_eq!(names, [("west", "west-1"), ("west", "west-2"), ("east", "edge.east")]);
    let names: Vec<_> = settings.tunnels[1].hostnames.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["*.demo.localhost", "xn--bcher-kva.example"], "as visitors ask for it");
    assert_eq!(settings.tunnels[1].credentials.tunnel_id, Uuid::from_bytes([2; 16]));
    assert_eq!(settings.admin.listen.unwrap().port(), 20240);
    assert_eq!(settings.api.unwrap().tunnel_domain.as_deref(), Some("t.example.com"));
    let limits = |keys: &str| {
        let text = format!("{VISITORS}{keys}\n{SERVER}{TUNNEL}");
        parse(&folder, &text).map(|settings| settings.sources).map_err(|mistakes| mistakes.to_string())
    };
    let usual = limits("").unwrap();
    assert_eq!((usual.connections, usual.requests, usual.unlimited.len()), (2_500, 5_000, 2));
    let keys =
        "connections-per-address = 7\nrequests-per-address = 0\nunlimited-addresses = [\"10.0.0.0/8\"]";
    let wanted = Limits { connections: 7, requests: 0, unlimited: vec!["10.0.0.0/8".parse().unwrap()] };
    assert_eq!(limits(keys).unwrap(), wanted);
    assert!(limits("connections-per-address = -1").unwrap_err().contains("0 to 1000000"));
    assert!(limits("unlimited-addresses = [\"10.0.0.0/33\"]").unwrap_err().contains("neither an address"));
    let without_tunnels = format!("{VISITORS}{SERVER}[api]\nlisten = \"127.0.0.1:0\"\n");
    assert!(parse(&folder, &without_tunnels).is_ok(), "tunnels can be made by the API");
}

#[test]
fn every_mistake_has_its_place_and_its_words() {
    let folder = folder();
    let whole = |part: &str| format!("{VISITORS}{SERVER}{TUNNEL}{part}");
    let cases = [
        (String::new(), vec!["no [visitors] section", "no [[server]]", "no [[tunnel]]"]),
        (whole("[admin]\nlisten = "), vec!["edge.toml:11:"]),
        (whole("[visitor]\n"), vec!["edge.toml:10:", "unknown key `visitor`", "did you mean `visitors`"]),
        (whole("[admin]\n"), vec!["`listen` is missing"]),
        (whole("[api]\ntunnel-domain = \"*.x\"\n"), vec!["`listen` is missing", "`*.x` is no domain"]),
        (whole("[admin]\nlisten = 8080\n"), vec!["edge.toml:11:10:", "expected a string"]),
        (
            whole("[admin]\nlisten = \"localhost:80\"\n"),
            vec!["edge.toml:11:10:", "`localhost:80` is not an address"],
        ),
        (whole("[admin]\nlisten = \"127.0.0.1\"\n"), vec!["is not an address", "IP and port"]),
        (format!("[visitors]\n{SERVER}{TUNNEL}"), vec!["edge.toml:1:", "no address for visitors"]),
        (
            format!("[visitors]\nhttp = \"127.0.0.1:80\"\nhttps = \"127.0.0.1:80\"\n{SERVER}{TUNNEL}"),
            vec!["edge.toml:3:9:", "127.0.0.1:80 is already taken by visitors.http"],
        ),
        (
            format!("{VISITORS}certificate = \"c.pem\"\n{SERVER}{TUNNEL}"),
            vec!["edge.toml:3:", "a certificate without `private-key`"],
        ),
        (
            format!(
                "[visitors]\nhttps = \"127.0.0.1:0\"\ncertificate = \"c.pem\"\nprivate-key = \"k.pem\"\n{SERVER}{TUNNEL}"
            ),
            vec!["edge.toml:3:", "c.pem", "edge.toml:4:", "k.pem"],
        ),
        (
            format!("{VISITORS}[[server]]\nlisten = \"127.0.0.1:0\"\n{TUNNEL}"),
            vec!["edge.toml:3:", "`region` is missing"],
        ),
        (
            format!("{VISITORS}[[server]]\nregion = \"a b\"\nlisten = \"127.0.0.1:0\"\n{TUNNEL}"),
            vec!["edge.toml:4:10:", "`a b` cannot be a name here"],
        ),
        (
            whole(
                "[[server]]\nregion = \"east\"\nlisten = \"127.0.0.1:7844\"\n[[server]]\nregion = \"east\"\nlisten = \"127.0.0.1:7844\"\n",
            ),
            vec!["127.0.0.1:7844 is already taken by a server"],
        ),
        (
            format!("{VISITORS}{SERVER}{TUNNEL}{TUNNEL}"),
            vec![
                "this tunnel name is used twice",
                "this tunnel id is used twice",
                "this host name is used twice",
            ],
        ),
        (
            format!(
                "{VISITORS}{SERVER}[[tunnel]]\nname = \"demo\"\ncredentials-file = \"none.json\"\nhostnames = []\n"
            ),
            vec!["edge.toml:8:20:", "none.json", "No such file"],
        ),
        (
            format!(
                "{VISITORS}{SERVER}[[tunnel]]\nname = \"demo\"\ncredentials-file = \"bad.json\"\nhostnames = []\n"
            ),
            vec!["edge.toml:8:20:", "bad.json", "not the JSON of credentials"],
        ),
        (
            format!(
                "{VISITORS}{SERVER}[[tunnel]]\nname = \"demo\"\ncredential-file = \"demo.json\"\nhostnames = [\"a:1\"]\n"
            ),
            vec![
                "edge.toml:8:",
                "did you mean `credentials-file`",
                "edge.toml:9:14:",
                "`a:1` is no host name",
            ],
        ),
        (
            format!("{VISITORS}{SERVER}[[tunnel]]\n"),
            vec!["`name` is missing", "`credentials-file` is missing", "`hostnames` is missing"],
        ),
        (
            whole("[geography]\npop = \"\"\nlatitude = 91\nlongitude = 8.5\ncountry-header = \"a b\"\n"),
            vec![
                "edge.toml:11:7:",
                "`` is no code of a place",
                "edge.toml:13:",
                "no place on Earth",
                "edge.toml:14:18:",
                "no name of a header",
            ],
        ),
        (
            whole(
                "[[geography.network]]\naddresses = [\"10.0.0.0/8\", \"10.1.0.0/8\"]\n[[geography.network]]\n",
            ),
            vec!["edge.toml:11:28:", "has a place already", "`addresses` is missing"],
        ),
        (format!("data-dir = 7\n{}", whole("")), vec!["edge.toml:1:12:", "data-dir"]),
    ];
    for (text, wanted) in cases {
        let Err(mistakes) = parse(&folder, &text) else { panic!("accepted:\n{text}") };
        let report = mistakes.to_string();
        for wanted in &wanted {
            assert!(report.contains(wanted), "{wanted:?} is missing in:\n{report}\nof:\n{text}");
        }
    }
}

#[test]
fn no_part_is_blamed_for_the_mistake_of_another() {
    let folder = folder();
    for (text, count) in [
        (String::new(), 3),
        (format!("{VISITORS}{SERVER}{TUNNEL}[visitor]\n"), 1),
        (format!("visitors = 7\n{SERVER}{TUNNEL}"), 1),
        (format!("{VISITORS}server = 7\n{TUNNEL}"), 2),
        (format!("server = 7\n{VISITORS}{TUNNEL}"), 1),
        (
            format!(
                "{VISITORS}{SERVER}[[tunnel]]\nname = 7\ncredentials-file = \"demo.json\"\nhostnames = []\n"
            ),
            1,
        ),
    ] {
        let Err(mistakes) = parse(&folder, &text) else { panic!("accepted:\n{text}") };
        assert_eq!(mistakes.len(), count, "{mistakes}\nof:\n{text}");
    }
}

#[test]
fn certificates_must_fit_together_and_fit_connectors() {
    let folder = folder();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    let make = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let (good, key) = make(&CONNECTOR_NAMES);
    let (wrong, wrong_key) = make(&["app.example.com"]);
    write("good.pem", good);
    write("good.key", key);
    write("wrong.pem", wrong);
    write("wrong.key", wrong_key);
    write("empty.pem", String::new());
    DevelopmentCa::open(folder.path()).unwrap();
    for (certificate, key, wanted) in [
        ("good.pem", "good.key", None),
        ("wrong.pem", "wrong.key", Some("without quic.cftunnel.com")),
        ("good.pem", "wrong.key", Some("do not fit together")),
        ("empty.pem", "good.key", Some("holds no certificate")),
        ("good.key", "good.pem", Some("reading")),
    ] {
        let text = format!(
            "{VISITORS}{SERVER}{TUNNEL}[connectors]\ncertificate = \"{certificate}\"\nprivate-key = \"{key}\"\n"
        );
        match (parse(&folder, &text), wanted) {
            (Ok(settings), None) => assert!(settings.connectors.is_some()),
            (Err(mistakes), Some(wanted)) => assert!(mistakes.to_string().contains(wanted), "{mistakes}"),
            (Ok(_), Some(wanted)) => panic!("accepted although: {wanted}"),
            (Err(mistakes), None) => panic!("{mistakes}"),
        }
    }
}

#[test]
fn a_stop_and_a_tunnel_are_what_the_document_says() {
    let folder = folder();
    let text = |tunnel: &str, more: &str| format!("{VISITORS}{SERVER}{TUNNEL}{tunnel}\n{more}");
    let usual = parse(&folder, &text("", "")).unwrap();
    let seconds = Duration::from_secs;
    let wanted = Drain { linger: seconds(3), hosts: seconds(5), grace_period: seconds(30) };
    assert_eq!((usual.drain, &usual.tunnels[0].stickiness), (wanted, &Stickiness::None));
    let drain = "[drain]\nlinger = \"0s\"\nhosts = \"250ms\"\ngrace-period = \"3m\"\n";
    let settings = parse(&folder, &text("stickiness = \"cookie:sid\"", drain)).unwrap();
    let wanted =
        Drain { linger: Duration::ZERO, hosts: Duration::from_millis(250), grace_period: seconds(180) };
    let sticky = Stickiness::Cookie("sid".to_owned());
    assert_eq!((settings.drain, &settings.tunnels[0].stickiness), (wanted, &sticky));
    for (tunnel, more, says) in [
        ("stickiness = \"ip\"", "", ["edge.toml:10:14:", "`ip` is no stickiness", "\"client-ip\""]),
        ("stickiness = \"cookie:\"", "", ["edge.toml:10:14:", "cannot be the name of a cookie", "NAME"]),
        ("", "[drain]\nlinger = \"3\"\n", ["edge.toml:12:10:", "not a duration", "\"30s\""]),
        ("", "[drain]\nhosts = \"2h\"\n", ["edge.toml:12:9:", "2h is out of range", "1h"]),
        ("", "[drain]\ngrace = \"3s\"\n", ["edge.toml:12:", "unknown key `grace`", "grace-period"]),
    ] {
        let mistakes = parse(&folder, &text(tunnel, more)).unwrap_err().to_string();
        assert!(says.iter().all(|part| mistakes.contains(part)), "{mistakes}");
    }
}

#[test]
fn what_is_said_of_certificates_is_taken_or_has_its_mistake() {
    let folder = folder();
    let ca = DevelopmentCa::open(folder.path()).unwrap();
    let ca = ca.path().file_name().unwrap().to_str().unwrap().to_owned();
    fs::write(folder.path().join("eab.key"), "c2VjcmV0LXNlY3JldC1zZWNyZXQ\n").unwrap();
    fs::write(folder.path().join("short.key"), "c2hvcnQ").unwrap();
    fs::write(folder.path().join("seal.key"), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").unwrap();
    let with = |part: &str| {
        let visitors = "[visitors]\nhttp = \"127.0.0.1:0\"\nhttps = \"127.0.0.1:0\"\n";
        parse(&folder, &format!("{visitors}{SERVER}{TUNNEL}{part}")).map_err(|mistakes| mistakes.to_string())
    };
    let api = |keys: &str| format!("[api]\nlisten = \"127.0.0.1:0\"\n{keys}\n");
    let acme = |keys: &str| format!("{}[acme]\n{keys}\n", api(""));
    let name = |keys: &str| format!("[[name]]\nhostnames = [\"a.test\"]\n{keys}\n");

    let own = api("certificate = \"acme\"\nhostname = \"API.example.com\"");
    let settings = with(&format!("{own}[acme]\n")).unwrap();
    assert_eq!(settings.api.unwrap().hostname.as_deref(), Some("api.example.com"));
    let external = "external-account = \"kid\"\nexternal-account-key-file = \"eab.key\"";
    let settings = with(&acme(external)).unwrap();
    let external = settings.acme.unwrap().external.unwrap();
    assert_eq!((external.id.as_str(), external.key.as_slice()), ("kid", &b"secret-secret-secret"[..]));
    assert_eq!(format!("{external:?}"), "ExternalAccount(\"kid\", ..)");
    let node = "[dns]\nlisten = \"127.0.0.1:0\"\nzones = [\"example.com\"]\nname-servers = [\"ns.example.net\"]\n\
        [[dns.node]]\nregion = \"west\"\naddresses = [\"192.0.2.1\"]\n";
    let addresses = |keys: &str| with(&format!("{}{node}", acme(keys))).unwrap().acme.unwrap().addresses;
    assert_eq!(
        addresses(""),
        ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()],
        "those that resolvers are told"
    );
    assert_eq!(
        addresses("addresses = [\"2001:db8::1\"]"),
        ["2001:db8::1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert!(matches!(with(&api("key-file = \"seal.key\"")).unwrap().seal, Keys::Given(_)));
    assert!(matches!(with(&acme("key-file = \"seal.key\"")).unwrap().seal, Keys::Given(_)));
    let wanted = name(&format!("client-certificate = \"required\"\nclient-ca = \"{ca}\""));
    let wish = with(&wanted).unwrap().secure.find("A.test:443").unwrap().certificate.unwrap();
    assert!(wish.is_required);

    for (part, said) in [
        (own.clone(), "a certificate is to be ordered, but there is no [acme]"),
        (format!("{}[acme]\n", api("certificate = \"acme\"")), "`hostname` is missing"),
        (api("hostname = \"api.example.com\""), "a name for which no certificate is ordered"),
        (acme("external-account = \"kid\""), "`external-account-key-file` is missing"),
        (acme("external-account-key-file = \"eab.key\""), "`external-account` is missing"),
        (
            acme("external-account = \"kid\"\nexternal-account-key-file = \"short.key\""),
            "holds no key of an external account",
        ),
        (acme("external-account = \"kid\"\nexternal-account-key-file = \"none.key\""), "reading none.key"),
        (acme("addresses = [\"example.com\"]"), "`example.com` is no IP address"),
        (acme("resolver = \"192.0.2.53\""), "`192.0.2.53` is no address of a name server"),
        (api("key-file = \"eab.key\""), "openssl rand -base64 32"),
        (
            format!("{}[acme]\nkey-file = \"seal.key\"\n", api("key-file = \"seal.key\"")),
            "the key file is named twice",
        ),
        (name("client-certificate = \"required\""), "`client-ca` is missing"),
        (name(&format!("client-ca = \"{ca}\"")), "`client-certificate` is missing"),
        (
            name(&format!("client-certificate = \"yes\"\nclient-ca = \"{ca}\"")),
            "`yes` says nothing about certificates",
        ),
        (name("client-certificate = \"required\"\nclient-ca = \"eab.key\""), "holds no certificate"),
        (name("client-certificate = \"required\"\nclient-ca = \"none.pem\""), "none.pem"),
    ] {
        let Err(mistakes) = with(&part) else { panic!("{part}") };
        assert!(mistakes.contains(said), "{said}: {mistakes}");
        assert!(
            !mistakes.contains("c2VjcmV0") && !mistakes.contains("BwcH"),
            "a secret is printed: {mistakes}"
        );
    }
}
