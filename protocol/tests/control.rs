//! The control stream of other implementations says what they meant, and ours says the same.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use adit_protocol::credentials::TunnelSecret;
use adit_protocol::framing::rpc_reader_options;
use adit_protocol::rpc::{
    ClientInfo, Configuration, ConfigurationAnswer, ConnectionDetails, ConnectionError, ConnectionOptions,
    DUPLICATE_CONNECTION, MAX_CAUSE, MAX_CONFIGURATION, MAX_FEATURES, MAX_NAME, Registration,
    RegistrationAnswer, RpcError, TunnelAuth, read_local_configuration,
};
use adit_protocol::schema::tunnelrpc_capnp::{
    configuration_manager, connection_response, registration_server, update_configuration_response,
};
use capnp::message::{Builder, Reader};
use capnp::serialize::{OwnedSegments, read_message, try_read_message};
use capnp::traits::{FromPointerReader, HasTypeId};
use capnp_rpc::rpc_capnp::{call, message, return_};
use uuid::{Uuid, uuid};

type Message = Reader<OwnedSegments>;

fn messages(name: &str) -> Vec<Message> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name).with_extension("bin");
    let bytes = std::fs::read(file).unwrap();
    let mut rest = bytes.strip_prefix(&adit_protocol::stream::RPC_SIGNATURE).unwrap_or(&bytes);
    std::iter::from_fn(|| try_read_message(&mut rest, rpc_reader_options()).unwrap()).collect()
}

/// Parameters of all calls of a method, in order.
fn calls<'m, T: FromPointerReader<'m>>(messages: &'m [Message], interface: u64, method: u16) -> Vec<T> {
    let calls = messages.iter().filter_map(|message| match message.get_root::<message::Reader<'_>>() {
        Ok(root) => match root.which() {
            Ok(message::Call(call)) => Some(call.unwrap()),
            _ => None,
        },
        Err(error) => panic!("{error}"),
    });
    calls
        .filter(|call: &call::Reader<'_>| {
            call.get_interface_id() == interface && call.get_method_id() == method
        })
        .map(|call| call.get_params().unwrap().get_content().get_as().unwrap())
        .collect()
}

/// Results of all answers in order, without the first one, which is the bootstrap capability.
fn results<'m, T: FromPointerReader<'m>>(messages: &'m [Message]) -> Vec<T> {
    messages
        .iter()
        .filter_map(|message| match message.get_root::<message::Reader<'_>>().unwrap().which() {
            Ok(message::Return(answer)) => Some(answer.unwrap()),
            _ => None,
        })
        .skip(1)
        .filter_map(|answer| match answer.which() {
            Ok(return_::Results(payload)) => Some(payload.unwrap().get_content().get_as().unwrap()),
            _ => None,
        })
        .collect()
}

const REGISTRATION_SERVER: u64 = registration_server::Client::TYPE_ID;
const CONFIGURATION_MANAGER: u64 = configuration_manager::Client::TYPE_ID;

fn secret() -> TunnelSecret {
    let bytes: Vec<u8> = (0..32).collect();
    TunnelSecret::new(&bytes).unwrap()
}

fn registration() -> Registration {
    let features = [
        "allow_remote_config",
        "serialized_headers",
        "support_datagram_v2",
        "support_quic_eof",
        "management_logs",
    ];
    Registration {
        auth: TunnelAuth { account_tag: "0123456789abcdef0123456789abcdef".into(), tunnel_secret: secret() },
        tunnel_id: uuid!("11111111-2222-4333-8444-555555555555"),
        conn_index: 2,
        options: ConnectionOptions {
            client: ClientInfo {
                client_id: uuid!("33333333-4444-4555-8666-777777777777"),
                features: features.map(Into::into).into(),
                version: "2026.8.2".into(),
                arch: "linux_amd64".into(),
            },
            origin_local_ip: Some(Ipv4Addr::LOCALHOST.into()),
            replace_existing: false,
            compression_quality: 0,
            num_previous_attempts: 3,
        },
    }
}

fn read_registration(messages: &[Message]) -> Registration {
    let calls = calls(messages, REGISTRATION_SERVER, 0);
    assert_eq!(calls.len(), 1);
    Registration::read(calls[0]).unwrap()
}

