//! How a server stands with its user, for people and for programs.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::config::Server;
use crate::store::{About, GrantState, Overview, SignInReason};
use crate::tokens::{ended_because, missing_fields};

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
            (Some(_), _) if signed_out_since(server, about, now).is_some() => Self::NeedsSignIn,
            (None, Some(end)) if end <= now => Self::Ended,
            _ if missing(server, about).is_some() => Self::Incomplete,
            (None, Some(end)) if end.0 - now.0 <= SOON.as_secs() => Self::EndsSoon,
            (_, _) => Self::Connected,
        }
    }
}

/// Since when a user must sign in again at the service of `server`, if they must, and why.
pub(super) fn signed_out_since(server: &Server, about: &About, now: UnixTime) -> Option<(UnixTime, &'static str)> {
    let grant = about.grant.as_ref().filter(|_| server.oauth.is_some())?;
    let expired = about.expires_at.filter(|end| *end <= now && !grant.is_renewed);
    match (&grant.state, expired) {
        (GrantState::NeedsSignIn { reason, since }, _) => Some((UnixTime(*since), ended_because(*reason))),
        (_, Some(end)) => Some((end, ended_because(SignInReason::Expired))),
        _ => None,
    }
}

/// What people call the fields that `server` asks for and that are not saved, if there are any.
pub(super) fn missing(server: &Server, about: &About) -> Option<Arc<str>> {
    // What a service gave goes nowhere but where it was given for.
    let is_elsewhere = about.grant.is_some() && server.oauth.is_none();
    missing_fields(server, |name| !is_elsewhere && about.fields.iter().any(|saved| **saved == *name))
}
