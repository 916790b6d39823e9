//! Every path on one screen.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tracing::{Instrument as _, field};

use crate::account::{Account, Page};
use crate::bridge::{Bridge, Connection};
use crate::request_id::{RequestId, X_REQUEST_ID};
use crate::respond::Body;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// `/{server}/mcp`
    Mcp,
    /// `/{server}/sse`
    Sse,
    /// `/{server}/message`
    Message,
    /// `/{server}/connect`
    Connect,
    /// `/{server}/connect/remove`
    Remove,
    /// `/account`
    Account,
    /// `/account/sign-in`
    SignIn,
    /// `/account/sign-out`
    SignOut,
    /// `/account/style.css`
    Style,
}

/// Leads requests to what answers them.
pub struct Routes {
    table: matchit::Router<Route>,
    bridge: Arc<Bridge>,
    account: Account,
}

impl Routes {
    /// The paths of a bridge and of its pages.
    #[must_use]
    pub fn new(bridge: Arc<Bridge>, account: Account) -> Self {
        let mut table = matchit::Router::new();
        for (path, route) in [
            ("/{server}/mcp", Route::Mcp),
            ("/{server}/sse", Route::Sse),
            ("/{server}/message", Route::Message),
            ("/{server}/connect", Route::Connect),
            ("/{server}/connect/remove", Route::Remove),
            ("/account", Route::Account),
            ("/account/sign-in", Route::SignIn),
            ("/account/sign-out", Route::SignOut),
            ("/account/style.css", Route::Style),
        ] {
            table.insert(path, route).expect("the path is well formed");
        }
        Self { table, bridge, account }
    }

    /// Answers one request; it never fails, and says so in the response if something did. The answer, and every line of
    /// the log until then, names the request.
    pub async fn answer(&self, request: Request<Incoming>, connection: &Connection) -> Response<Body> {
        let id = RequestId::of(request.headers(), connection.peer.ip());
        let name = id.header();
        let span = tracing::info_span!("request", request = %id, peer = %connection.peer, user = field::Empty);
        // On the heap: a connection that waits for its next request need not keep the room of one.
        let answering = Box::pin(self.lead(request, connection));
        let mut response = id.scope(answering).instrument(span).await;
        response.headers_mut().insert(X_REQUEST_ID, name);
        response
    }

    async fn lead(&self, request: Request<Incoming>, connection: &Connection) -> Response<Body> {
        // As it came: no name of a server needs an escape, and a proxy's rule for a path must not have a way around it.
        let path = request.uri().path().to_owned();
        let Ok(found) = self.table.at(&path) else { return self.bridge.not_found(connection) };
        let server = found.params.get("server").unwrap_or_default();
        let page = match found.value {
            Route::Mcp => return self.bridge.answer(server, request, connection).await,
            Route::Sse => return self.bridge.answer_sse(server, request, connection).await,
            Route::Message => return self.bridge.answer_message(server, request, connection).await,
            Route::Connect => Page::Connect(server),
            Route::Remove => Page::Remove(server),
            Route::Account => Page::Overview,
            Route::SignIn => Page::SignIn,
            Route::SignOut => Page::SignOut,
            Route::Style => Page::Style,
        };
        self.account.answer(page, request, connection.peer).await
    }
}
