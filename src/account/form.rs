//! Forms: who sent one, from which page, for whom, and what is in it.

use std::time::Duration;

use http::header::{HeaderName, ORIGIN};
use http::request::Parts;
use url::form_urlencoded;

use super::{Account, Refusal};
use crate::auth::{Visitor, only};
use crate::clock::UnixTime;
use crate::config::Config;
use crate::keyring::{Keyring, Place, Purpose};
use crate::secret::Secret;

/// The field that holds the form's token.
pub(super) const TOKEN: &str = "form";

/// How long a form's token is made under the same name. It is good for that and as long again.
const HOUR: Duration = Duration::from_hours(1);

/// The most fields of a form: more than any server may ask for, and ours.
const MAX_FIELDS: usize = 32;

/// Where browsers say whether a page of ours sent the request. Source: Fetch Metadata, section 2.2.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The fields of a form.
pub(super) struct Form(Vec<(String, Secret)>);

impl Form {
    /// The fields of an `application/x-www-form-urlencoded` body, if it is one: text, not too many, and none twice.
    /// Source: URL, section 5.1.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields: Vec<(String, Secret)> = Vec::new();
        for (name, value) in form_urlencoded::parse(body) {
            // What is no UTF-8 is read as this, and would be saved as something else than was sent.
            let is_text = !value.contains(char::REPLACEMENT_CHARACTER);
            let is_full = fields.len() == MAX_FIELDS;
            if !is_text || is_full || fields.iter().any(|(other, _)| *other == name) {
                return None;
            }
            fields.push((name.into_owned(), Secret::new(value.into_owned())));
        }
        Some(Self(fields))
    }

    /// A field; empty if it is not there.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value.expose())
    }

    /// The fields whose names begin with this, by what comes after it.
    pub(super) fn beginning_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let named =
            move |(name, value): &'a (String, Secret)| Some((name.strip_prefix(prefix)?, value.expose().as_bytes()));
        self.0.iter().filter_map(named)
    }
}

/// Refuses what no page of ours has sent. Since our pages send no referrer, browsers send `Origin: null` with their forms,
/// and `Sec-Fetch-Site` counts; where that is not sent, `Origin` must be that of `publicUrl`.
pub(super) fn check_sender(head: &Parts, config: &Config) -> Result<(), Refusal> {
    // One that stands twice, or is no text, is none that a browser sends.
    let header = |name: &HeaderName| head.headers.get(name).map(|_| only(&head.headers, name).unwrap_or_default());
    let is_ours = match (header(&SEC_FETCH_SITE), header(&ORIGIN)) {
        (Some("same-origin"), None | Some("null")) => true,
        (Some("same-origin"), Some(origin)) => config.allows_origin(origin),
        (None, Some(origin)) => origin == config.public_url.origin().ascii_serialization(),
        (Some(_), _) | (None, None) => false,
    };
    if is_ours { Ok(()) } else { Err(Refusal::Sender) }
}

/// A text that only we can make, for a form that `bound` names: whose it is, and where it leads.
pub(super) fn seal(keyring: &Keyring, bound: &[&str], now: UnixTime) -> String {
    let hour = hour(now).to_string();
    keyring.seal_text(Place { purpose: Purpose::Form, parts: &[bound, &[&hour]].concat() }, &[])
}

/// Whether [`seal`] made `token` for the same form, in this hour or the one before.
pub(super) fn is_good(keyring: &Keyring, bound: &[&str], now: UnixTime, token: &str) -> bool {
    [hour(now), hour(now).saturating_sub(1)].iter().any(|hour| {
        let hour = hour.to_string();
        let parts = [bound, &[&hour]].concat();
        keyring.open_text(Place { purpose: Purpose::Form, parts: &parts }, token).is_ok()
    })
}

fn hour(now: UnixTime) -> u64 {
    now.0 / HOUR.as_secs()
}

impl Account {
    /// The token of a form that this visitor may send to `path`: for them, in this session.
    pub(super) fn form_token(&self, visitor: &Visitor, path: &str) -> String {
        seal(&self.keyring, &bound(visitor, path), self.clock.now())
    }

    /// Refuses a form that was not made for this visitor and `path`.
    pub(super) fn check_form(&self, form: &Form, visitor: &Visitor, path: &str) -> Result<(), Refusal> {
        self.check_token(form.get(TOKEN), visitor, path)
    }

    /// Refuses a token that [`Account::form_token`] did not make for this visitor and `path`.
    pub(super) fn check_token(&self, token: &str, visitor: &Visitor, path: &str) -> Result<(), Refusal> {
        let is_good = is_good(&self.keyring, &bound(visitor, path), self.clock.now(), token);
        if is_good { Ok(()) } else { Err(Refusal::Stale) }
    }
}

fn bound<'a>(visitor: &'a Visitor, path: &'a str) -> [&'a str; 4] {
    let nonce = visitor.session.as_ref().map_or("", |session| session.nonce());
    [visitor.caller.user.issuer(), visitor.caller.user.subject(), nonce, path]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    #[test]
    fn a_token_is_good_for_one_person_and_form_for_an_hour_or_two() {
        let keyring = Keyring::ephemeral();
        let token = seal(&keyring, &["alice", "/notion/connect"], NOW);
        let is_good =
            |bound: &[&str], seconds: u64, token: &str| is_good(&keyring, bound, UnixTime(NOW.0 + seconds), token);
        assert!(
            is_good(&["alice", "/notion/connect"], 0, &token) && is_good(&["alice", "/notion/connect"], 3600, &token)
        );
        assert!(!is_good(&["alice", "/notion/connect"], 7200, &token));
        assert!(!is_good(&["bob", "/notion/connect"], 0, &token));
        assert!(!is_good(&["alice", "/notion/connect/remove"], 0, &token));
        assert!(!is_good(&["alice/notion", "/connect"], 0, &token));
        for other in ["", "x", &seal(&Keyring::ephemeral(), &["alice", "/notion/connect"], NOW)] {
            assert!(!is_good(&["alice", "/notion/connect"], 0, other));
        }
    }

    #[test]
    fn a_form_that_two_readers_could_read_differently_is_none() {
        let form = Form::parse(b"token=a%20b+c%26d&form=x").unwrap();
        assert_eq!((form.get("token"), form.get("form"), form.get("other")), ("a b c&d", "x", ""));
        for bad in [&b"token=a&token=b"[..], b"token=%ff", b"token=\xff", b"%74oken=a&token=b"] {
            assert!(Form::parse(bad).is_none(), "{bad:?}");
        }
        let of = |fields: usize| (0..fields).map(|number| format!("f{number}=")).collect::<Vec<_>>().join("&");
        assert!(
            Form::parse(of(MAX_FIELDS).as_bytes()).is_some() && Form::parse(of(MAX_FIELDS + 1).as_bytes()).is_none()
        );
    }
}