#[test]
fn the_registration_of_a_live_connector_is_understood() {
    let first600 = "control-quic-connector-first600";
    for name in ["control-quic-connector", first600, "control-h2-connector"] {
        let messages = messages(name);
        let mut read = read_registration(&messages);
        let mut expected = registration();
        assert_eq!(read.options.client.client_id.get_version_num(), 4, "{name}");
        expected.options.client.client_id = read.options.client.client_id;
        read.options.client.features.sort();
        expected.options.client.features.sort();
        expected.conn_index = 0;
        expected.options.num_previous_attempts = 0;
        assert_eq!(read, expected, "{name}");
        let reported = calls(&messages, REGISTRATION_SERVER, 2);
        assert_eq!(reported.len(), usize::from(name != first600));
        for config in reported {
            let config = read_local_configuration(config).unwrap();
            assert!(serde_json::from_slice::<serde_json::Value>(&config).unwrap()["ingress"].is_array());
        }
    }
}

#[test]
fn registrations_of_the_go_library_are_understood() {
    for name in ["ok", "remote", "retry", "perm", "dup"] {
        let read = read_registration(&messages(&format!("go-register-{name}-connector")));
        assert_eq!(read, registration(), "{name}");
    }
}

#[test]
fn answers_of_the_go_library_are_understood() {
    let registered = |remote| {
        RegistrationAnswer::Registered(ConnectionDetails {
            uuid: Uuid::from_bytes([0xab; 16]),
            location_name: "lab01".into(),
            tunnel_is_remotely_managed: remote,
        })
    };
    let refused = |cause: &str, seconds, should_retry| {
        RegistrationAnswer::Refused(ConnectionError {
            cause: cause.into(),
            retry_after: Duration::from_secs(seconds),
            should_retry,
        })
    };
    let table = [
        ("ok", registered(false)),
        ("remote", registered(true)),
        ("retry", refused("try later", 3, true)),
        ("perm", refused("no such tunnel", 0, false)),
        ("dup", refused(DUPLICATE_CONNECTION, 0, false)),
    ];
    for (name, expected) in table {
        let messages = messages(&format!("go-register-{name}-edge"));
        let results: Vec<registration_server::register_connection_results::Reader<'_>> = results(&messages);
        assert_eq!(RegistrationAnswer::read(results[0].get_result().unwrap()).unwrap(), expected, "{name}");
    }
}

