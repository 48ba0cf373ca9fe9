//! Whom a token is of, and whether it is for us (OpenID Connect Core 1.0 section 3.1.3.7). Says nothing of signatures.

use serde_json::Value;

use crate::plan::Plan;

/// Whether these claims are of somebody who has just signed in here.
///
/// # Errors
/// What is wrong, for the log.
pub fn check(plan: &Plan, claims: &Value, now: u64) -> Result<(), &'static str> {
    let leeway = plan.leeway.as_secs();
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let is_us = |audience: &Value| audience.as_str() == Some(&plan.client_id);
    let audience = claims.get("aud").ok_or("it is for nobody")?;
    let (is_for_us, others) = match audience.as_array() {
        Some(list) => (list.iter().any(is_us), list.len() > 1),
        None => (is_us(audience), false),
    };
    let party = claims.get("azp");
    let begins = claims.get("nbf").map_or(Some(0), jose::date);
    let date = |name: &str| claims.get(name).and_then(jose::date);
    if text("iss") != Some(&plan.issuer) {
        return Err("it is of another issuer");
    }
    if !is_for_us || party.is_some_and(|party| !is_us(party)) || (others && party.is_none()) {
        return Err("it is for another client");
    }
    if text("sub").is_none_or(str::is_empty) {
        return Err("it is of nobody");
    }
    if date("exp").is_none_or(|until| until.saturating_add(leeway) <= now) {
        return Err("it has ended");
    }
    if date("iat").is_none_or(|made| made > now.saturating_add(leeway)) {
        return Err("it was made later than now");
    }
    if begins.is_none_or(|begins| begins > now.saturating_add(leeway)) {
        return Err("it has not begun");
    }
    Ok(())
}

/// Adds what the provider says of the same visitor elsewhere; what is signed stays.
///
/// # Errors
/// It is of another visitor.
pub fn add(claims: &mut Value, userinfo: &Value) -> Result<(), &'static str> {
    let (Some(ours), Some(more)) = (claims.as_object_mut(), userinfo.as_object()) else {
        return Err("it is no object");
    };
    if more.get("sub").is_none() || more.get("sub") != ours.get("sub") {
        return Err("it is of another visitor");
    }
    for (name, value) in more {
        ours.entry(name).or_insert_with(|| value.clone());
    }
    Ok(())
}

/// Whether somebody may come in: each claim that counts has one of its values.
pub fn may_enter(plan: &Plan, claims: &Value) -> bool {
    plan.require.iter().all(|(name, wanted)| {
        let is_wanted = |value: &Value| word(value).is_some_and(|word| wanted.contains(&word));
        match find(claims, name) {
            Some(Value::Array(list)) => list.iter().any(is_wanted),
            Some(value) => is_wanted(value),
            None => false,
        }
    })
}

/// What the service is told, for each of the plan's headers.
pub fn values(plan: &Plan, claims: &Value) -> Vec<Option<String>> {
    let text = |(_, claim): &(String, String)| {
        let text = match find(claims, claim)? {
            // Such as groups. One with a comma in it would be two.
            Value::Array(list) => {
                let words: Vec<_> = list.iter().filter_map(word).filter(|word| !word.contains(',')).collect();
                words.join(",")
            }
            value @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_)) => word(value)?,
        };
        settings::header::value(&text).is_ok().then_some(text)
    };
    plan.headers.iter().map(text).collect()
}

/// A claim by its name, or by a JSON pointer, which begins with "/".
fn find<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) }
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::tests::{plan, plan_with};

    const NOW: u64 = 1_800_000_000;

    fn with(name: &str, value: Value) -> Value {
        let mut claims = json!({
            "iss": "https://id.example.com", "aud": "app", "sub": "ada", "exp": NOW + 60, "iat": NOW,
        });
        claims[name] = value;
        claims
    }

    #[test]
    fn a_token_is_for_us_and_for_now_or_it_is_none() {
        for (name, value, is_good) in [
            ("x", json!(1), true),
            ("aud", json!(["app"]), true),
            ("azp", json!("app"), true),
            ("exp", json!(NOW - 29), true),
            ("iat", json!(NOW + 30), true),
            ("nbf", json!(NOW + 30), true),
            ("iss", json!("https://id.example.com/"), false),
            ("aud", json!("other"), false),
            ("aud", json!([]), false),
            // More than us, and it is not said who has signed in.
            ("aud", json!(["app", "other"]), false),
            ("azp", json!("other"), false),
            ("azp", json!(null), false),
            ("sub", json!(""), false),
            ("sub", json!(7), false),
            ("exp", json!(NOW - 30), false),
            ("exp", json!("soon"), false),
            ("iat", json!(NOW + 31), false),
            ("iat", json!(null), false),
            ("nbf", json!(NOW + 31), false),
            ("nbf", json!("x"), false),
        ] {
            assert_eq!(check(&plan(), &with(name, value.clone()), NOW).is_ok(), is_good, "{name} {value}");
        }
        let mut both = with("aud", json!(["app", "other"]));
        both["azp"] = json!("app");
        assert_eq!(check(&plan(), &both, NOW), Ok(()));
    }

    #[test]
    fn every_claim_that_counts_has_one_of_its_values() {
        for (value, may) in [
            (json!(["others", "staff"]), true),
            (json!("friends"), true),
            (json!(["others"]), false),
            (json!("staff,friends"), false),
            (json!([["staff"]]), false),
            (json!({"staff": true}), false),
            (json!(null), false),
        ] {
            assert_eq!(may_enter(&plan(), &with("groups", value.clone())), may, "{value}");
        }
        let strict = plan_with(r#""require": {"email_verified": "true", "/realm/roles": "admin"}"#);
        let mut claims = with("email_verified", json!(true));
        assert!(!may_enter(&strict, &claims));
        claims["realm"] = json!({"roles": ["admin"]});
        assert!(may_enter(&strict, &claims));
    }

    #[test]
    fn a_service_is_told_what_can_be_a_header() {
        let plan = plan_with(r#""headers": {"x-a": "groups", "x-b": "sub", "x-c": "name", "x-d": "none"}"#);
        let mut claims = with("groups", json!(["a", "b,c", 7, null]));
        claims["name"] = json!("Ada\r\nx-b: eve");
        let expected = [Some("a,7".to_owned()), Some("ada".to_owned()), None, None];
        assert_eq!(values(&plan, &claims), expected);
    }

    #[test]
    fn what_is_signed_counts_more_and_what_is_of_others_not_at_all() {
        let mut claims = with("email", json!("signed"));
        add(&mut claims, &json!({"sub": "ada", "email": "other", "groups": ["staff"]})).unwrap();
        assert_eq!((&claims["email"], &claims["groups"]), (&json!("signed"), &json!(["staff"])));
        for bad in [json!({"sub": "eve"}), json!({}), json!([])] {
            assert!(add(&mut claims, &bad).is_err(), "{bad}");
        }
    }
}
