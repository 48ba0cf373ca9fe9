//! What is said on the control stream and on RPC streams, as plain values (wire.md sections 3 and 9.1).
//!
//! Knows the messages of the generated schema; calling and answering is the business of whoever owns the
//! stream. Every text and list that a stranger fills has a limit here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use uuid::Uuid;

use crate::credentials::{InvalidSecret, TunnelSecret};
use crate::framing::excerpt;
use crate::schema::tunnelrpc_capnp::{
    client_info, configuration_manager, connection_details, connection_error, connection_options,
    connection_response, registration_server, tunnel_auth, update_configuration_response,
};

/// Longest configuration that is pushed or reported, in bytes of JSON.
pub const MAX_CONFIGURATION: usize = 1024 * 1024;
/// Longest account tag, version, architecture, feature or location name, in bytes.
pub const MAX_NAME: usize = 256;
/// Most features that a connector may claim.
pub const MAX_FEATURES: usize = 64;
/// Longest cause of an error that is kept, in bytes; the rest is cut off.
pub const MAX_CAUSE: usize = 4096;

/// Cause of a [`ConnectionError`] by which a connector learns that the edge still holds a connection of this
/// connector and index. Matched exactly.
pub const DUPLICATE_CONNECTION: &str = "EDUPCONN";

/// A message that does not say what it must.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    #[error("malformed message")]
    Message(#[from] capnp::Error),
    #[error("{field} is {bytes} bytes long, more than {limit}")]
    TooLong { field: &'static str, bytes: usize, limit: usize },
    #[error("{field} is not UTF-8")]
    NotText { field: &'static str },
    #[error("{field} is {bytes} bytes long, a uuid has 16")]
    Uuid { field: &'static str, bytes: usize },
    #[error("originLocalIp is {bytes} bytes long, an address has 4 or 16")]
    Address { bytes: usize },
    #[error("{count} features are more than {MAX_FEATURES}")]
    TooManyFeatures { count: u32 },
    #[error(transparent)]
    Secret(#[from] InvalidSecret),
    #[error("answer to the registration is neither details nor an error")]
    UnknownAnswer,
}

/// What a connector says to become a connection of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub auth: TunnelAuth,
    pub tunnel_id: Uuid,
    /// Slot of the connector, 0 to 3 in practice.
    pub conn_index: u8,
    pub options: ConnectionOptions,
}

/// Proof that a connector may serve a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelAuth {
    pub account_tag: String,
    pub tunnel_secret: TunnelSecret,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionOptions {
    pub client: ClientInfo,
    /// Informative. IPv4 is sent in its 16-byte form and given back as IPv4.
    pub origin_local_ip: Option<IpAddr>,
    pub replace_existing: bool,
    pub compression_quality: u8,
    pub num_previous_attempts: u8,
}

/// Who the connector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// The connector id, one per process.
    pub client_id: Uuid,
    pub features: Vec<String>,
    pub version: String,
    /// Operating system and architecture, as in "linux_amd64".
    pub arch: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationAnswer {
    Registered(ConnectionDetails),
    Refused(ConnectionError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionDetails {
    /// Id of this one connection.
    pub uuid: Uuid,
    pub location_name: String,
    /// The edge will push a configuration, so the connector does not report its own.
    pub tunnel_is_remotely_managed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionError {
    pub cause: String,
    /// Whole nanoseconds on the wire; a negative time is read as zero.
    pub retry_after: Duration,
    pub should_retry: bool,
}

/// A configuration that an edge pushes, or that a connector reports (which has no version).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    pub version: i32,
    /// JSON, not looked at here.
    pub config: Vec<u8>,
}

/// What a connector made of a pushed configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationAnswer {
    /// Version that serves now: -1 when none was ever applied.
    pub latest_applied_version: i32,
    /// Why the pushed one was not applied.
    pub error: Option<String>,
}

impl Registration {
    pub fn read(
        params: registration_server::register_connection_params::Reader<'_>,
    ) -> Result<Self, RpcError> {
        Ok(Self {
            auth: TunnelAuth::read(params.get_auth()?)?,
            tunnel_id: uuid("tunnelId", params.get_tunnel_id()?)?,
            conn_index: params.get_conn_index(),
            options: ConnectionOptions::read(params.get_options()?)?,
        })
    }

    pub fn write(&self, mut params: registration_server::register_connection_params::Builder<'_>) {
        self.auth.write(params.reborrow().init_auth());
        params.set_tunnel_id(self.tunnel_id.as_bytes());
        params.set_conn_index(self.conn_index);
        self.options.write(params.init_options());
    }
}

impl TunnelAuth {
    pub fn read(auth: tunnel_auth::Reader<'_>) -> Result<Self, RpcError> {
        Ok(Self {
            account_tag: name("accountTag", auth.get_account_tag()?)?,
            tunnel_secret: TunnelSecret::new(auth.get_tunnel_secret()?)?,
        })
    }

    pub fn write(&self, mut auth: tunnel_auth::Builder<'_>) {
        auth.set_account_tag(&self.account_tag);
        auth.set_tunnel_secret(self.tunnel_secret.as_bytes());
    }
}

impl ConnectionOptions {
    pub fn read(options: connection_options::Reader<'_>) -> Result<Self, RpcError> {
        Ok(Self {
            client: ClientInfo::read(options.get_client()?)?,
            origin_local_ip: address(options.get_origin_local_ip()?)?,
            replace_existing: options.get_replace_existing(),
            compression_quality: options.get_compression_quality(),
            num_previous_attempts: options.get_num_previous_attempts(),
        })
    }

    pub fn write(&self, mut options: connection_options::Builder<'_>) {
        self.client.write(options.reborrow().init_client());
        match self.origin_local_ip {
            None => {}
            Some(IpAddr::V4(ip)) => options.set_origin_local_ip(&ip.to_ipv6_mapped().octets()),
            Some(IpAddr::V6(ip)) => options.set_origin_local_ip(&ip.octets()),
        }
        options.set_replace_existing(self.replace_existing);
        options.set_compression_quality(self.compression_quality);
        options.set_num_previous_attempts(self.num_previous_attempts);
    }
}

impl ClientInfo {
    pub fn read(client: client_info::Reader<'_>) -> Result<Self, RpcError> {
        let features = client.get_features()?;
        if features.len() as usize > MAX_FEATURES {
            return Err(RpcError::TooManyFeatures { count: features.len() });
        }
        Ok(Self {
            client_id: uuid("clientId", client.get_client_id()?)?,
            features: features.iter().map(|feature| name("feature", feature?)).collect::<Result<_, _>>()?,
            version: name("version", client.get_version()?)?,
            arch: name("arch", client.get_arch()?)?,
        })
    }

    pub fn write(&self, mut client: client_info::Builder<'_>) {
        client.set_client_id(self.client_id.as_bytes());
        let mut features = client.reborrow().init_features(self.features.len() as u32);
        for (index, feature) in (0..).zip(&self.features) {
            features.set(index, feature);
        }
        client.set_version(&self.version);
        client.set_arch(&self.arch);
    }
}

impl RegistrationAnswer {
    pub fn read(response: connection_response::Reader<'_>) -> Result<Self, RpcError> {
        use connection_response::result::Which;
        match response.get_result().which() {
            Ok(Which::Error(error)) => Ok(Self::Refused(ConnectionError::read(error?)?)),
            Ok(Which::ConnectionDetails(details)) => Ok(Self::Registered(ConnectionDetails::read(details?)?)),
            Err(capnp::NotInSchema(_)) => Err(RpcError::UnknownAnswer),
        }
    }

    pub fn write(&self, response: connection_response::Builder<'_>) {
        let result = response.init_result();
        match self {
            Self::Registered(details) => details.write(result.init_connection_details()),
            Self::Refused(error) => error.write(result.init_error()),
        }
    }
}

impl ConnectionDetails {
    pub fn read(details: connection_details::Reader<'_>) -> Result<Self, RpcError> {
        Ok(Self {
            uuid: uuid("uuid", details.get_uuid()?)?,
            location_name: name("locationName", details.get_location_name()?)?,
            tunnel_is_remotely_managed: details.get_tunnel_is_remotely_managed(),
        })
    }

    pub fn write(&self, mut details: connection_details::Builder<'_>) {
        details.set_uuid(self.uuid.as_bytes());
        details.set_location_name(&self.location_name);
        details.set_tunnel_is_remotely_managed(self.tunnel_is_remotely_managed);
    }
}

impl ConnectionError {
    pub fn read(error: connection_error::Reader<'_>) -> Result<Self, RpcError> {
        Ok(Self {
            cause: excerpt(error.get_cause()?.as_bytes(), MAX_CAUSE),
            retry_after: Duration::from_nanos(error.get_retry_after().try_into().unwrap_or(0)),
            should_retry: error.get_should_retry(),
        })
    }

    pub fn write(&self, mut error: connection_error::Builder<'_>) {
        error.set_cause(&self.cause);
        error.set_retry_after(self.retry_after.as_nanos().try_into().unwrap_or(i64::MAX));
        error.set_should_retry(self.should_retry);
    }
}

impl Configuration {
    pub fn read(
        params: configuration_manager::update_configuration_params::Reader<'_>,
    ) -> Result<Self, RpcError> {
        Ok(Self { version: params.get_version(), config: configuration(params.get_config()?)? })
    }

    pub fn write(&self, mut params: configuration_manager::update_configuration_params::Builder<'_>) {
        params.set_version(self.version);
        params.set_config(&self.config);
    }
}

impl ConfigurationAnswer {
    pub fn read(response: update_configuration_response::Reader<'_>) -> Result<Self, RpcError> {
        let error = response.get_err()?;
        Ok(Self {
            latest_applied_version: response.get_latest_applied_version(),
            error: if error.is_empty() { None } else { Some(excerpt(error.as_bytes(), MAX_CAUSE)) },
        })
    }

    pub fn write(&self, mut response: update_configuration_response::Builder<'_>) {
        response.set_latest_applied_version(self.latest_applied_version);
        response.set_err(self.error.as_deref().unwrap_or(""));
    }
}

/// JSON of the configuration that a connector reports about itself.
pub fn read_local_configuration(
    params: registration_server::update_local_configuration_params::Reader<'_>,
) -> Result<Vec<u8>, RpcError> {
    configuration(params.get_config()?)
}

fn configuration(config: &[u8]) -> Result<Vec<u8>, RpcError> {
    limited("config", config, MAX_CONFIGURATION).map(<[u8]>::to_vec)
}

fn name(field: &'static str, text: capnp::text::Reader<'_>) -> Result<String, RpcError> {
    let text = limited(field, text.as_bytes(), MAX_NAME)?;
    match str::from_utf8(text) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(RpcError::NotText { field }),
    }
}

fn limited<'b>(field: &'static str, bytes: &'b [u8], limit: usize) -> Result<&'b [u8], RpcError> {
    if bytes.len() > limit {
        return Err(RpcError::TooLong { field, bytes: bytes.len(), limit });
    }
    Ok(bytes)
}

fn uuid(field: &'static str, bytes: &[u8]) -> Result<Uuid, RpcError> {
    Uuid::from_slice(bytes).map_err(|_| RpcError::Uuid { field, bytes: bytes.len() })
}

fn address(bytes: &[u8]) -> Result<Option<IpAddr>, RpcError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(Some(Ipv4Addr::from(octets).into()));
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(octets) => Ok(Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())),
        Err(_) => Err(RpcError::Address { bytes: bytes.len() }),
    }
}
