//! What a service answers by the browser of who has signed in there. Source: RFC 6749 section 4.1.2; RFC 9207.

use url::{Url, form_urlencoded};

use super::token_response::known_code;
use crate::secret::Secret;

/// The longest query that is read, bytes.
const MAX_QUERY: usize = 16 << 10;

/// What stands in the query.
#[derive(Debug)]
pub struct Callback {
    /// Which sign-in it answers.
    pub state: String,
    /// Who says that it has answered.
    pub issuer: Option<String>,
    /// What it answers.
    pub answer: CallbackAnswer,
}

/// What a service answers.
#[derive(Debug)]
pub enum CallbackAnswer {
    /// What tokens are given for, once.
    Code(Secret),
    /// There are none: by a code of the standard's, or by another one.
    Error(Option<&'static str>),
}

impl Callback {
    /// Reads the URL that a person has pasted: `redirect_uri`, to which a browser was led, with a query.
    #[must_use]
    pub fn pasted(text: &str, redirect_uri: &str) -> Option<Self> {
        let (pasted, expected) = (Url::parse(text.trim()).ok()?, Url::parse(redirect_uri).ok()?);
        let is_there = pasted.origin() == expected.origin() && pasted.path() == expected.path();
        Self::read(pasted.query().filter(|_| is_there)?)
    }

    /// Reads a query: each of its parts at most once, and a code or an error.
    #[must_use]
    pub fn read(query: &str) -> Option<Self> {
        if query.len() > MAX_QUERY {
            return None;
        }
        let (mut state, mut issuer, mut code, mut error) = (None, None, None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let part = match &*name {
                "state" => &mut state,
                "iss" => &mut issuer,
                "code" => &mut code,
                "error" => &mut error,
                _ => continue,
            };
            if part.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        let answer = match (code, error) {
            (Some(code), None) if !code.is_empty() => CallbackAnswer::Code(Secret::new(code)),
            (None, Some(error)) => CallbackAnswer::Error(known_code(&error)),
            _ => return None,
        };
        Some(Self { state: state?, issuer, answer })
    }
}

/// Whether an answer is from the issuer `expected`, which says that it names itself in answers if `promised`: where a name
/// is there it must be that one, byte for byte. Source: RFC 9207 section 2.4; MCP 2026-07-28, basic/authorization,
/// "Authorization Response Issuer".
#[must_use]
pub(super) fn is_from(expected: Option<&str>, promised: bool, received: Option<&str>) -> bool {
    match (promised, received) {
        (_, Some(received)) => expected.is_none_or(|expected| expected == received),
        (true, None) => false,
        (false, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_rows_of_who_answers() {
        let expected = Some("https://as.example");
        for (promised, received, is_good) in [
            (true, Some("https://as.example"), true),
            (true, Some("https://evil.example"), false),
            (true, None, false),
            (false, Some("https://as.example"), true),
            (false, Some("https://evil.example"), false),
            (false, None, true),
        ] {
            assert_eq!(is_from(expected, promised, received), is_good, "{promised} {received:?}");
        }
        for other in ["https://as.example/", "HTTPS://as.example", "https://as.example:443", "https://AS.example", ""] {
            assert!(!is_from(expected, false, Some(other)), "{other:?} is not normalised");
        }
    }

    #[test]
    fn what_is_pasted_must_be_an_answer_to_where_the_service_was_told_to_lead() {
        let registered = "http://localhost:8765/callback";
        let pasted = |text: &str| Callback::pasted(text, registered).map(|read| read.state);
        assert_eq!(pasted(" http://localhost:8765/callback?code=c&state=s\r\n").as_deref(), Some("s"));
        for other in [
            "",
            "code=c&state=s",
            "http://localhost:8765/callback",
            "http://localhost:8766/callback?code=c&state=s",
            "https://localhost:8765/callback?code=c&state=s",
            "http://localhost:8765/callback/?code=c&state=s",
            "http://evil.example/callback?code=c&state=s",
            "http://localhost:8765@evil.example/callback?code=c&state=s",
            "http://localhost:8765/callback#code=c&state=s",
        ] {
            assert_eq!(pasted(other), None, "{other}");
        }
    }

    #[test]
    fn an_answer_that_two_readers_could_read_differently_is_none() {
        let read = Callback::read("code=c%20d&state=s&iss=https%3A%2F%2Fas.example&session_state=x").unwrap();
        assert_eq!((&*read.state, read.issuer.as_deref()), ("s", Some("https://as.example")));
        assert!(matches!(read.answer, CallbackAnswer::Code(code) if code.expose() == "c d"));
        let denied = Callback::read("error=access_denied&error_description=canary&state=s").unwrap();
        assert!(matches!(denied.answer, CallbackAnswer::Error(Some("access_denied"))));
        let other = Callback::read("error=canary&state=s").unwrap();
        assert!(matches!(other.answer, CallbackAnswer::Error(None)));
        let long = format!("code={}&state=s", "c".repeat(MAX_QUERY));
        for bad in [
            "",
            "code=c",
            "state=s",
            "code=&state=s",
            "code=a&code=b&state=s",
            "code=a&state=s&state=t",
            "code=a&error=x&state=s",
            "code=a&state=s&iss=a&iss=b",
            "co%64e=a&code=b&state=s",
            long.as_str(),
        ] {
            assert!(Callback::read(bad).is_none(), "{bad}");
        }
    }
}
