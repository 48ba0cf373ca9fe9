//! Who calls, and whether they may. Knows tokens and calls; does not know what a call does.

use http::header::{AUTHORIZATION, HeaderMap};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::call::{Ask, Call};
use super::envelope::Problem;
use crate::state::snapshot::Snapshot;
use crate::state::token::{digest, parse};
use crate::store::records::{Scope, Token};
use crate::store::timestamp::Timestamp;

/// A token that was proved. Only [`Identity::of`] makes one.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    id: String,
    token: Token,
}

/// A call that its caller may make: whoever has it need not ask again, and has the values that were asked
/// about. Only [`Identity::permit`] makes one.
#[derive(Debug)]
pub(super) struct Permit {
    call: Call,
    identity: Identity,
}

impl Identity {
    /// Whose token the request carries.
    pub(super) fn of(headers: &HeaderMap, snapshot: &Snapshot, now: Timestamp) -> Result<Self, Problem> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Problem::Unauthenticated);
        };
        let value = value.to_str().map_err(|_| Problem::Unauthenticated)?;
        let (scheme, text) = value.split_once(' ').ok_or(Problem::Unauthenticated)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Problem::Unauthenticated);
        }
        let (id, secret) = parse(text).ok_or(Problem::Unauthenticated)?;
        let known = snapshot.tokens.get(id).map(|kept| &kept.record);
        // A token that is not known takes as long as a wrong secret.
        let wanted = known.map_or(NOBODY, |token| token.sha256.as_str());
        let proved = bool::from(wanted.as_bytes().ct_eq(digest(secret).as_bytes()));
        let token = known.filter(|_| proved).ok_or(Problem::Unauthenticated)?;
        if token.is_over(now) {
            return Err(Problem::Unauthenticated);
        }
        Ok(Self { id: id.to_owned(), token: token.clone() })
    }

    /// Who it is, for the audit log.
    pub(super) fn actor(&self) -> String {
        format!("token {} ({})", self.id, self.token.name)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn token(&self) -> &Token {
        &self.token
    }

    pub(super) fn account(&self) -> &str {
        &self.token.account
    }

    /// Whether this token may be used for the routes of this zone.
    pub(super) fn has_zone(&self, id: &str) -> bool {
        match &self.token.scope {
            Scope::Account => true,
            Scope::Zones(zones) => zones.iter().any(|zone| zone == id),
            Scope::Tunnels(_) => false,
        }
    }

    /// Whether this token may know that this tunnel of its account exists.
    pub(super) fn reaches_tunnel(&self, id: &Uuid) -> bool {
        match &self.token.scope {
            Scope::Account | Scope::Zones(_) => true,
            Scope::Tunnels(tunnels) => tunnels.contains(id),
        }
    }

    pub(super) fn permit(self, call: Call) -> Result<Permit, Problem> {
        // What another account has is as if it were not there.
        if let Some((account, what)) = account_of(&call)
            && account != self.token.account
        {
            return Err(Problem::NotFound(what));
        }
        if self.token.read_only && !is_read(&call) {
            return Err(Problem::Forbidden);
        }
        let reaches = match (&call, &self.token.scope) {
            (Call::OpenApi | Call::VerifyToken { .. } | Call::CreateQuickTunnel | Call::JoinFleet, _) => true,
            (Call::ListAccounts | Call::LookAtAccount { .. }, _) => true,
            (Call::ListTunnels { .. } | Call::Later { .. }, _) => true,
            (Call::CreateTunnel { .. }, scope) => *scope == Scope::Account,
            (Call::Tunnel { .. }, Scope::Account) => true,
            (Call::Tunnel { ask, .. }, Scope::Zones(_)) => *ask == Ask::Look,
            (Call::Tunnel { tunnel, ask, .. }, Scope::Tunnels(_)) => {
                self.reaches_tunnel(tunnel) && *ask != Ask::Delete
            }
            // Pools are of the whole account; whoever has a zone sees what its load balancers can lead to.
            (Call::Balancing { .. }, Scope::Account) => true,
            (Call::Balancing { ask, .. }, Scope::Zones(_)) => ask.is_read(),
            (Call::Balancing { .. }, Scope::Tunnels(_)) => false,
            (Call::Alerting { .. }, scope) => *scope == Scope::Account,
            (Call::ListZones, scope) => !matches!(scope, Scope::Tunnels(_)),
            (
                Call::LookAtZone { zone }
                | Call::Records { zone, .. }
                | Call::Balancers { zone, .. }
                | Call::LaterInZone { zone, .. }
                | Call::ListRoutes { zone }
                | Call::PutRoute { zone, .. }
                | Call::DeleteRoute { zone, .. },
                _,
            ) => self.has_zone(zone),
        };
        if reaches { Ok(Permit { call, identity: self }) } else { Err(Problem::Forbidden) }
    }
}

impl Permit {
    pub(super) fn into_parts(self) -> (Call, Identity) {
        (self.call, self.identity)
    }

    pub(super) fn call(&self) -> &Call {
        &self.call
    }
}

