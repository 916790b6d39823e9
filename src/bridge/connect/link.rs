//! The link to the page where a user saves their token, in the form that their client shows best.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::audit::{Event, EventKind};
use crate::bridge::Bridge;
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::call::{Call, Purpose, may_ask};
use crate::bridge::exchange::questions::Owner;
use crate::bridge::exchange::visit::ask_to_visit;
use crate::config::Server;
use crate::mcp::era::Version;
use crate::mcp::mrtr::{ELICITATION_URL, URL_ELICITATION_REQUIRED, declares};
use crate::mcp::session::Session;
use crate::mcp::tools::CALL;
use crate::mcp::{json, legacy};
use crate::store::SignInReason;
use crate::tokens::{TokenError, Why, sign_in_ended};
use crate::upstream::UpstreamError;
use crate::user::UserId;

/// The JSON-RPC code of "no token", or none that is good: an application's own, outside the range that JSON-RPC reserves.
pub(super) const NO_TOKEN: i64 = 1401;

/// Why a user's token does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bridge) enum Lack {
    /// There is none.
    Missing,
    /// The service refused it.
    Refused,
    /// It was good until a time that is past.
    Expired,
    /// The server asks for more than was saved: for fields of these names.
    Incomplete(Arc<str>),
    /// Its user must sign in at the service again, for this reason: what is said of that, and of since when.
    SignIn(SignInReason, Arc<str>),
    /// The server demands more than its user has allowed.
    Scopes,
}

impl Lack {
    /// What a person is told, with the link in it.
    pub(super) fn with_link(&self, server: &Server, link: &str) -> String {
        let name = server.display_name();
        if server.oauth.is_some() {
            return match self {
                Self::Missing => format!("You have not connected {name} yet: sign in at {link} and try again."),
                Self::Refused => format!("{name} refused your sign-in: connect it again at {link} and try again."),
                Self::Scopes => format!("{name} asks for more than you have allowed. Connect again: {link}"),
                Self::SignIn(_, ended) => format!("{ended} Connect again: {link}"),
                _ => format!("Your sign-in to {name} has ended. Connect again: {link}"),
            };
        }
        match self {
            Self::Missing => format!("You have not connected {name} yet: save your token at {link} and try again."),
            Self::Refused | Self::Scopes => {
                format!("Your token for {name} was refused: save a new one at {link} and try again.")
            }
            Self::Expired | Self::SignIn(..) => {
                format!("Your token for {name} has expired: save a new one at {link} and try again.")
            }
            Self::Incomplete(missing) => {
                format!(
                    "{name} now asks for more than you have saved ({missing}): fill in all fields at {link} and try again."
                )
            }
        }
    }

    /// The same beside the link.
    fn beside_link(&self, server: &Server) -> String {
        let name = server.display_name();
        if server.oauth.is_some() {
            return match self {
                Self::Missing => format!("You have not connected {name} yet. Sign in on this page."),
                Self::Refused => format!("{name} refused your sign-in. Connect it again on this page."),
                Self::Scopes => format!("{name} asks for more than you have allowed. Connect it again on this page."),
                Self::SignIn(_, ended) => format!("{ended} Connect again on this page."),
                _ => format!("Your sign-in to {name} has ended. Connect again on this page."),
            };
        }
        match self {
            Self::Missing => format!("You have not connected {name} yet. Save your token on this page."),
            Self::Refused | Self::Scopes => format!("Your token for {name} was refused. Save a new one on this page."),
            Self::Expired | Self::SignIn(..) => {
                format!("Your token for {name} has expired. Save a new one on this page.")
            }
            Self::Incomplete(missing) => {
                format!("{name} now asks for more than you have saved ({missing}). Fill in all fields on this page.")
            }
        }
    }

    /// That a server has refused what its user has saved, if this error says so.
    pub(in crate::bridge) fn of_refusal(server: &Server, error: &BridgeError) -> Option<Self> {
        let is_refusal = match error {
            BridgeError::Upstream(UpstreamError::TokenRefused(_)) => true,
            // Who signs in has been asked for more, as often as that is done.
            BridgeError::Upstream(UpstreamError::ScopeMissing(_)) => server.oauth.is_none(),
            _ => false,
        };
        (is_refusal && server.requires_user_token).then_some(Self::Refused)
    }
}

