//! The provider as its document of OpenID Connect Discovery 1.0 describes it, and its keys. Both lie where all
//! instances of the plugin see them; the ticker renews them, and where the provider is away they are good for `stale`.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::plan::Plan;
use crate::surroundings::{Question, Surroundings};
use crate::url;

#[derive(Clone, Debug)]
pub struct Provider {
    pub authorization: String,
    pub token: String,
    pub userinfo: Option<String>,
    pub end_session: Option<String>,
    /// Whether it takes the secret in a header; otherwise it stands in the form.
    pub takes_basic: bool,
    /// Whether its answers always say whom they are from (RFC 9207).
    pub says_issuer: bool,
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    /// As the provider wrote it.
    jwk: String,
}

impl Provider {
    /// As it is known, asked for if it is not; but only once in a while, so that no visitor makes us ask all the time.
    pub fn find(host: &impl Surroundings, plan: &Plan) -> Option<Self> {
        Self::known(host, plan)
            .or_else(|| if host.is_first(&name(plan, "none"), WITHOUT) { fetch(host, plan) } else { None })
    }

    /// The provider after a token that none of its keys has signed: it may have new ones.
    pub fn find_anew(host: &impl Surroundings, plan: &Plan) -> Option<Self> {
        if host.is_first(&name(plan, "miss"), UNKNOWN_KEY) { fetch(host, plan) } else { None }
    }

    /// Asks if that is due. Outside of requests.
    pub fn refresh(host: &impl Surroundings, plan: &Plan) {
        let is_due = host.read(&name(plan, "fresh")).is_none();
        if is_due && host.is_first(&name(plan, "due"), AFTER_FAILURE) {
            fetch(host, plan);
        }
    }

    /// The keys, as JWK, by which a token with this key's name may be signed.
    pub fn keys(&self, id: Option<&str>) -> impl Iterator<Item = &str> {
        let fits = move |key: &&Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        self.keys.iter().filter(fits).map(|key| key.jwk.as_str())
    }

    fn known(host: &impl Surroundings, plan: &Plan) -> Option<Self> {
        let document = host.read(&name(plan, "document"))?;
        Self::read(plan, &document, &host.read(&name(plan, "keys"))?).ok()
    }

    fn read(plan: &Plan, document: &[u8], keys: &[u8]) -> Result<Self, String> {
        let document = Document::read(plan, document)?;
        let set: Value = serde_json::from_slice(keys).map_err(|error| format!("the keys: {error}"))?;
        let set = set.get("keys").and_then(Value::as_array).ok_or("the keys are no set")?;
        let key = |jwk: &Value| Key {
            id: jwk.get("kid").and_then(Value::as_str).map(str::to_owned),
            jwk: jwk.to_string(),
        };
        let keys: Vec<_> = set.iter().filter(|jwk| jwk.is_object()).take(MOST_KEYS).map(key).collect();
        if keys.is_empty() {
            return Err("there is no key in the set".to_owned());
        }
        let Document { authorization, token, userinfo, end_session, takes_basic, says_issuer, .. } = document;
        Ok(Self { authorization, token, userinfo, end_session, takes_basic, says_issuer, keys })
    }
}

struct Document {
    authorization: String,
    token: String,
    userinfo: Option<String>,
    end_session: Option<String>,
    keys: String,
    takes_basic: bool,
    says_issuer: bool,
}

impl Document {
    fn read(plan: &Plan, text: &[u8]) -> Result<Self, String> {
        let document: Value =
            serde_json::from_slice(text).map_err(|error| format!("the document: {error}"))?;
        // Section 4.3: or it would be another one's.
        if document.get("issuer").and_then(Value::as_str) != Some(&plan.issuer) {
            return Err(format!("the document is of another issuer: {}", document["issuer"]));
        }
        let address = |member: &str| match document.get(member).and_then(Value::as_str) {
            Some(text) if url::is_safe(text) => Ok(Some(text.to_owned())),
            Some(text) => Err(format!("`{member}` is no address that begins with https://: {text:?}")),
            None => Ok(None),
        };
        let needed = |member: &str| address(member)?.ok_or_else(|| format!("there is no `{member}`"));
        let methods = document.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
        Ok(Self {
            authorization: needed("authorization_endpoint")?,
            token: needed("token_endpoint")?,
            userinfo: address("userinfo_endpoint")?,
            end_session: address("end_session_endpoint")?,
            keys: needed("jwks_uri")?,
            // It is also what a document means that says nothing.
            takes_basic: methods
                .is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic")),
            says_issuer: document["authorization_response_iss_parameter_supported"] == true,
        })
    }
}

