//! The code that a service gives, for its person and for the bridge.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::oauth::token_response::{known_code, members, seconds};

/// How long to wait between two questions unless the service says, seconds. Source: RFC 8628 section 3.2.
const INTERVAL: u64 = 5;

/// The longest interval, and the longest time for which a code is said to be good, seconds.
pub(super) const MOST_INTERVAL: u64 = 60;
const MOST_LIFE: u64 = 3600;

/// The longest code that a person enters, characters, and the longest address, bytes.
const MOST_CODE: usize = 64;
/// The longest code that is the bridge's, bytes.
const MOST_DEVICE_CODE: usize = 4 << 10;
const MOST_URI: usize = 2048;

/// What a person is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCode {
    /// What they enter.
    pub code: String,
    /// Where.
    pub uri: String,
    /// The same with the code in it, if the service has that.
    pub complete: Option<String>,
}

impl std::fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceCode(…)")
    }
}

/// What a service gives to begin with.
pub(super) struct Given {
    pub(super) device_code: String,
    pub(super) shown: DeviceCode,
    /// Seconds.
    pub(super) interval: u64,
    pub(super) lasts: u64,
}

/// Why it gives nothing.
pub(super) enum CodeFault {
    /// It says so, by a code of the standard's or by another one.
    Refused(Option<&'static str>),
    /// It cannot be used.
    Unusable(&'static str),
}

/// Reads what a service gives, which leads people to addresses that are `safe` alone, as that writes them. Source: RFC
/// 8628 section 3.2.
pub(super) fn read(body: &[u8], safe: impl Fn(&str) -> Option<String>) -> Result<Given, CodeFault> {
    const UNREADABLE: CodeFault = CodeFault::Unusable("it cannot be read");
    let safe = |uri: &str| safe(uri).filter(|uri| uri.len() <= MOST_URI);
    let members = members(body).ok_or(UNREADABLE)?;
    if let Some(error) = members.get("error") {
        return Err(CodeFault::Refused(error.as_str().and_then(known_code)));
    }
    let text = |name: &str| members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    // The second is what Google calls it.
    let uri = text("verification_uri").or(text("verification_url")).ok_or(UNREADABLE)?;
    let (device_code, code) = text("device_code").zip(text("user_code")).ok_or(UNREADABLE)?;
    let Some(uri) = safe(uri) else {
        return Err(CodeFault::Unusable("it leads people to an address that is not https, or not one to call"));
    };
    if device_code.len() > MOST_DEVICE_CODE {
        return Err(UNREADABLE);
    }
    if code.chars().count() > MOST_CODE || code.chars().any(char::is_control) {
        return Err(CodeFault::Unusable("it has a code that nobody can enter"));
    }
    let number = |name: &str| members.get(name).and_then(seconds);
    Ok(Given {
        device_code: device_code.to_owned(),
        shown: DeviceCode { code: code.to_owned(), uri, complete: text("verification_uri_complete").and_then(safe) },
        interval: number("interval").unwrap_or(INTERVAL).min(MOST_INTERVAL),
        lasts: number("expires_in").unwrap_or(MOST_LIFE).min(MOST_LIFE),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(answer: &Value) -> Result<Given, &'static str> {
        let safe = |uri: &str| Some(String::from(url::Url::parse(uri).ok()?)).filter(|uri| uri.starts_with("https://"));
        super::read(answer.to_string().as_bytes(), safe).map_err(|fault| match fault {
            CodeFault::Refused(code) => code.unwrap_or("another"),
            CodeFault::Unusable(why) => why,
        })
    }

    #[test]
    fn what_a_service_gives_is_read_leniently_and_held_to_bounds() {
        let good =
            json!({ "device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": "https://s.example/device" });
        let with = |name: &str, value: Value| {
            let mut answer = good.clone();
            answer[name] = value;
            answer
        };
        let given = read(&good).ok().unwrap();
        assert_eq!((given.interval, given.lasts, given.shown.complete.as_deref()), (INTERVAL, MOST_LIFE, None));
        let given = read(&with("interval", json!("7"))).ok().unwrap();
        assert_eq!((given.interval, &*given.shown.code, &*given.device_code), (7, "ABCD-EFGH", "d"));
        for (name, value) in [("interval", json!(1e18)), ("expires_in", json!("1e18"))] {
            let given = read(&with(name, value)).ok().unwrap();
            assert!(given.interval <= MOST_INTERVAL && given.lasts <= MOST_LIFE, "{name}");
        }
        let given = read(&with("verification_uri_complete", json!("javascript:alert(1)"))).ok().unwrap();
        assert_eq!(given.shown.complete, None, "it is left out");
        for bad in ["http://s.example/device", "javascript:alert(1)", "data:text/html,x"] {
            assert!(read(&with("verification_uri", json!(bad))).is_err(), "{bad}");
        }
        for name in ["verification_uri", "verification_uri_complete"] {
            let shown = read(&with(name, json!("https://s.example/\u{1b}[2J\n"))).ok().unwrap().shown;
            assert!([Some(shown.uri), shown.complete].iter().flatten().all(|uri| !uri.contains(char::is_control)));
        }
        assert!(read(&with("device_code", json!("d".repeat(MOST_DEVICE_CODE + 1)))).is_err());
        for bad in ["", "\u{1b}[2J", &"x".repeat(MOST_CODE + 1)] {
            assert!(read(&with("user_code", json!(bad))).is_err(), "{bad:?}");
        }
        assert_eq!(read(&json!({ "error": "unauthorized_client" })).err(), Some("unauthorized_client"));
        assert_eq!(read(&json!({ "error": "canary" })).err(), Some("another"));
        assert!(read(&json!([])).is_err());
    }
}
