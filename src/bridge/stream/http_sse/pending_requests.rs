//! What the client of a stream has asked and the server has not answered. The server is asked under ids of the bridge's
//! own, which every server can represent; what it says of them is said to the client of the client's.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::mcp::json::{self, Object};
use crate::mcp::message::{FromServer, Kind, Message, from_server};
use crate::mcp::splice::with_part;

/// How many requests of one client may wait for answers.
const MAX_PENDING: usize = 256;

/// The requests that have no answer yet, by their ids at the server.
#[derive(Default)]
pub(in crate::bridge::stream) struct PendingRequests {
    open: BTreeMap<u64, ClientRequest>,
    /// The id of the last request.
    last: u64,
}

/// What a client calls a request.
pub(super) struct ClientRequest {
    pub(in crate::bridge::stream) method: String,
    /// As written, like the progress token.
    pub(in crate::bridge::stream) id: String,
    progress: Option<String>,
}

/// A message of the server as its client knows it.
pub(super) struct ForClient {
    pub(super) kind: Kind,
    pub(in crate::bridge::stream) text: Bytes,
    /// The request that it answers.
    pub(in crate::bridge::stream) answers: Option<ClientRequest>,
}

impl PendingRequests {
    /// A request of the client as the server is asked it; `None` if too many wait.
    pub(super) fn ask(&mut self, request: &Message) -> Option<Message> {
        if self.open.len() >= MAX_PENDING {
            return None;
        }
        self.last += 1;
        let (method, id) = (request.method().to_owned(), request.id().unwrap_or("null").to_owned());
        self.open
            .insert(self.last, ClientRequest { method, id, progress: request.progress_token().map(str::to_owned) });
        Some(request.under(&self.last.to_string()))
    }

    /// A cancellation of the client as the server knows it; `None` if it is of nothing that waits. Nobody waits for what
    /// it cancels.
    pub(super) fn cancel(&mut self, notification: &Message) -> Option<Message> {
        let wanted = notification.param("requestId")?;
        let at = *self.open.iter().find(|(_, request)| json::same_scalar(&request.id, wanted))?.0;
        self.open.remove(&at);
        Some(notification.with_param("requestId", &at.to_string()))
    }

    /// A message of the server as its client knows it; `None` if it is of nothing that waits.
    pub(in crate::bridge::stream) fn for_client(&mut self, line: &Bytes) -> Option<ForClient> {
        let said = |kind, text| Some(ForClient { kind, text, answers: None });
        match from_server(line)? {
            FromServer::Response { id: Some(id), .. } => {
                let request = self.open.remove(&self.at(id)?)?;
                let text = with_part(line, id, &request.id).into_bytes();
                Some(ForClient { kind: Kind::Response, text, answers: Some(request) })
            }
            FromServer::Response { id: None, .. } => said(Kind::Response, line.clone()),
            FromServer::Notification { method, params } if method == "notifications/progress" => {
                let token = Object::parse(params?).ok()?.get("progressToken")?;
                let progress = self.open.get(&self.at(token)?)?.progress.as_deref()?;
                said(Kind::Notification, with_part(line, token, progress).into_bytes())
            }
            FromServer::Notification { .. } => said(Kind::Notification, line.clone()),
            FromServer::Request { .. } => said(Kind::Request, line.clone()),
        }
    }

    /// Whether nothing waits.
    pub(in crate::bridge::stream) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The ids of everything that waits, as the client wrote them.
    pub(super) fn into_ids(self) -> impl Iterator<Item = String> {
        self.open.into_values().map(|request| request.id)
    }

    /// Under which id the server was asked what it calls so, however it writes a number.
    fn at(&self, id: &str) -> Option<u64> {
        self.open.keys().copied().find(|at| json::same_scalar(&at.to_string(), id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::parse(text.to_owned().into()).expect("a message")
    }

    #[test]
    fn equal_and_odd_ids_each_get_their_own_answer_and_progress() {
        let mut pending = PendingRequests::default();
        let request = |id| {
            message(&format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"x","params":{{"_meta":{{"progressToken":{id}}}}}}}"#
            ))
        };
        for (id, at) in [("1.5", "1"), (r#""a""#, "2"), ("1.5", "3")] {
            let ours = pending.ask(&request(id)).expect("room");
            assert_eq!((ours.id(), ours.progress_token()), (Some(at), Some(at)));
        }
        let mut hear = |text: &str| pending.for_client(&Bytes::from(text.to_owned())).map(|said| said.text);
        let progress =
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":2,"progress":1}}"#;
        assert_eq!(hear(progress).expect("progress"), progress.replace(":2,", r#":"a","#));
        assert_eq!(hear(&progress.replace(":2,", ":4,")), None);
        let answer = r#"{"jsonrpc":"2.0","id":2.0,"result":{}}"#;
        assert_eq!(hear(answer).expect("an answer"), answer.replace("2.0,\"r", r#""a","r"#));
        assert_eq!(hear(answer), None, "it is answered once");
        let cancelled = message(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1.5}}"#);
        assert_eq!(pending.cancel(&cancelled).expect("one").param("requestId"), Some("1"));
        assert_eq!(pending.cancel(&cancelled).expect("another").param("requestId"), Some("3"));
        assert!(pending.cancel(&cancelled).is_none() && pending.is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut pending = PendingRequests::default();
        let request = message(r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#);
        assert!((0..MAX_PENDING).all(|_| pending.ask(&request).is_some()));
        assert!(pending.ask(&request).is_none());
    }
}
