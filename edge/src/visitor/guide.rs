//! Where a request goes, up to the tunnel or the load balancer: whom it is from, what its host name leads to, and
//! what the rules, places and sessions of a load balancer make of it. Knows heads; does not know connections.

use std::net::IpAddr;
use std::sync::Arc;

use adit_balance::Key;
use adit_balance::steer::Place;
use adit_protocol::extensions::{HttpVersion, TlsVersion, VisitorFacts};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Request, Version};

use super::error_page::Problem;
use super::geography::{Geography, Said};
use super::host_table::{Destination, HostTable};
use super::proxies::{Caller, Proxies};
use crate::forward::headers::{self, Facts, Upload};
use crate::forward::loops::{Looping, Loops};
use crate::forward::ray::Ray;
use crate::registry::Tunnel;
use crate::steering::{Asked, Balancer, Entry, FixedResponse, Visit};

/// What all requests are led by.
pub(crate) struct Guide {
    pub(crate) names: Arc<HostTable>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) geography: Arc<Geography>,
    /// Of a node of a fleet.
    pub(crate) loops: Option<Loops>,
}

/// Who has opened the connection that a head came by; a proxy in front may say more with each head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer<'c> {
    pub(super) address: IpAddr,
    pub(super) is_secure: bool,
    /// What its certificate says.
    pub(super) certificate: &'c [(HeaderName, HeaderValue)],
    pub(super) arrival: Arrival,
}

impl Peer<'_> {
    /// One of whom only this is known.
    pub(super) fn looked_at(address: IpAddr, is_secure: bool) -> Self {
        Self { address, is_secure, certificate: &[], arrival: Arrival::default() }
    }
}

/// How a connection was opened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Arrival {
    /// The visitor's.
    pub(super) port: Option<u16>,
    pub(super) tls: Option<TlsVersion>,
}

/// A request that is led somewhere.
pub(super) struct Led<'f> {
    /// As the origin is to get it.
    pub(super) request: Request<()>,
    pub(super) source: Source,
    pub(super) course: Course<'f>,
}

/// Whom a request is from.
pub(super) struct Source {
    pub(super) visitor: IpAddr,
    pub(super) is_secure: bool,
    /// By which it came.
    version: Version,
    /// How it came, where no proxy stands between.
    pub(super) came: VisitorFacts,
    said: Said,
}

/// Where a request is led.
pub(super) enum Course<'f> {
    /// With what keeps the visitor to its replica.
    Tunnel(&'f Arc<Tunnel>, Option<Key>),
    Balancer(&'f Arc<Balancer>, Visit),
    /// By a rule of a load balancer.
    IsAnswered(&'f Balancer, &'f FixedResponse),
}

impl Guide {
    /// What the host that a head asks for leads to.
    pub(super) fn find(&self, parts: &Parts) -> Result<(Authority, Destination), Problem> {
        if parts.method == Method::CONNECT || parts.method == Method::TRACE {
            return Err(Problem::Method);
        }
        let authority = headers::authority(parts).map_err(Problem::BadRequest)?;
        let found = self.names.find(authority.as_str()).ok_or(Problem::UnknownHost)?;
        Ok((authority, found))
    }

    /// Leads a request on to what its host was `found` to lead to.
    pub(super) fn lead<'f>(
        &self,
        parts: Parts,
        (authority, found): (Authority, &'f Destination),
        peer: Peer<'_>,
        upload: Upload,
        ray: &Ray,
    ) -> Result<Led<'f>, Problem> {
        if headers::has_other_coding(&parts.headers) {
            return Err(Problem::Coding);
        }
        let Caller { address: visitor, is_secure, chain } =
            self.proxies.caller(&parts.headers, peer.address, peer.is_secure);
        let said = self.geography.said(&parts.headers, self.proxies.trusts(peer.address));
        // What is known of a connection of a proxy's says nothing of its visitor.
        let is_direct = chain.is_none() && is_secure == peer.is_secure;
        let came = if is_direct { peer.arrival.facts(parts.version) } else { VisitorFacts::default() };
        let source = Source { visitor, is_secure, version: parts.version, came, said };
        let certificate = peer.certificate;
        let country = self.place(&source).country;
        let facts = Facts { visitor, chain: chain.as_ref(), is_secure, certificate, country, ray };
        let mut request =
            headers::for_origin(parts, authority, upload, &facts).map_err(Problem::BadRequest)?;
        if let Some(loops) = &self.loops {
            loops.pass(request.headers_mut()).map_err(|Looping| Problem::Looping)?;
        }
        let course = match found {
            Destination::Tunnel(tunnel) => {
                Course::Tunnel(tunnel, tunnel.stickiness.key(visitor, request.headers()))
            }
            Destination::Balancer(balancer) => {
                match self.asked(&source, &request, |asked| balancer.enter(asked)) {
                    Entry::Goes(visit) => Course::Balancer(balancer, visit),
                    Entry::IsAnswered(fixed) => Course::IsAnswered(balancer, fixed),
                }
            }
        };
        Ok(Led { request, source, course })
    }

    /// Where a request is from.
    pub(super) fn place<'p>(&'p self, source: &'p Source) -> Place<'p> {
        self.geography.place(&source.said, source.visitor)
    }

    /// Hands out a request as load balancers see it.
    pub(super) fn asked<T>(
        &self,
        source: &Source,
        request: &Request<()>,
        look: impl FnOnce(&Asked<'_>) -> T,
    ) -> T {
        let Source { visitor, is_secure, version, .. } = *source;
        look(&Asked { visitor, is_secure, version, request, place: &|| self.place(source) })
    }
}

impl Arrival {
    fn facts(self, version: Version) -> VisitorFacts {
        let Self { port, tls } = self;
        VisitorFacts { attempt: None, port, http: HttpVersion::of(version), tls }
    }
}
