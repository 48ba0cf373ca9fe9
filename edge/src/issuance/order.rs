//! One order from its beginning to the certificate. Knows what an authority wants to see; does not know why the name is
//! ordered, nor what becomes of it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::store::records::certificates::{Challenge, ChallengeKind};
use crate::store::timestamp::Timestamp;
use crate::tls::leaf::Leaf;

/// What an order has brought.
pub(super) struct Bought {
    /// In PEM, as the authority has sent it.
    pub(super) chain: String,
    /// In PKCS #8.
    pub(super) key: Vec<u8>,
}

/// Why it has brought nothing.
#[derive(Debug)]
pub(super) struct Failed {
    /// In the authority's own words, if it has said anything.
    pub(super) why: String,
    /// The authority does not know the account any more.
    pub(super) is_unknown: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let is_unknown = has_type(&error, "accountDoesNotExist");
        Self { why: error.to_string(), is_unknown }
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, is_unknown: false }
    }
}

/// Orders `name`. Whatever the authority is to find is given to `show` before it looks.
pub(super) async fn place(
    account: &Account,
    name: &str,
    before: Option<&Leaf>,
    challenges: &[ChallengeKind],
    show: impl Fn(Challenge) -> BoxFuture<'static, Result<(), String>>,
) -> Result<Bought, Failed> {
    let mut order = begin(account, name, before).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Invalid
            | AuthorizationStatus::Revoked
            | AuthorizationStatus::Expired
            | AuthorizationStatus::Deactivated => {
                return Err(format!("the authorization for {name} is {:?}", authorization.status).into());
            }
        }
        let offers = |kind: &&ChallengeKind| {
            authorization.challenges.iter().any(|offered| offered.r#type == type_of(**kind))
        };
        let Some(kind) = challenges.iter().find(offers).copied() else {
            let offered: Vec<String> =
                authorization.challenges.iter().map(|offered| format!("{:?}", offered.r#type)).collect();
            let offered = offered.join(", ");
            return Err(format!("the authority looks at {name} by {offered}, which is not configured").into());
        };
        let Some(mut challenge) = authorization.challenge(type_of(kind)) else {
            return Err("the authority has taken a challenge back".to_owned().into());
        };
        let answer = challenge.key_authorization();
        let answer = match kind {
            ChallengeKind::Http => answer.as_str().to_owned(),
            // The digest that is looked for over TLS, too.
            ChallengeKind::TlsAlpn | ChallengeKind::Dns => answer.dns_value(),
        };
        let host = name.strip_prefix("*.").unwrap_or(name).to_owned();
        let (token, until) = (challenge.token.clone(), Timestamp::now().after(LONGEST_LOOK));
        show(Challenge { kind, host, token, answer, until }).await?;
        challenge.set_ready().await?;
    }
    match order.poll_ready(&patience()).await {
        Ok(OrderStatus::Invalid) => return Err(why_invalid(&mut order).await),
        Ok(OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Processing | OrderStatus::Valid) => {}
        Err(error) => {
            let why = why_invalid(&mut order).await;
            return Err(if why.why.is_empty() { error.into() } else { why });
        }
    }
    let request = || {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?.der().to_vec();
        Ok::<_, rcgen::Error>((key.serialize_der(), request))
    };
    let (key, request) = request().map_err(|error| error.to_string())?;
    order.finalize_csr(&request).await?;
    let chain = order.poll_certificate(&patience()).await?;
    Ok(Bought { chain, key })
}

/// In the place of `before` where the authority knows of such a thing, so that it counts against no limit.
async fn begin(account: &Account, name: &str, before: Option<&Leaf>) -> Result<Order, Failed> {
    let identifiers = [Identifier::Dns(name.to_owned())];
    if let Some(replaces) = before.and_then(identifier) {
        match account.new_order(&NewOrder::new(&identifiers).replaces(replaces)).await {
            Ok(order) => return Ok(order),
            Err(Error::Unsupported(_)) => {}
            Err(error) if has_type(&error, "alreadyReplaced") => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(account.new_order(&NewOrder::new(&identifiers)).await?)
}

/// By what an authority knows one of its certificates (RFC 9773 4.1).
pub(super) fn identifier(leaf: &Leaf) -> Option<CertificateIdentifier<'static>> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes).into();
    Some(CertificateIdentifier {
        authority_key_identifier: encode(leaf.authority_key.as_deref()?),
        serial: encode(&leaf.serial),
    })
}

/// What the authority has seen when it looked.
async fn why_invalid(order: &mut Order) -> Failed {
    let mut all = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let said = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        all.extend(said.map(|problem| match &problem.detail {
            Some(detail) => detail.clone(),
            None => problem.to_string(),
        }));
    }
    all.dedup();
    all.join("; ").into()
}

fn has_type(error: &Error, word: &str) -> bool {
    let Error::Api(problem) = error else { return false };
    problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(word))
}

fn type_of(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Http => ChallengeType::Http01,
        ChallengeKind::TlsAlpn => ChallengeType::TlsAlpn01,
        ChallengeKind::Dns => ChallengeType::Dns01,
    }
}

fn patience() -> RetryPolicy {
    RetryPolicy::new().initial_delay(FIRST_LOOK).backoff(1.5).timeout(LONGEST_LOOK)
}

const FIRST_LOOK: Duration = Duration::from_millis(250);
/// How long an authority may take to look, and to sign.
const LONGEST_LOOK: Duration = Duration::from_secs(120);
