//! What the trial of a token saw, on its way from the answer to a form to the page that comes next. No node keeps it: it is
//! in a cookie that only we can read, for this person, session and server, until it has been shown.

use http::HeaderValue;
use http::request::Parts;

use super::{Account, Visit};
use crate::auth::{cookie, removed_cookie, set_cookie};
use crate::keyring::{Place, Purpose};

/// The cookie.
const NAME: &str = "__Host-tollbridge-seen";

impl Account {
    /// `Set-Cookie` with what the trial of what was saved just now has seen.
    pub(super) fn keep_seen(&self, visit: &Visit, shown: &str) -> HeaderValue {
        let place = Place { purpose: Purpose::Browser, parts: &bound(visit) };
        set_cookie(NAME, self.keyring.seal_text(place, shown.as_bytes()))
    }

    /// What the trial saw, and `Set-Cookie` that forgets it, if this visit brings it.
    pub(super) fn seen(&self, visit: &Visit, head: &Parts) -> Option<(String, HeaderValue)> {
        let place = Place { purpose: Purpose::Browser, parts: &bound(visit) };
        let opened = self.keyring.open_text(place, &cookie(&head.headers, NAME)?).ok()?;
        let shown = str::from_utf8(&opened).ok()?.to_owned();
        Some((shown, removed_cookie(NAME)))
    }
}

fn bound(visit: &Visit) -> [&str; 5] {
    let user = &visit.visitor.caller.user;
    let nonce = visit.visitor.session.as_ref().map_or("", |session| session.nonce());
    ["seen", user.issuer(), user.subject(), nonce, visit.server.name.as_str()]
}