/// The account that a call names, and what of it is asked for.
fn account_of(call: &Call) -> Option<(&str, &'static str)> {
    match call {
        Call::ListTunnels { account }
        | Call::CreateTunnel { account }
        | Call::LookAtAccount { account }
        | Call::VerifyToken { account: Some(account) }
        | Call::Balancing { account, .. }
        | Call::Alerting { account, .. }
        | Call::Later { account, .. } => Some((account, "account")),
        Call::Tunnel { account, .. } => Some((account, "tunnel")),
        Call::OpenApi
        | Call::VerifyToken { account: None }
        | Call::CreateQuickTunnel
        | Call::JoinFleet
        | Call::ListAccounts
        | Call::ListZones
        | Call::LookAtZone { .. }
        | Call::Records { .. }
        | Call::Balancers { .. }
        | Call::LaterInZone { .. }
        | Call::ListRoutes { .. }
        | Call::PutRoute { .. }
        | Call::DeleteRoute { .. } => None,
    }
}

/// Whether it changes nothing and shows no secret.
fn is_read(call: &Call) -> bool {
    match call {
        Call::OpenApi
        | Call::VerifyToken { .. }
        | Call::ListTunnels { .. }
        | Call::ListAccounts
        | Call::LookAtAccount { .. }
        | Call::ListZones
        | Call::LookAtZone { .. }
        | Call::ListRoutes { .. } => true,
        Call::Records { ask, .. } => ask.is_read(),
        Call::Balancing { ask, .. } | Call::Balancers { ask, .. } => ask.is_read(),
        Call::Alerting { ask, .. } => ask.is_read(),
        Call::Tunnel { ask, .. } => {
            matches!(ask, Ask::Look | Ask::Connectors | Ask::Connector(_) | Ask::Configuration)
        }
        Call::CreateQuickTunnel
        | Call::JoinFleet
        | Call::CreateTunnel { .. }
        | Call::PutRoute { .. }
        | Call::DeleteRoute { .. }
        | Call::Later { .. }
        | Call::LaterInZone { .. } => false,
    }
}

/// No secret has this digest.
const NOBODY: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::state::snapshot::Kept;
    use crate::store::StoreRevision;

    fn token(scope: Scope) -> Token {
        Token {
            name: "test".to_owned(),
            account: "own".to_owned(),
            scope,
            read_only: false,
            sha256: digest("secret"),
            created_at: Timestamp::now(),
            expires_at: None,
            revoked_at: None,
        }
    }

    fn identify(token: Option<Token>, values: &[&str]) -> Result<Identity, Problem> {
        let mut snapshot = Snapshot::default();
        if let Some(record) = token {
            snapshot.tokens.insert("one".to_owned(), Kept { record, revision: StoreRevision(1), bytes: 0 });
        }
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        Identity::of(&headers, &snapshot, Timestamp::now())
    }

    #[test]
    fn only_a_whole_living_token_is_somebody() {
        let good = || Some(token(Scope::Account));
        let right = "Bearer adit_one_secret";
        assert_eq!(identify(good(), &[right]).unwrap().id(), "one");
        assert!(identify(good(), &["bearer adit_one_secret"]).is_ok());
        let over = |token: Token| identify(Some(token), &[right]).is_err();
        assert!(over(Token { expires_at: Some(Timestamp::now()), ..token(Scope::Account) }));
        assert!(over(Token { revoked_at: Some(Timestamp::now()), ..token(Scope::Account) }));
        for (known, values) in [
            (None, &[right][..]),
            (good(), &[]),
            (good(), &[right, right]),
            (good(), &["Bearer adit_one_wrong"]),
            (good(), &["Bearer adit_two_secret"]),
            (good(), &["Bearer adit_one_"]),
            (good(), &["Bearer adit_one"]),
            (good(), &["Bearer secret"]),
            (good(), &["Basic adit_one_secret"]),
            (good(), &["adit_one_secret"]),
        ] {
            assert_eq!(identify(known, values).unwrap_err(), Problem::Unauthenticated, "{values:?}");
        }
    }

    #[test]
    fn a_token_reaches_as_far_as_its_scope() {
        let (mine, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let tunnel = |account: &str, tunnel, ask| Call::Tunnel { account: account.to_owned(), tunnel, ask };
        let route = |zone: &str| Call::PutRoute { zone: zone.to_owned(), tunnel: mine };
        let create = |account: &str| Call::CreateTunnel { account: account.to_owned() };
        let (account, zones, tunnels) =
            (Scope::Account, Scope::Zones(vec!["z".to_owned()]), Scope::Tunnels(vec![mine]));
        // By scope: account, zones, tunnels, and a reader of the account.
        for (call, wanted) in [
            (create("own"), [true, false, false, false]),
            (create("other"), [false; 4]),
            (Call::ListTunnels { account: "own".into() }, [true; 4]),
            (Call::ListTunnels { account: "other".into() }, [false; 4]),
            (tunnel("own", mine, Ask::Look), [true; 4]),
            (tunnel("own", mine, Ask::Token), [true, false, true, false]),
            (tunnel("own", mine, Ask::Delete), [true, false, false, false]),
            (tunnel("own", mine, Ask::PutConfiguration), [true, false, true, false]),
            (tunnel("own", other, Ask::Look), [true, true, false, true]),
            (tunnel("other", mine, Ask::Look), [false; 4]),
            (route("z"), [true, true, false, false]),
            (route("y"), [true, false, false, false]),
            (Call::ListRoutes { zone: "z".into() }, [true, true, false, true]),
        ] {
            let reader = Token { read_only: true, ..token(account.clone()) };
            let tokens = [token(account.clone()), token(zones.clone()), token(tunnels.clone()), reader];
            for (token, wanted) in tokens.into_iter().zip(wanted) {
                let scope = token.scope.clone();
                let identity = Identity { id: "one".to_owned(), token };
                assert_eq!(identity.permit(call.clone()).is_ok(), wanted, "{call:?} with {scope:?}");
            }
        }
    }
}
