//! How a server stands with its user, for people and for programs.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::config::Server;
use crate::store::Overview;

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
    /// It cannot be read.
    Unreadable,
}

impl Standing {
    /// How `server` stands with a user who has `saved` this for it, as of now.
    pub(super) fn of(server: &Server, saved: Option<(&Overview, UnixTime)>) -> Self {
        let Some((saved, now)) = saved.filter(|_| server.requires_user_token) else {
            return if server.requires_user_token { Self::NotConnected } else { Self::NeedsNone };
        };
        match saved.about.as_ref().map(|about| about.expires_at) {
            Ok(Some(end)) if end <= now => Self::Ended,
            Ok(Some(end)) if end.0 - now.0 <= SOON.as_secs() => Self::EndsSoon,
            Ok(_) => Self::Connected,
            Err(_) => Self::Unreadable,
        }
    }
}
