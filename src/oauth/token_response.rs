//! What a token endpoint answers, read leniently: a token that was received is never lost because something beside it is
//! written in another way than the standard has it. Source: RFC 6749 sections 5.1 and 5.2.

use base64::Engine;
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::secret::Secret;

/// The longest access or refresh token, bytes.
const MAX_TOKEN: usize = 16 << 10;

/// The longest time for which a token is said to be good: what is beyond it is no time that anybody meant, seconds.
const MAX_LIFE: u64 = 10 * 365 * 86_400;

/// The longest name of an account that is shown, characters.
const MAX_ACCOUNT: usize = 128;

/// The most scopes that are kept, and the longest of them, bytes.
const MAX_SCOPES: [usize; 2] = [128, 256];

/// What a service gave.
#[derive(Debug)]
pub struct TokenAnswer {
    /// What is sent to the server.
    pub access_token: Secret,
    /// What gets another one, if there is one.
    pub refresh_token: Option<Secret>,
    /// How long the access token is good, seconds, if that is known. Never zero.
    pub expires_in: Option<u64>,
    /// What was granted, if it says so.
    pub scopes: Option<Vec<String>>,
    /// Which account it is, as the service names it to people.
    pub account: Option<String>,
    /// The same as the service knows it.
    pub subject: Option<String>,
}

/// Why an answer gives no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerFault {
    /// The service says why, by a code of the standard's or by another one.
    #[error("the service answered {}", .0.unwrap_or("an error"))]
    Refused(Option<&'static str>),
    /// It is neither a token nor an error.
    #[error("the service's answer cannot be read")]
    Unreadable,
}

/// Codes of errors that may be shown and logged. Source: RFC 6749 sections 4.1.2.1 and 5.2; RFC 8707 section 2; `OpenID`
/// Connect Core section 3.1.2.6; RFC 8628 section 3.5.
const CODES: [&str; 20] = [
    "access_denied",
    "account_selection_required",
    "authorization_pending",
    "consent_required",
    "expired_token",
    "interaction_required",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_request_object",
    "invalid_request_uri",
    "invalid_scope",
    "invalid_target",
    "login_required",
    "server_error",
    "slow_down",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
];

/// What services of note say instead.
const SYNONYMS: [(&str, &str); 5] = [
    ("bad_refresh_token", "invalid_grant"),
    ("bad_verification_code", "invalid_grant"),
    ("incorrect_client_credentials", "invalid_client"),
    ("invalid_refresh_token", "invalid_grant"),
    ("token_revoked", "invalid_grant"),
];

/// The code that `text` is, if it is one that is known.
#[must_use]
pub(super) fn known_code(text: &str) -> Option<&'static str> {
    let synonym = SYNONYMS.iter().find(|(said, _)| *said == text).map(|(_, meant)| *meant);
    synonym.or_else(|| CODES.into_iter().find(|code| *code == text))
}

/// The token in the body of an answer, or the error in it, whatever the status was.
///
/// # Errors
/// Says why there is no token.
pub(super) fn read(body: &[u8]) -> Result<TokenAnswer, AnswerFault> {
    let members = members(body).ok_or(AnswerFault::Unreadable)?;
    let text = |name: &str| members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some(access_token) = text("access_token") else {
        return Err(match members.get("error") {
            Some(error) => AnswerFault::Refused(error.as_str().and_then(known_code)),
            None => AnswerFault::Unreadable,
        });
    };
    // Those that must be shown with a proof of possession are of no use to who has none.
    let kind = text("token_type").unwrap_or_default();
    let is_bound = ["dpop", "pop", "mac"].iter().any(|bound| kind.eq_ignore_ascii_case(bound));
    if is_bound || !is_token(access_token) {
        return Err(AnswerFault::Unreadable);
    }
    let claims = text("id_token").and_then(claims).unwrap_or_default();
    let claim = |name: &str| claims.get(name).and_then(Value::as_str);
    let name = ["email", "preferred_username", "name", "sub"].into_iter().find_map(claim);
    Ok(TokenAnswer {
        access_token: Secret::new(access_token.to_owned()),
        refresh_token: text("refresh_token").filter(|token| is_token(token)).map(|token| Secret::new(token.to_owned())),
        expires_in: members.get("expires_in").and_then(seconds),
        scopes: members.get("scope").and_then(scopes),
        account: name.map(shown).filter(|name| !name.is_empty()),
        subject: claim("sub").map(shown).filter(|subject| !subject.is_empty()),
    })
}