#[test]
fn pushed_configurations_and_their_answers_are_understood() {
    let pushed = messages("go-rpcstream-edge");
    let pushed: Vec<_> = calls(&pushed, CONFIGURATION_MANAGER, 0)
        .into_iter()
        .map(|params| Configuration::read(params).unwrap())
        .collect();
    let configuration = |version, config: &str| Configuration { version, config: config.into() };
    assert_eq!(
        pushed,
        [configuration(1, r#"{"ingress":[{"service":"http_status:418"}]}"#), configuration(2, "{nope")]
    );

    let expected = [(1, None), (1, Some("bad config".to_owned()))]
        .map(|(latest_applied_version, error)| ConfigurationAnswer { latest_applied_version, error });
    let answers = messages("go-rpcstream-connector");
    let answers: Vec<configuration_manager::update_configuration_results::Reader<'_>> = results(&answers);
    let answers: Vec<_> = answers
        .iter()
        .take(expected.len())
        .map(|answer| ConfigurationAnswer::read(answer.get_result().unwrap()).unwrap())
        .collect();
    assert_eq!(answers, expected);

    let live = messages("rpcstream-live-connector");
    let live: Vec<configuration_manager::update_configuration_results::Reader<'_>> = results(&live);
    assert_eq!(ConfigurationAnswer::read(live[0].get_result().unwrap()).unwrap(), expected[0]);
}

/// Through bytes and back, as a stranger would read it.
fn reread(builder: &Builder<capnp::message::HeapAllocator>) -> Message {
    let mut bytes = Vec::new();
    capnp::serialize::write_message(&mut bytes, builder).unwrap();
    read_message(&bytes[..], rpc_reader_options()).unwrap()
}

fn register(registration: &Registration) -> Result<Registration, RpcError> {
    let mut builder = Builder::new_default();
    registration.write(builder.init_root());
    Registration::read(reread(&builder).get_root().unwrap())
}

#[test]
fn a_registration_survives_the_way_over_the_wire() {
    let mut wanted = registration();
    assert_eq!(register(&wanted).unwrap(), wanted);
    wanted.options.origin_local_ip = Some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    wanted.options.replace_existing = true;
    wanted.options.compression_quality = 9;
    wanted.options.client.features.clear();
    assert_eq!(register(&wanted).unwrap(), wanted);
    wanted.options.origin_local_ip = None;
    assert_eq!(register(&wanted).unwrap(), wanted);
}

#[test]
fn answers_and_configurations_survive_the_way_over_the_wire() {
    let answers = [
        RegistrationAnswer::Registered(ConnectionDetails {
            uuid: Uuid::from_bytes([7; 16]),
            location_name: "west".into(),
            tunnel_is_remotely_managed: true,
        }),
        RegistrationAnswer::Refused(ConnectionError {
            cause: "full".into(),
            retry_after: Duration::from_nanos(1_500_000_001),
            should_retry: true,
        }),
    ];
    for answer in answers {
        let mut builder = Builder::new_default();
        answer.write(builder.init_root());
        let message = reread(&builder);
        let response: connection_response::Reader<'_> = message.get_root().unwrap();
        assert_eq!(RegistrationAnswer::read(response).unwrap(), answer);
    }

    let configuration = Configuration { version: -7, config: vec![b' '; MAX_CONFIGURATION] };
    let mut builder = Builder::new_default();
    configuration.write(builder.init_root());
    assert_eq!(Configuration::read(reread(&builder).get_root().unwrap()).unwrap(), configuration);

    for error in [None, Some("rule 2: no service".to_owned())] {
        let answer = ConfigurationAnswer { latest_applied_version: -1, error };
        let mut builder = Builder::new_default();
        answer.write(builder.init_root());
        let message = reread(&builder);
        let response: update_configuration_response::Reader<'_> = message.get_root().unwrap();
        assert_eq!(ConfigurationAnswer::read(response).unwrap(), answer);
    }
}

#[test]
fn a_time_that_does_not_fit_is_cut_to_what_does() {
    let read = |nanoseconds: Option<i64>, duration: Duration| {
        let mut builder = Builder::new_default();
        let error = ConnectionError { cause: "x".into(), retry_after: duration, should_retry: true };
        RegistrationAnswer::Refused(error).write(builder.init_root());
        if let Some(nanoseconds) = nanoseconds {
            let response: connection_response::Builder<'_> = builder.get_root().unwrap();
            let Ok(connection_response::result::Which::Error(error)) = response.get_result().which() else {
                panic!("it was written as an error")
            };
            error.unwrap().set_retry_after(nanoseconds);
        }
        let message = reread(&builder);
        match RegistrationAnswer::read(message.get_root().unwrap()).unwrap() {
            RegistrationAnswer::Refused(error) => error.retry_after,
            RegistrationAnswer::Registered(details) => panic!("{details:?}"),
        }
    };
    assert_eq!(read(Some(-1), Duration::ZERO), Duration::ZERO);
    assert_eq!(read(None, Duration::MAX), Duration::from_nanos(i64::MAX as u64));
}

#[test]
fn a_registration_that_is_not_one_says_what_is_wrong() {
    let refused = |spoil: fn(&mut Registration)| {
        let mut registration = registration();
        spoil(&mut registration);
        register(&registration).unwrap_err().to_string()
    };
    let too_long = refused(|registration| registration.auth.account_tag = "x".repeat(MAX_NAME + 1));
    assert_eq!(too_long, "accountTag is 257 bytes long, more than 256");
    let too_long = refused(|registration| registration.options.client.version = "x".repeat(MAX_NAME + 1));
    assert_eq!(too_long, "version is 257 bytes long, more than 256");
    let too_long = refused(|registration| registration.options.client.arch = "x".repeat(MAX_NAME + 1));
    assert_eq!(too_long, "arch is 257 bytes long, more than 256");
    let too_long =
        refused(|registration| registration.options.client.features.push("x".repeat(MAX_NAME + 1)));
    assert_eq!(too_long, "feature is 257 bytes long, more than 256");
    let too_many =
        refused(|registration| registration.options.client.features = vec![String::new(); MAX_FEATURES + 1]);
    assert_eq!(too_many, "65 features are more than 64");

    // What the structs cannot hold is spoilt on the wire.
    type Params<'b> = registration_server::register_connection_params::Builder<'b>;
    let refused = |spoil: fn(Params<'_>)| {
        let mut builder = Builder::new_default();
        registration().write(builder.init_root());
        spoil(builder.get_root().unwrap());
        Registration::read(reread(&builder).get_root().unwrap()).unwrap_err().to_string()
    };
    assert_eq!(refused(|mut p| p.set_tunnel_id(&[1; 15])), "tunnelId is 15 bytes long, a uuid has 16");
    assert_eq!(refused(|mut p| p.set_tunnel_id(&[])), "tunnelId is 0 bytes long, a uuid has 16");
    let client_id = refused(|p| p.get_options().unwrap().get_client().unwrap().set_client_id(&[1; 17]));
    assert_eq!(client_id, "clientId is 17 bytes long, a uuid has 16");
    let address = refused(|p| p.get_options().unwrap().set_origin_local_ip(&[1; 5]));
    assert_eq!(address, "originLocalIp is 5 bytes long, an address has 4 or 16");
    let secret = refused(|p| p.get_auth().unwrap().set_tunnel_secret(&[]));
    assert_eq!(secret, "tunnel secret is 0 bytes long, it must be 1 to 1024");
    let tag = refused(|p| p.get_auth().unwrap().set_account_tag(capnp::text::Reader(b"\xff")));
    assert_eq!(tag, "accountTag is not UTF-8");
}

#[test]
fn an_address_of_four_bytes_is_an_address() {
    let mut builder = Builder::new_default();
    registration().write(builder.init_root());
    let params: registration_server::register_connection_params::Builder<'_> = builder.get_root().unwrap();
    params.get_options().unwrap().set_origin_local_ip(&[192, 0, 2, 1]);
    let read = Registration::read(reread(&builder).get_root().unwrap()).unwrap();
    assert_eq!(read.options.origin_local_ip, Some(Ipv4Addr::new(192, 0, 2, 1).into()));
}

#[test]
fn an_answer_of_no_known_kind_is_an_error() {
    // A root of one word of data and one pointer, with a tag of 2.
    let bytes =
        [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let message = read_message(&bytes[..], rpc_reader_options()).unwrap();
    let answer = RegistrationAnswer::read(message.get_root().unwrap());
    assert!(matches!(answer, Err(RpcError::UnknownAnswer)), "{answer:?}");
}

#[test]
fn a_long_cause_is_cut_and_a_long_configuration_is_refused() {
    let mut builder = Builder::new_default();
    let error =
        ConnectionError { cause: "ü".repeat(MAX_CAUSE), retry_after: Duration::ZERO, should_retry: false };
    RegistrationAnswer::Refused(error).write(builder.init_root());
    let message = reread(&builder);
    let Ok(RegistrationAnswer::Refused(error)) = RegistrationAnswer::read(message.get_root().unwrap()) else {
        panic!("it was written as an error")
    };
    assert_eq!(error.cause, "ü".repeat(MAX_CAUSE / 2));

    let configuration = Configuration { version: 1, config: vec![b' '; MAX_CONFIGURATION + 1] };
    let mut builder = Builder::new_default();
    configuration.write(builder.init_root());
    let refused = Configuration::read(reread(&builder).get_root().unwrap());
    assert!(matches!(refused, Err(RpcError::TooLong { field: "config", .. })), "{refused:?}");
}

#[test]
fn a_registration_does_not_print_its_secret() {
    let printed = format!("{:?}", registration());
    assert!(printed.contains("TunnelSecret(..)"), "{printed}");
    assert!(!printed.contains("30, 31"), "{printed}");
}