fn fetch(host: &impl Surroundings, plan: &Plan) -> Option<Provider> {
    let fetched = ask(host, plan);
    match fetched {
        Ok((document, keys, provider)) => {
            let stale = milliseconds(plan.stale);
            let is_kept = host.write(&name(plan, "document"), &document, stale)
                && host.write(&name(plan, "keys"), &keys, stale)
                && host.write(&name(plan, "fresh"), b"1", milliseconds(plan.refresh));
            if !is_kept {
                host.warn("the bucket is too small for what the provider says of itself");
            }
            Some(provider)
        }
        Err(error) => {
            host.warn(&format!("the provider {}: {error}", plan.issuer));
            None
        }
    }
}

fn ask(host: &impl Surroundings, plan: &Plan) -> Result<(Vec<u8>, Vec<u8>, Provider), String> {
    let get = |url: String| {
        let answer = host.ask(&Question { url: url.clone(), ..Question::default() });
        match answer.map_err(|error| format!("{url}: {error}"))? {
            answer if answer.status != 200 => Err(format!("{url}: status {}", answer.status)),
            answer if answer.body.len() > LARGEST => Err(format!("{url}: over 128 KiB")),
            answer => Ok(answer.body),
        }
    };
    let issuer = plan.issuer.strip_suffix('/').unwrap_or(&plan.issuer);
    let document = get(format!("{issuer}/.well-known/openid-configuration"))?;
    let keys = get(Document::read(plan, &document)?.keys)?;
    let provider = Provider::read(plan, &document, &keys)?;
    Ok((document, keys, provider))
}

/// In the bucket. What another issuer said, before a change of configuration, is not taken for ours.
fn name(plan: &Plan, what: &str) -> String {
    let digest = Sha256::digest(plan.issuer.as_bytes());
    let short: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{short}.{what}")
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How often a token by an unknown key makes the plugin ask, at most.
const UNKNOWN_KEY: u64 = 30_000;
/// How often a visitor does where nothing is known of the provider.
const WITHOUT: u64 = 2_000;
/// How often the ticker tries again.
const AFTER_FAILURE: u64 = 5_000;
/// Of a document or a set, bytes.
const LARGEST: usize = 128 * 1024;
const MOST_KEYS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;
    use crate::world::World;

    #[test]
    fn what_is_known_of_a_provider_outlives_it_for_a_while() {
        let (world, plan) = (World::default(), plan());
        world.away();
        assert!(Provider::find(&world, &plan).is_none());
        assert!(Provider::find(&world, &plan).is_none());
        assert_eq!((world.asked(), world.warnings()), (1, 1));
        world.back();
        world.pass(WITHOUT);
        let provider = Provider::find(&world, &plan).unwrap();
        assert_eq!(provider.authorization, "https://id.example.com/auth");
        assert!(Provider::find(&world, &plan).is_some());
        assert_eq!(world.asked(), 3);
        world.away();
        world.pass(3_600_000);
        Provider::refresh(&world, &plan);
        Provider::refresh(&world, &plan);
        assert_eq!(world.asked(), 4);
        assert!(Provider::find(&world, &plan).is_some());
        world.pass(milliseconds(plan.stale));
        assert!(Provider::find(&world, &plan).is_none());
    }

    #[test]
    fn unknown_keys_make_the_plugin_ask_once_in_a_while() {
        let (world, plan) = (World::default(), plan());
        assert!(Provider::find(&world, &plan).is_some());
        world.rotate("new");
        let provider = Provider::find_anew(&world, &plan).unwrap();
        assert!(provider.keys(Some("new")).next().is_some() && provider.keys(Some("old")).next().is_none());
        for _ in 0..3 {
            assert!(Provider::find_anew(&world, &plan).is_none());
        }
        assert_eq!(world.asked(), 4);
    }

    #[test]
    fn a_document_of_somebody_else_or_with_addresses_in_the_clear_is_none() {
        let good = World::document();
        let plan = plan();
        assert!(Document::read(&plan, good.to_string().as_bytes()).is_ok());
        for (member, value) in [
            ("issuer", "https://id.example.com/"),
            ("authorization_endpoint", "http://id.example.com/auth"),
            ("token_endpoint", "https://id.example.com/ token"),
            ("jwks_uri", "ftp://id.example.com"),
            ("end_session_endpoint", "javascript:alert(1)"),
        ] {
            let mut bad = good.clone();
            bad[member] = value.into();
            assert!(Document::read(&plan, bad.to_string().as_bytes()).is_err(), "{member}");
        }
        assert!(Document::read(&plan, b"<html>").is_err());
        assert!(Provider::read(&plan, good.to_string().as_bytes(), br#"{"keys": []}"#).is_err());
    }
}