/// The members of a JSON object, or of a form.
pub(super) fn members(body: &[u8]) -> Option<Map<String, Value>> {
    let text = str::from_utf8(body).ok()?.trim_start_matches('\u{feff}').trim();
    if text.starts_with(['{', '[', '"', '<']) {
        return match serde_json::from_str(text) {
            Ok(Value::Object(members)) => Some(members),
            _ => None,
        };
    }
    let pairs = form_urlencoded::parse(text.as_bytes());
    let members: Map<_, _> = pairs.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
    Some(members).filter(|members| !members.is_empty())
}

/// Whether it may stand in a header.
fn is_token(text: &str) -> bool {
    text.len() <= MAX_TOKEN && text.bytes().all(|b| matches!(b, 0x21..=0x7e))
}

/// A time in seconds, however it is written; none if it is no time to come. One that is 0 or less says nothing: a service
/// that gives a token gives it to be used.
pub(super) fn seconds(value: &Value) -> Option<u64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 1 and ten years")]
    let whole = |number: f64| number as u64;
    #[expect(clippy::cast_precision_loss, reason = "a bound need not be exact")]
    let most = MAX_LIFE as f64;
    (number.is_finite() && number >= 1.0).then(|| whole(number.min(most)))
}

/// Scopes with blanks between them, as the standard has it, with commas, or as a list.
pub(super) fn scopes(value: &Value) -> Option<Vec<String>> {
    let all: Vec<&str> = match value {
        Value::String(text) => text.split([' ', ',']).collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    Some(proper_scopes(all)).filter(|kept| !kept.is_empty())
}

/// Those of these that are scopes, as many as are kept. Source: RFC 6749 section 3.3.
pub(super) fn proper_scopes<'a>(all: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let [most, longest] = MAX_SCOPES;
    let is_scope = |text: &str| text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    let kept = all.into_iter().filter(|scope| !scope.is_empty() && scope.len() <= longest && is_scope(scope));
    kept.take(most).map(str::to_owned).collect()
}

