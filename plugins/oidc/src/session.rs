//! What is known of a visitor who has signed in. It lies in the browser, sealed, so that each host with the same
//! secret knows it.

use serde_json::{Value, json};

use crate::cookie::Jar;
use crate::plan::Plan;
use crate::seal;
use crate::surroundings::Surroundings;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Of this sign-in; no other has it.
    pub id: String,
    /// Seconds since 1970.
    pub until: u64,
    /// For each of the plan's headers, in its order.
    pub values: Vec<Option<String>>,
}

impl Session {
    /// The one that a visitor has. `None` if there is none, it has ended or the visitor has signed out here.
    pub fn find(
        host: &impl Surroundings,
        plan: &Plan,
        jar: Jar<'_>,
        headers: &[(String, String)],
    ) -> Option<Self> {
        let mut texts = jar.values("", headers).take(MOST_COOKIES);
        texts.find_map(|text| {
            let session = Self::read(&seal::open(host, &plan.cookie_secrets, &purpose(plan), text)?)?;
            let is_good = session.values.len() == plan.headers.len()
                && host.now() / 1000 < session.until
                && host.read(&ended(&session.id)).is_none();
            is_good.then_some(session)
        })
    }

    /// As a cookie. `None` where the secret cannot be had, or it would be longer than a browser keeps.
    pub fn sealed(&self, host: &impl Surroundings, plan: &Plan) -> Option<String> {
        let value = json!([self.id, self.until, self.values]).to_string();
        seal::seal(host, &plan.cookie_secrets, &purpose(plan), value.as_bytes())
            .filter(|text| text.len() <= LONGEST)
    }

    /// A copy of the cookie is good for nothing from now on, on this host.
    pub fn end(&self, host: &impl Surroundings) {
        let left = (self.until * 1000).saturating_sub(host.now());
        if left > 0 && !host.write(&ended(&self.id), b"1", left) {
            host.warn(
                "the bucket is full: a session that was signed out of stays good for whoever has copied it",
            );
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let text = |value: &Value| match value {
            Value::Null => Some(None),
            Value::String(text) => Some(Some(text.clone())),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
        };
        Some(Self {
            id: value.get(0)?.as_str()?.to_owned(),
            until: value.get(1)?.as_u64()?,
            values: value.get(2)?.as_array()?.iter().map(text).collect::<Option<_>>()?,
        })
    }
}

/// What was decided when the visitor signed in holds as long as it would be decided so again.
fn purpose(plan: &Plan) -> String {
    format!("session {}", plan.terms)
}

fn ended(id: &str) -> String {
    format!("out.{id}")
}

/// Cookies of one name that are looked at.
const MOST_COOKIES: usize = 4;
/// Of a cookie's value: with its name and all else a browser keeps 4096 bytes.
const LONGEST: usize = 3800;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{plan, plan_with};
    use crate::world::World;

    const JAR: Jar<'_> = Jar { name: "adit-oidc", is_secure: true };

    fn session(world: &World) -> Session {
        Session {
            id: "1".to_owned(),
            until: world.now() / 1000 + 60,
            values: vec![Some("ada".to_owned()), None],
        }
    }

    fn sent(text: &str) -> Vec<(String, String)> {
        vec![("cookie".to_owned(), format!("__Host-adit-oidc=forged; __Host-adit-oidc={text}"))]
    }

    #[test]
    fn a_session_holds_until_its_end_or_until_the_visitor_signs_out() {
        let (world, plan) = (World::default(), plan());
        let session = session(&world);
        let cookies = sent(&session.sealed(&world, &plan).unwrap());
        assert_eq!(Session::find(&world, &plan, JAR, &cookies), Some(session.clone()));
        assert_eq!(Session::find(&world, &plan, Jar { is_secure: false, ..JAR }, &cookies), None);
        session.end(&world);
        assert_eq!(Session::find(&world, &plan, JAR, &cookies), None);
        world.clear();
        assert!(Session::find(&world, &plan, JAR, &cookies).is_some());
        world.pass(60_000);
        assert_eq!(Session::find(&world, &plan, JAR, &cookies), None);
    }

    #[test]
    fn a_rule_that_is_tightened_ends_the_sessions_of_before() {
        let world = World::default();
        let cookies = sent(&session(&world).sealed(&world, &plan()).unwrap());
        for other in [
            r#""require": {"groups": ["admins"]}"#,
            r#""client-id": "other""#,
            r#""headers": {"x-user": "email", "x-mail": "sub"}"#,
        ] {
            assert_eq!(Session::find(&world, &plan_with(other), JAR, &cookies), None, "{other}");
        }
        assert!(Session::find(&world, &plan_with(r#""leeway": "1m""#), JAR, &cookies).is_some());
    }

    #[test]
    fn what_no_browser_would_keep_is_no_session() {
        let world = World::default();
        let long = Session { values: vec![Some("x".repeat(4000)), None], ..session(&world) };
        assert_eq!(long.sealed(&world, &plan()), None);
    }
}
