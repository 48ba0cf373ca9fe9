//! The self-hostable edge: accepts connectors, serves visitors.
//!
//! It knows who may connect, which host name belongs to which tunnel and how a visitor's request
//! becomes a stream on a connection. It does not know what stands behind a host, and contains no
//! plugin engine.
//!
//! Read in this order: [`Settings`] (what an operator writes), `app` (build, run, drain) with its shards
//! (one thread each: runtime, visitor listeners, QUIC endpoints), then along a request: `visitor`
//! (listeners, host name to tunnel), `forward` (request to stream and back), `steering` (which
//! tunnel behind a load balancer), `balancer` (which connection, how often again), `monitors` (whether
//! it is well), `registry` (live connections),
//! `transport` (streams over QUIC and HTTP/2), `tunnel` (how a connection becomes live). What changes while it runs
//! comes from `store` (records on disk) through `state` (all of them in memory, and what requests see of them), and
//! is changed by `api`; `alerts` tells accounts what has become of what they have. `forward/headers` and `visitor/error_page` are the only places that decide what a visitor
//! may say about itself and what an error looks like. `certificates` is what is shown over TLS, and `issuance` has an authority make some of it. `dns` tells resolvers where names lead. `management` is the way to ask a host about itself. `metrics` is what all of them count, and `admin` shows it.

mod admin;
mod alerts;
mod api;
mod app;
mod balancer;
mod certificates;
mod dns;
mod forward;
mod issuance;
mod limits;
mod listen;
mod management;
mod metrics;
mod monitors;
mod nodes;
mod peers;
mod regions;
mod registry;
mod remote_config;
mod settings;
mod shutdown;
mod state;
mod steering;
mod store;
mod tls;
mod transport;
mod tunnel;
mod visitor;

pub use app::watchdog::Watchdog;
pub use app::{Edge, ServerAddress};
#[doc(hidden)]
pub use dns::answers as dns_answers;
pub use nodes::join::Joining;
pub use nodes::provision::{FleetNodes, InvitationRequest, Invited, NodeLine};
#[doc(hidden)]
pub use peers::frames_again as peer_frames;
pub use settings::{Settings, SettingsError};
pub use state::migrate::{MigrateTo, Migrated};
pub use state::provision::{
    AccountLine, AuditLine, Provisioned, Provisioning, RecordLine, TokenRequest, TokenSummary,
};