/// The claims of an ID token. It came from the service itself, over TLS, and is used for a name that is shown alone: its
/// signature is not looked at. Source: `OpenID` Connect Core section 3.1.3.7.
fn claims(token: &str) -> Option<Map<String, Value>> {
    let payload = token.split('.').nth(1)?;
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(payload).or_else(|_| BASE64_URL_SAFE.decode(payload)).ok()?;
    serde_json::from_slice(&decoded).ok()
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_ACCOUNT).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expiry(value: &Value) -> Option<u64> {
        let body = json!({ "access_token": "a", "token_type": "Bearer", "expires_in": value }).to_string();
        read(body.as_bytes()).unwrap().expires_in
    }

    #[test]
    fn the_time_of_a_token_is_read_however_it_is_written() {
        let table = [
            (json!(3600), Some(3600)),
            (json!("3599"), Some(3599)),
            (json!(" 60 "), Some(60)),
            (json!(59.9), Some(59)),
            (json!("3600.5"), Some(3600)),
            (json!(1e18), Some(MAX_LIFE)),
            (json!("1e18"), Some(MAX_LIFE)),
            (json!(u64::MAX), Some(MAX_LIFE)),
            (json!(0), None),
            (json!("0"), None),
            (json!(0.4), None),
            (json!(-1), None),
            (json!(-1e300), None),
            (json!("NaN"), None),
            (json!("inf"), None),
            (json!("an hour"), None),
            (json!(""), None),
            (json!(null), None),
            (json!(true), None),
            (json!([3600]), None),
            (json!({}), None),
        ];
        for (written, read) in table {
            assert_eq!(expiry(&written), read, "{written}");
        }
        assert_eq!(read(br#"{"access_token":"a"}"#).unwrap().expires_in, None);
    }

    #[test]
    fn a_token_is_kept_whatever_stands_beside_it() {
        let good = [
            r#"{"access_token":"a","token_type":"bearer"}"#,
            r#"{"access_token":"a","token_type":"BEARER","scope":7,"refresh_token":null}"#,
            r#"{"access_token":"a","token_type":"user","id_token":"no.token"}"#,
            r#"{"access_token":"a","id_token":"e30.!!!.x","error":null}"#,
            "\u{feff} {\"access_token\":\"a\"}\n",
            "access_token=a&token_type=bearer",
            "token_type=Bearer&scope=repo%2Cuser&access_token=a",
        ];
        for body in good {
            assert_eq!(read(body.as_bytes()).unwrap().access_token.expose(), "a", "{body}");
        }
        let many = format!("{{\"access_token\":\"a\",\"scope\":\"{}\"}}", "s ".repeat(10_000));
        assert_eq!(read(many.as_bytes()).unwrap().scopes.unwrap().len(), MAX_SCOPES[0]);
    }

    #[test]
    fn an_empty_refresh_token_is_none() {
        for (body, token) in [
            (r#"{"access_token":"a","refresh_token":"r"}"#, Some("r")),
            (r#"{"access_token":"a","refresh_token":""}"#, None),
            (r#"{"access_token":"a","refresh_token":null}"#, None),
            (r#"{"access_token":"a"}"#, None),
            ("access_token=a&refresh_token=", None),
        ] {
            let answer = read(body.as_bytes()).unwrap();
            assert_eq!(answer.refresh_token.as_ref().map(Secret::expose), token, "{body}");
        }
    }

    #[test]
    fn scopes_stand_between_blanks_or_commas_or_in_a_list() {
        for (written, read_as) in [
            (json!("repo user"), Some(vec!["repo", "user"])),
            (json!("repo,user:email"), Some(vec!["repo", "user:email"])),
            (json!(["a", 7, "b"]), Some(vec!["a", "b"])),
            (json!(""), None),
            (json!(null), None),
        ] {
            let body = json!({ "access_token": "a", "scope": written }).to_string();
            let scopes = read(body.as_bytes()).unwrap().scopes;
            assert_eq!(scopes.as_ref().map(|all| all.iter().map(String::as_str).collect()), read_as, "{body}");
        }
    }

    #[test]
    fn an_error_is_known_by_its_code_alone() {
        for (body, fault) in [
            (r#"{"error":"invalid_grant","error_description":"canary"}"#, AnswerFault::Refused(Some("invalid_grant"))),
            (r#"{"error":"bad_refresh_token"}"#, AnswerFault::Refused(Some("invalid_grant"))),
            ("error=bad_verification_code&error_description=canary", AnswerFault::Refused(Some("invalid_grant"))),
            (r#"{"error":"canary"}"#, AnswerFault::Refused(None)),
            (r#"{"error":{"code":7}}"#, AnswerFault::Refused(None)),
            (r#"{"access_token":"","error":"invalid_client"}"#, AnswerFault::Refused(Some("invalid_client"))),
            (r#"{"access_token":7}"#, AnswerFault::Unreadable),
            (r#"{"access_token":"a","token_type":"DPoP"}"#, AnswerFault::Unreadable),
            (r#"{"access_token":"a\r\nX-Evil: 1"}"#, AnswerFault::Unreadable),
            (r#"["access_token"]"#, AnswerFault::Unreadable),
            ("<html>access_token=a</html>", AnswerFault::Unreadable),
            ("{", AnswerFault::Unreadable),
            ("", AnswerFault::Unreadable),
            ("\u{fffd}", AnswerFault::Unreadable),
        ] {
            let found = read(body.as_bytes()).unwrap_err();
            assert_eq!(found, fault, "{body}");
            assert!(!format!("{found} {found:?}").contains("canary"));
        }
        assert_eq!(read(b"{\"access_token\":\"\xff\"}").unwrap_err(), AnswerFault::Unreadable);
    }

    #[test]
    fn an_account_is_named_by_its_id_token() {
        let with = |claims: Value| {
            let token = format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
            let answer = read(json!({ "access_token": "a", "id_token": token }).to_string().as_bytes()).unwrap();
            (answer.account, answer.subject)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(with(json!({ "sub": "7", "email": "a@b.c" })), (text("a@b.c"), text("7")));
        assert_eq!(with(json!({ "sub": "7", "name": "A\u{1b}[2J" })), (text("A[2J"), text("7")));
        assert_eq!(with(json!({ "sub": 7 })), (None, None));
    }
}