impl Bridge {
    /// Why there is no token for `server` that would do.
    ///
    /// # Errors
    /// Nobody knows whether there is one.
    pub(in crate::bridge) fn lack(&self, server: &Server, error: &TokenError) -> Result<Lack, BridgeError> {
        match error {
            TokenError::Absent => Ok(Lack::Missing),
            TokenError::NeedsAnother(Why::Expired) => Ok(Lack::Expired),
            TokenError::NeedsAnother(Why::Incomplete(missing)) => Ok(Lack::Incomplete(Arc::clone(missing))),
            TokenError::NeedsAnother(Why::SignIn(reason, since)) => {
                let ended = sign_in_ended(server, (*reason, *since), self.clock.now());
                Ok(Lack::SignIn(*reason, ended.into()))
            }
            TokenError::Failed(error) => Err(self.store_failed(error)),
            TokenError::Later(wait) => Err(BridgeError::Service { retry_after: *wait }),
        }
    }

    /// What a call comes to that needs a token: an answer that leads its person to the page where they save one.
    pub(super) fn lead_to_page(&self, (user, server): (&UserId, &Server), call: &Call, lack: &Lack) -> String {
        let link = self.config.connect_link(&server.name);
        self.write_down_link((user, server), lack);
        match &call.purpose {
            Purpose::Modern(modern)
                if may_ask(call.message.method())
                    && declares(&modern.capabilities, ELICITATION_URL)
                    && call.agreed != Some(false) =>
            {
                let owner = Owner { user, server: &server.name };
                let page = page(&lack.beside_link(server), &link, None);
                legacy::result(call.id(), &ask_to_visit(self, owner, call, &[page], None))
            }
            Purpose::Legacy(Some(session)) if takes_url_elicitations(session) => {
                let page = page(&lack.beside_link(server), &link, Some(&elicitation_id(session)));
                let data = format!(r#"{{"elicitations":[{page}]}}"#);
                let sentence = lack.with_link(server, &link);
                legacy::error(Some(call.id()), URL_ELICITATION_REQUIRED, &sentence, Some(&data))
            }
            _ if call.message.method() == CALL => {
                legacy::result(call.id(), &tool_result(call, &lack.with_link(server, &link), true))
            }
            _ => refusal(Some(call.id()), &lack.with_link(server, &link), &link),
        }
    }

    /// The same for a stream: what is said to each of its requests, by their ids, or to all of it.
    pub(in crate::bridge) fn lead_stream_to_page(
        &self,
        (user, server): (&UserId, &Server),
        lack: &Lack,
    ) -> impl Fn(Option<&str>) -> String + use<> {
        let link = self.config.connect_link(&server.name);
        self.write_down_link((user, server), lack);
        let sentence = lack.with_link(server, &link);
        move |id| refusal(id, &sentence, &link)
    }

    fn write_down_link(&self, (user, server): (&UserId, &Server), lack: &Lack) {
        if let Lack::SignIn(reason, _) = lack {
            self.metrics.sign_in_needed(reason.as_str());
        }
        let (user, server) = (Some(user), Some(&server.name));
        self.audit.note(&Event { user, server, ..Event::of(EventKind::LinkGiven) });
    }
}

/// A tool's result of one text.
pub(super) fn tool_result(call: &Call, text: &str, is_error: bool) -> String {
    let kind = if call.is_modern() { r#""resultType":"complete","# } else { "" };
    let text = json::quote(text);
    format!(r#"{{{kind}"content":[{{"type":"text","text":{text}}}],"isError":{is_error}}}"#)
}

fn refusal(id: Option<&str>, sentence: &str, link: &str) -> String {
    let data = format!(r#"{{"setupUrl":{}}}"#, json::quote(link));
    legacy::error(id, NO_TOKEN, sentence, Some(&data))
}

/// The parameters of an `elicitation/create` that leads to a page. Source: MCP 2025-11-25, client/elicitation, "URL Mode
/// Elicitation Requests".
fn page(message: &str, link: &str, id: Option<&str>) -> String {
    let id = id.map(|id| format!(r#""elicitationId":{},"#, json::quote(id))).unwrap_or_default();
    format!(r#"{{"mode":"url",{id}"url":{},"message":{}}}"#, json::quote(link), json::quote(message))
}

/// Whether a session's client goes to a page upon an error that names one, and waits for the word that it is done.
pub(super) fn takes_url_elicitations(session: &Session) -> bool {
    session.version == Version::V2025_11_25 && declares(&session.capabilities, ELICITATION_URL)
}

/// The id under which a session's client knows that it was led to the page: every node can name it.
pub(super) fn elicitation_id(session: &Session) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, format!("connect {}", session.nonce).as_bytes()))
}
