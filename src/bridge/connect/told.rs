//! Whoever listens for a user hears that what they have connected has changed, on whichever node that is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::link::{elicitation_id, takes_url_elicitations};
use crate::bridge::Bridge;
use crate::bridge::exchange::notes::Note;
use crate::config::{Server, ServerName};
use crate::lifecycle::Lifecycle;
use crate::mcp::json;
use crate::mcp::session::Session;
use crate::relay::{Mailbox, Nodes, NotDelivered, Relay};
use crate::tokens::ChangeListener;
use crate::user::UserId;

/// How often a stream that was opened without a token looks whether there is one: what is told may be lost on its way, and
/// nobody tells of tokens that were restored.
const LOOK: Duration = Duration::from_secs(30);

/// What lets a stream hear that its user's token for its server has changed.
pub(in crate::bridge) struct ConnectionWatch {
    /// When it looks by itself, if no token has been seen yet.
    look: Option<Instant>,
}

impl ConnectionWatch {
    /// Lets `mailbox` hear of changes.
    pub(in crate::bridge) fn new(mailbox: &mut Mailbox, of: (&UserId, &Server)) -> Self {
        hear_of_changes(mailbox, of);
        Self { look: None }
    }

    /// Lets it also look by itself, first at this time, until there is a token.
    pub(in crate::bridge) fn look_from(&mut self, first: Instant) {
        self.look = Some(first);
    }

    /// The same, where it has been looked just now.
    pub(in crate::bridge) fn look_later(&mut self) {
        self.look = Some(Instant::now() + LOOK);
    }

    /// Until it is time to look whether there is a token. Cancel safe.
    pub(in crate::bridge) async fn due(&mut self) {
        let Some(at) = self.look else { return std::future::pending().await };
        sleep_until(at).await;
        self.look_later();
    }

    /// There is one, as has just been seen, or there is none, or nobody knows.
    pub(in crate::bridge) fn seen(&mut self, is_connected: bool) {
        self.look = (!is_connected).then(|| Instant::now() + LOOK);
    }
}

/// Lets `mailbox` hear of changes of the user's token for the server. None is missed if that is done before it is read.
pub(in crate::bridge) fn hear_of_changes(mailbox: &mut Mailbox, (user, server): (&UserId, &Server)) {
    if server.requires_user_token {
        mailbox.join(topic(user, &server.name));
    }
}

/// Until `mailbox` hears of a change; whatever else it hears is for nobody. Cancel safe.
pub(in crate::bridge) async fn changed(mailbox: &mut Mailbox) {
    while !matches!(Note::read(&mailbox.receive().await), Some(Note::Connection)) {}
}

/// Tells every stream of a user, on every node, that what they have saved for its server has changed.
#[derive(Debug)]
pub struct ConnectionChanges {
    /// Leads to the streams.
    pub relay: Relay,
    /// Says when to end.
    pub lifecycle: Lifecycle,
}

impl ChangeListener for ConnectionChanges {
    fn changed(&self, user: &UserId, server: &ServerName) {
        let (relay, topic, hard) = (self.relay.clone(), topic(user, server), self.lifecycle.hard.clone());
        self.lifecycle.spawn(async move {
            tokio::select! {
                told = relay.tell_topic(&topic, Note::Connection.write()) => if let Err(error) = told {
                    tracing::warn!(%error, "the other nodes could not be told of a change of a token; their streams look for it later");
                },
                () = hard.cancelled() => {}
            }
        });
    }
}

/// Tells the same to all bridges, from a command beside them.
///
/// # Errors
/// They could not be told.
pub async fn tell_of_change(nodes: &Nodes, of: (&UserId, &ServerName)) -> Result<(), NotDelivered> {
    nodes.tell_topic(&topic(of.0, of.1), Note::Connection.write()).await
}

impl Bridge {
    /// Whether the user has a token for the server, as far as the store can tell.
    pub(in crate::bridge) async fn is_connected(&self, user: &UserId, server: &Arc<Server>) -> bool {
        self.tokens.access_token(user, server).await.is_ok()
    }
}

/// The word that a session's client can go on, if it may have been led to the page. Source: MCP 2025-11-25,
/// client/elicitation, "Completion Notifications for URL Mode Elicitation".
pub(in crate::bridge) fn page_is_done(session: &Session) -> Option<String> {
    takes_url_elicitations(session).then(|| {
        let id = json::quote(&elicitation_id(session));
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":{{"elicitationId":{id}}}}}"#
        )
    })
}

/// What streams of this user on this server join. The lengths keep one from being another.
fn topic(user: &UserId, server: &ServerName) -> String {
    let (issuer, subject) = (user.issuer(), user.subject());
    format!("connection {} {issuer} {} {subject} {server}", issuer.len(), subject.len())
}
