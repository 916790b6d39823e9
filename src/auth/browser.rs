//! The session of a person's browser, which cannot send a bearer token by itself: a sealed cookie that says who signed in,
//! with which token and when. Nothing is stored of it. It is judged anew with each request, against the configuration as
//! it is then, and only pages of ours look at it: `/mcp` never does.

use std::time::Duration;

use cookie::{Cookie, SameSite};
use http::header::{COOKIE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::keyring::{Keyring, Place, Purpose, random_name};
use crate::user::UserId;

/// The cookie. Browsers take one of this name from us alone: over a safe connection, for this host and the whole of it.
/// Source: RFC 6265bis section 4.1.3.2.
const NAME: &str = "__Host-tollbridge";

/// How long a session lasts.
const LIFETIME: Duration = Duration::from_hours(12);

/// How long it lasts without a visit.
const IDLE: Duration = Duration::from_hours(1);

/// After how long a visit renews it.
const RENEWAL: Duration = Duration::from_mins(5);

/// Where the cookie belongs.
const PLACE: Place<'_> = Place { purpose: Purpose::Browser, parts: &["1"] };

/// One person's session in one browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrowserSession {
    /// The user's issuer when they signed in.
    pub(super) issuer: String,
    /// Their name there.
    pub(super) subject: String,
    /// SHA-256 of the bearer token with which they did.
    pub(super) sha256: [u8; 32],
    nonce: String,
    issued: u64,
    seen: u64,
}

impl BrowserSession {
    /// One that begins now.
    pub(super) fn begin((issuer, subject): (&str, &str), sha256: [u8; 32], now: UnixTime) -> Self {
        Self {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            sha256,
            nonce: random_name(),
            issued: now.0,
            seen: now.0,
        }
    }

    /// The one that a request brings, if it brings exactly one and that may still be used.
    pub(super) fn of(headers: &HeaderMap, keyring: &Keyring, now: UnixTime) -> Option<Self> {
        let sealed = cookie(headers, NAME)?;
        let session: Self = serde_json::from_slice(&keyring.open_text(PLACE, &sealed).ok()?).ok()?;
        let is_young = now.0.saturating_sub(session.issued) < LIFETIME.as_secs();
        let is_used = now.0.saturating_sub(session.seen) < IDLE.as_secs();
        (is_young && is_used).then_some(session)
    }

    /// Whose it is.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        UserId::new(&self.issuer, &self.subject).ok()
    }

    /// Tells it from every other session.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// When it is over at the latest.
    #[must_use]
    pub fn expires(&self) -> UnixTime {
        UnixTime(self.issued + LIFETIME.as_secs())
    }

    /// `Set-Cookie` for a session that was last seen so long ago that this visit should count.
    #[must_use]
    pub fn renewed(&self, keyring: &Keyring, now: UnixTime) -> Option<HeaderValue> {
        let is_due = now.0.saturating_sub(self.seen) >= RENEWAL.as_secs();
        is_due.then(|| Self { seen: now.0, ..self.clone() }.cookie(keyring))
    }

    /// `Set-Cookie` for this session.
    #[must_use]
    pub fn cookie(&self, keyring: &Keyring) -> HeaderValue {
        let claims = serde_json::to_vec(self).expect("text and numbers are JSON");
        set_cookie(NAME, keyring.seal_text(PLACE, &claims))
    }

    /// `Set-Cookie` that takes the cookie out of the browser.
    #[must_use]
    pub fn removed() -> HeaderValue {
        removed_cookie(NAME)
    }
}

/// The value of a cookie that stands exactly once in a request. A name with anything but ASCII around it is another one,
/// which a site beside ours may have set.
#[must_use]
pub fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let pieces = headers.get_all(COOKIE).iter().flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
    let ascii = pieces.filter(|piece| piece.is_ascii()).filter_map(|piece| str::from_utf8(piece).ok());
    let mut found = ascii.filter_map(|piece| Cookie::parse(piece).ok()).filter(|cookie| cookie.name() == name);
    let first = found.next()?;
    found.next().is_none().then(|| first.value().to_owned())
}

