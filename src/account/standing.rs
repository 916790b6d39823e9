//! How a server stands with its user, for people and for programs.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::config::Server;
use crate::store::{About, Overview};
use crate::tokens::{missing_fields, must_sign_in};

/// How long before its end a person is told that what they saved will not do for much longer.
const SOON: Duration = Duration::from_hours(7 * 24);

/// How a server stands with its user.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It takes no token of the user's.
    NeedsNone,
    /// Nothing is saved.
    NotConnected,
    /// Something is.
    Connected,
    /// It is good for some days more.
    EndsSoon,
    /// It was good until a time that is past.
    Ended,
    /// Its user must sign in at the service again.
    NeedsSignIn,
    /// The server asks for more than that.
    Incomplete,
    /// It cannot be read.
    Unreadable,
}

impl Standing {
    /// How `server` stands with a user who has `saved` this for it, as of now.
    pub(super) fn of(server: &Server, saved: Option<(&Overview, UnixTime)>) -> Self {
        let Some((saved, now)) = saved.filter(|_| server.requires_user_token) else {
            return if server.requires_user_token { Self::NotConnected } else { Self::NeedsNone };
        };
        let Ok(about) = &saved.about else { return Self::Unreadable };
        match (&about.grant, about.expires_at) {
            _ if must_sign_in(server, about, now).is_some() => Self::NeedsSignIn,
            (None, Some(end)) if end <= now => Self::Ended,
            _ if missing(server, about).is_some() => Self::Incomplete,
            (None, Some(end)) if end.0 - now.0 <= SOON.as_secs() => Self::EndsSoon,
            (_, _) => Self::Connected,
        }
    }
}

/// What people call the fields that `server` asks for and that are not saved, if there are any.
pub(super) fn missing(server: &Server, about: &About) -> Option<Arc<str>> {
    // What a service gave goes nowhere but where it was given for.
    let is_elsewhere = about.grant.is_some() && server.oauth.is_none();
    missing_fields(server, |name| !is_elsewhere && about.fields.iter().any(|saved| **saved == *name))
}
