//! What programs are shown: servers, and what is saved for them, never the values.

use serde::Serialize;

use crate::account::standing::Standing;
use crate::clock::UnixTime;
use crate::config::{Config, Server};
use crate::store::{Overview, Revision, SavedBy};
use crate::tokens::must_sign_in;

/// A server, as it stands with its user.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry<'a> {
    name: &'a str,
    display_name: &'a str,
    /// Where clients call it.
    url: String,
    /// Where a person connects it.
    connect_url: String,
    status: &'static str,
    #[serde(flatten)]
    sign_in: Option<SignIn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help_url: Option<&'a str>,
    /// What is to be given for it.
    fields: Vec<Field<'a>>,
    /// Whether that can be tried.
    has_probe: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Saved<'a>>,
}

/// Why a user must sign in at the service again, and since when.
#[derive(Serialize)]
pub(super) struct SignIn {
    reason: &'static str,
    since: String,
}

impl SignIn {
    /// Of a user who has `saved` this for `server`, if they must.
    pub(super) fn of(server: &Server, saved: Option<&Overview>, now: UnixTime) -> Option<Self> {
        let (reason, since) = must_sign_in(server, saved?.about.as_ref().ok()?, now)?;
        Some(Self { reason: reason.as_str(), since: since.to_string() })
    }
}

#[derive(Serialize)]
struct Field<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
    secret: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'a str>,
}

/// What is known of what is saved.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Saved<'a> {
    etag: String,
    #[serde(flatten)]
    about: Option<About<'a>>,
}

/// What a record that can be read says of itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    saved_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_by: Option<SavedBy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<String>,
    fingerprint: &'a str,
}

impl<'a> Entry<'a> {
    /// How `server` stands with a user who has `saved` all this, as of now.
    pub(super) fn of((config, server): (&Config, &'a Server), saved: &'a [Overview], now: UnixTime) -> Self {
        let saved = saved.iter().find(|saved| saved.server == server.name);
        let setup = &server.token_setup;
        let fields = setup.fields.iter().filter(|_| server.takes_pasted_token()).map(|field| Field {
            name: &field.name,
            label: field.label.as_deref(),
            help: field.help.as_deref(),
            secret: field.is_secret,
            format: field.format.as_ref().map(regex::Regex::as_str),
        });
        Self {
            name: server.name.as_str(),
            display_name: server.display_name(),
            url: config.server_url(&server.name),
            connect_url: config.connect_link(&server.name),
            status: word(Standing::of(server, saved.map(|saved| (saved, now)))),
            sign_in: SignIn::of(server, saved, now),
            instructions: setup.instructions.as_deref(),
            help_url: setup.help_url.as_ref().map(url::Url::as_str),
            fields: fields.collect(),
            has_probe: server.probe.is_some(),
            token: saved.map(Saved::of),
        }
    }
}

impl<'a> Saved<'a> {
    pub(super) fn of(saved: &'a Overview) -> Self {
        let about = saved.about.as_ref().ok().map(|about| About {
            saved_at: about.saved_at.to_string(),
            saved_by: about.saved_by,
            expires_at: about.expires_at.map(|end| end.to_string()),
            last_used: saved.last_used.map(|hour| hour.to_string()),
            fingerprint: &about.fingerprint,
        });
        Self { etag: etag(&saved.revision), about }
    }
}

/// The entity tag of a record. Source: RFC 9110, section 8.8.3.
pub(super) fn etag(revision: &Revision) -> String {
    format!("\"{revision}\"")
}

/// How a server stands with its user, as a word.
pub(super) fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::NeedsNone => "needsNoToken",
        Standing::NotConnected => "notConnected",
        Standing::Connected | Standing::EndsSoon => "connected",
        Standing::Ended => "expired",
        Standing::NeedsSignIn => "needsSignIn",
        Standing::Incomplete => "incomplete",
        Standing::Unreadable => "unreadable",
    }
}