/// `Set-Cookie` of a cookie that only this host gets back, over a safe connection, and no script sees. It ends with the
/// browser. `value` is base64url.
#[must_use]
pub fn set_cookie(name: &'static str, value: String) -> HeaderValue {
    header(&host_cookie(name, value))
}

/// `Set-Cookie` that takes a cookie of [`set_cookie`] out of the browser.
#[must_use]
pub fn removed_cookie(name: &'static str) -> HeaderValue {
    let mut cookie = host_cookie(name, String::new());
    cookie.make_removal();
    header(&cookie)
}

fn host_cookie(name: &'static str, value: String) -> Cookie<'static> {
    Cookie::build((name, value)).path("/").secure(true).http_only(true).same_site(SameSite::Lax).build()
}

fn header(cookie: &Cookie<'_>) -> HeaderValue {
    HeaderValue::try_from(cookie.to_string()).expect("a name of ours and base64url are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn brought(cookies: &[&str]) -> HeaderMap {
        cookies.iter().map(|cookie| (COOKIE, HeaderValue::from_str(cookie).unwrap())).collect()
    }

    fn pair(set: &HeaderValue) -> String {
        set.to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    fn after(seconds: u64) -> UnixTime {
        UnixTime(NOW.0 + seconds)
    }

    #[test]
    fn a_session_ends_an_hour_after_the_last_visit_and_half_a_day_after_the_first() {
        let keyring = Keyring::ephemeral();
        let begun = BrowserSession::begin(("local", "alice"), [7; 32], NOW);
        let headers = brought(&[&pair(&begun.cookie(&keyring))]);
        assert_eq!(BrowserSession::of(&headers, &keyring, after(3599)), Some(begun.clone()));
        assert_eq!(BrowserSession::of(&headers, &keyring, after(3600)), None);
        assert_eq!(begun.renewed(&keyring, after(299)), None);
        let mut last = begun;
        for minutes in (5..12 * 60).step_by(50) {
            let headers = brought(&[&pair(&last.renewed(&keyring, after(minutes * 60)).unwrap())]);
            last = BrowserSession::of(&headers, &keyring, after(minutes * 60)).unwrap();
        }
        let headers = brought(&[&pair(&last.cookie(&keyring))]);
        assert!(BrowserSession::of(&headers, &keyring, after(12 * 3600 - 1)).is_some());
        assert_eq!(BrowserSession::of(&headers, &keyring, after(12 * 3600)), None);
    }

    #[test]
    fn a_cookie_is_taken_only_if_there_is_one_and_it_has_exactly_our_name() {
        let keyring = Keyring::ephemeral();
        let good = pair(&BrowserSession::begin(("local", "alice"), [7; 32], NOW).cookie(&keyring));
        let value = good.split_once('=').unwrap().1.to_owned();
        let found = |cookies: &[&str]| BrowserSession::of(&brought(cookies), &keyring, NOW).is_some();
        assert!(found(&[&good]) && found(&["a=b", &good]) && found(&[&format!("\u{e4}=b; {good}; c=d")]));
        assert!(!found(&[&good, &good]) && !found(&[&format!("{good}; __Host-tollbridge=x")]));
        for name in ["tollbridge", "__host-tollbridge", "__Secure-tollbridge", "\u{2000}__Host-tollbridge"] {
            let bytes = format!("{name}={value}");
            let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_bytes(bytes.as_bytes()).unwrap())]);
            assert_eq!(BrowserSession::of(&headers, &keyring, NOW), None, "{name}");
        }
        for other in [Keyring::ephemeral().seal_text(PLACE, b"{}"), String::new(), "x".repeat(9000)] {
            assert!(!found(&[&format!("{NAME}={other}")]));
        }
    }

    #[test]
    fn the_cookie_goes_to_this_host_alone_and_never_to_a_script() {
        let set = BrowserSession::begin(("local", "alice"), [7; 32], NOW).cookie(&Keyring::ephemeral());
        let set = set.to_str().unwrap();
        let attributes: Vec<&str> = set.split("; ").skip(1).collect();
        assert_eq!(attributes, ["HttpOnly", "SameSite=Lax", "Secure", "Path=/"]);
        assert!(!set.contains("alice") && set.len() < 1024, "{set}");
        assert!(BrowserSession::removed().to_str().unwrap().contains("Max-Age=0"));
    }
}
