//! What the configuration means.

use settings::{Fault, Faults, Place, header};

use crate::hash::Hash;

/// A configuration that has been checked.
#[derive(Debug)]
pub struct Plan {
    /// The value of the WWW-Authenticate header.
    pub challenge: String,
    /// At least one; no name twice.
    pub users: Vec<User>,
    /// Whether the origin sees the Authorization header.
    pub forward: bool,
    /// The header that carries the user's name to the origin, in lower case.
    pub user_header: Option<String>,
}

#[derive(Debug)]
pub struct User {
    pub name: String,
    pub hash: Hash,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&["realm", "users", "forward", "user-header"], faults)?;
            let realm = object.required("realm", faults).and_then(|place| realm(&place, faults));
            let users = object.required("users", faults).and_then(|place| users(&place, faults));
            let forward = object.optional("forward").map(|place| place.flag(faults));
            let user_header = object.optional("user-header").map(|place| user_header(&place, faults));
            Some(Self {
                challenge: challenge(realm?),
                users: users?,
                forward: forward.unwrap_or(Some(false))?,
                user_header: match user_header {
                    None => None,
                    Some(name) => Some(name?),
                },
            })
        })
    }
}

fn realm<'a>(place: &Place<'a>, faults: &mut Faults) -> Option<&'a str> {
    let realm = place.text(faults)?;
    if realm.bytes().any(|byte| byte != b' ' && !byte.is_ascii_graphic()) {
        place.fault(faults, "a realm consists of visible ASCII characters and spaces");
        return None;
    }
    Some(realm)
}

/// RFC 7617 sections 2 and 2.1; the realm is a quoted-string (RFC 9110 section 5.6.4).
fn challenge(realm: &str) -> String {
    let realm = realm.replace('\\', r"\\").replace('"', r#"\""#);
    format!(r#"Basic realm="{realm}", charset="UTF-8""#)
}

fn users(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<User>> {
    let places = place.list(faults)?;
    if places.is_empty() {
        place.fault(faults, "no user: nobody could pass");
        return None;
    }
    let mut users: Vec<User> = Vec::new();
    for place in places {
        let Some(user) = user(&place, faults) else { continue };
        if users.iter().any(|known| known.name == user.name) {
            place.fault(faults, "a user of this name stands further up");
        }
        users.push(user);
    }
    Some(users)
}

fn user(place: &Place<'_>, faults: &mut Faults) -> Option<User> {
    let object = place.object(&["name", "password"], faults)?;
    let name = object.required("name", faults).and_then(|place| name(&place, faults));
    let hash = object.required("password", faults).and_then(|place| {
        let text = place.text(faults)?;
        Hash::read(text).map_err(|message| place.fault(faults, message)).ok()
    });
    Some(User { name: name?.to_owned(), hash: hash? })
}

fn name<'a>(place: &Place<'a>, faults: &mut Faults) -> Option<&'a str> {
    let name = place.text(faults)?;
    if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
        place.fault(faults, "a user's name is not empty and holds no colon and no control character");
        return None;
    }
    // It may become a header value.
    if let Err(unfit) = header::value(name) {
        place.fault(faults, unfit.to_string());
        return None;
    }
    Some(name)
}

fn user_header(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    match header::name(place.text(faults)?) {
        Ok(name) if name == "authorization" => {
            place.fault(faults, "this header carries the credentials; \"forward\" lets it through");
            None
        }
        Ok(name) => Some(name),
        Err(unfit) => {
            place.fault(faults, unfit.to_string());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::tests::phc;

    fn pointers(config: &str) -> Vec<String> {
        Plan::read(config).unwrap_err().into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn a_short_configuration_keeps_the_credentials_from_the_origin() {
        let hash = phc("x", 1000);
        let plan = Plan::read(&format!(
            r#"{{"realm": "a \"b\" \\c", "users": [{{"name": "ada", "password": "{hash}"}}]}}"#
        ))
        .unwrap();
        assert_eq!(plan.challenge, r#"Basic realm="a \"b\" \\c", charset="UTF-8""#);
        assert!(!plan.forward);
        assert_eq!(plan.user_header, None);
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let hash = phc("x", 1000);
        let found = pointers(&format!(
            r#"{{
                "realm": "two\nlines", "forwards": true, "forward": "yes", "user-header": "x user",
                "users": [
                    {{"name": "ada", "password": "{hash}"}},
                    {{"name": "a:b", "password": "in clear"}},
                    {{"name": "ada", "password": "{hash}"}},
                    {{"name": "bob", "pasword": "{hash}"}},
                    "carol"
                ]
            }}"#
        ));
        assert_eq!(
            found,
            [
                "/forwards",
                "/realm",
                "/users/1/name",
                "/users/1/password",
                "/users/2",
                "/users/3/pasword",
                "/users/3",
                "/users/4",
                "/forward",
                "/user-header",
            ]
        );
    }

    #[test]
    fn realm_and_users_must_be_there() {
        assert_eq!(pointers("{}"), ["", ""]);
        assert_eq!(pointers(r#"{"realm": "r", "users": []}"#), ["/users"]);
    }

    #[test]
    fn the_credentials_header_cannot_carry_the_name() {
        let hash = phc("x", 1000);
        assert_eq!(
            pointers(&format!(
                r#"{{"realm": "r", "user-header": "Authorization", "users": [{{"name": "a", "password": "{hash}"}}]}}"#
            )),
            ["/user-header"]
        );
    }
}
