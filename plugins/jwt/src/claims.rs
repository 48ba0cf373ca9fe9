//! Whom a token is for, and how long (RFC 7519 section 4.1).

use jose::date;
use serde_json::Value;

use crate::plan::Plan;

/// Until when a token with these claims passes, seconds since 1970; `None` if it does not pass now.
pub fn check(plan: &Plan, claims: &Value, now: u64) -> Option<u64> {
    let leeway = plan.leeway.as_secs();
    let issuer = claims.get("iss")?.as_str()?;
    let is_ours = |audience: &Value| {
        audience.as_str().is_some_and(|audience| plan.audience.iter().any(|ours| ours == audience))
    };
    let audience = claims.get("aud")?;
    let audience = audience.as_array().map_or_else(|| is_ours(audience), |list| list.iter().any(is_ours));
    let until = date(claims.get("exp")?)?.checked_add(leeway)?;
    let begins = match claims.get("nbf") {
        None => 0,
        Some(begins) => date(begins)?,
    };
    let passes = issuer == plan.issuer && audience && now < until && begins <= now.saturating_add(leeway);
    passes.then_some(until)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn until(claims: &Value) -> Option<u64> {
        let plan = Plan::read(
            r#"{"issuer": "https://id.example.com", "jwks": "https://id.example.com/keys", "audience": ["app", "api"]}"#,
        );
        check(&plan.unwrap(), claims, NOW)
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = json!({"iss": "https://id.example.com", "aud": "app", "exp": NOW + 60});
        claims[name] = value;
        claims
    }

    #[test]
    fn a_token_passes_for_its_audience_until_it_ends() {
        for (name, value, expected) in [
            ("sub", json!("ada"), Some(NOW + 90)),
            ("aud", json!(["other", "api"]), Some(NOW + 90)),
            ("exp", json!(1_800_000_000.5), Some(NOW + 30)),
            ("exp", json!(NOW - 29), Some(NOW + 1)),
            ("exp", json!(NOW - 30), None),
            ("exp", json!("2000000000"), None),
            ("exp", json!(-1), None),
            ("exp", json!(null), None),
            ("exp", json!(u64::MAX), None),
            ("nbf", json!(NOW + 30), Some(NOW + 90)),
            ("nbf", json!(NOW + 31), None),
            ("nbf", json!("soon"), None),
            ("aud", json!("other"), None),
            ("aud", json!([]), None),
            ("aud", json!([["app"]]), None),
            ("aud", json!({"app": 1}), None),
            ("iss", json!("https://id.example.com/"), None),
            ("iss", json!(["https://id.example.com"]), None),
        ] {
            assert_eq!(until(&with(name, value.clone())), expected, "{name} {value}");
        }
        for needed in ["iss", "aud", "exp"] {
            let mut claims = with("sub", json!("ada"));
            claims.as_object_mut().unwrap().remove(needed);
            assert_eq!(until(&claims), None, "{needed}");
        }
    }
}
