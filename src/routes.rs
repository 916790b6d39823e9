//! Every path on one screen.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::Instrument as _;

use crate::account::{Account, Operation, Page};
use crate::bridge::{Bridge, Connection};
use crate::request_id::RequestId;
use crate::respond::{self, Body};

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
    /// `/{server}/connect/start`
    Start,
    /// `/{server}/connect/paste`
    Paste,
    /// `/{server}/connect/device`
    Device,
    /// `/oauth/callback/{server}`
    Callback,
    /// `/oauth/client.json`
    ClientDocument,
    /// `/account`
    Account,
    /// `/account/sign-in`
    SignIn,
    /// `/account/sign-out`
    SignOut,
    /// `/account/style.css`
    Style,
    /// `/api/v1/servers`
    ApiServers,
    /// `/api/v1/servers/{server}/token`
    ApiToken,
    /// `/api/v1/servers/{server}/probe`
    ApiProbe,
    /// `/api/v1/connections`
    ApiConnections,
    /// `/api/v1/connections/{server}`
    ApiConnection,
    /// `/api/v1/openapi.json`
    ApiDescription,
    /// Any other path below `/api/`
    ApiNowhere,
}

impl Route {
    /// Whether a request of pages or programs changes what is kept, and its client may not take it back by leaving: that
    /// means something to a server, and to what is tried before it is saved.
    fn changes(self, method: &Method) -> bool {
        match self {
            Self::Mcp | Self::Sse | Self::Message | Self::Connect | Self::ApiProbe => false,
            Self::Callback => true,
            _ => !method.is_safe(),
        }
    }
}

/// Leads requests to what answers them.
pub struct Routes {
    table: matchit::Router<Route>,
    bridge: Arc<Bridge>,
    account: Arc<Account>,
}

impl Routes {
    /// The paths of a bridge and of its pages.
    #[must_use]
    pub fn new(bridge: Arc<Bridge>, account: Arc<Account>) -> Self {
        let mut table = matchit::Router::new();
        for (path, route) in [
            ("/{server}/mcp", Route::Mcp),
            ("/{server}/sse", Route::Sse),
            ("/{server}/message", Route::Message),
            ("/{server}/connect", Route::Connect),
            ("/{server}/connect/remove", Route::Remove),
            ("/{server}/connect/start", Route::Start),
            ("/{server}/connect/paste", Route::Paste),
            ("/{server}/connect/device", Route::Device),
            ("/oauth/callback/{server}", Route::Callback),
            ("/oauth/client.json", Route::ClientDocument),
            ("/account", Route::Account),
            ("/account/sign-in", Route::SignIn),
            ("/account/sign-out", Route::SignOut),
            ("/account/style.css", Route::Style),
            ("/api/v1/servers", Route::ApiServers),
            ("/api/v1/servers/{server}/token", Route::ApiToken),
            ("/api/v1/servers/{server}/probe", Route::ApiProbe),
            ("/api/v1/connections", Route::ApiConnections),
            ("/api/v1/connections/{server}", Route::ApiConnection),
            ("/api/v1/openapi.json", Route::ApiDescription),
            ("/api/{*nowhere}", Route::ApiNowhere),
        ] {
            table.insert(path, route).expect("the path is well formed");
        }
        Self { table, bridge, account }
    }

    /// Answers one request; it never fails, and says so in the response if something did. The answer, and every line of
    /// the log until then, names the request.
    pub async fn answer(self: &Arc<Self>, request: Request<Incoming>, connection: &Connection) -> Response<Body> {
        let id = RequestId::of(request.headers(), connection.peer.ip());
        // On the heap: a connection that waits for its next request need not keep the room of one.
        id.answer(connection.peer, Box::pin(self.lead(request, connection))).await
    }

    async fn lead(self: &Arc<Self>, request: Request<Incoming>, connection: &Connection) -> Response<Body> {
        // As it came: no name of a server needs an escape, and a proxy's rule for a path must not have a way around it.
        let path = request.uri().path().to_owned();
        let Ok(found) = self.table.at(&path) else { return self.bridge.not_found(connection) };
        let (route, server) = (*found.value, found.params.get("server").unwrap_or_default());
        if !route.changes(request.method()) {
            return self.answer_at((route, server), request, connection).await;
        }
        let (routes, server, connection) = (Arc::clone(self), server.to_owned(), connection.clone());
        let answering = async move { routes.answer_at((route, &server), request, &connection).await };
        // A change that is cut off in the middle, because its client has left, is none that anybody meant.
        let answering = RequestId::handed_on(answering).in_current_span();
        let answered = self.bridge.lifecycle.to_the_end(answering).await;
        answered.unwrap_or_else(|| respond::empty(StatusCode::INTERNAL_SERVER_ERROR))
    }

    async fn answer_at(
        &self,
        (route, server): (Route, &str),
        request: Request<Incoming>,
        connection: &Connection,
    ) -> Response<Body> {
        let (account, peer) = (&self.account, connection.peer);
        match route {
            Route::Mcp => self.bridge.answer(server, request, connection).await,
            Route::Sse => self.bridge.answer_sse(server, request, connection).await,
            Route::Message => self.bridge.answer_message(server, request, connection).await,
            Route::Connect => account.answer(Page::Connect(server), request, peer).await,
            Route::Remove => account.answer(Page::Remove(server), request, peer).await,
            // Where nobody signs in at a service, there is nothing.
            Route::Start | Route::Paste | Route::Device | Route::Callback if !account.signs_in(server) => {
                self.bridge.not_found(connection)
            }
            Route::ClientDocument if !account.config.has_oauth() => self.bridge.not_found(connection),
            Route::Start => account.answer(Page::Start(server), request, peer).await,
            Route::Paste => account.answer(Page::Paste(server), request, peer).await,
            Route::Device => account.answer(Page::Device(server), request, peer).await,
            Route::Callback => account.answer(Page::Callback(server), request, peer).await,
            Route::ClientDocument => account.answer(Page::ClientDocument, request, peer).await,
            Route::Account => account.answer(Page::Overview, request, peer).await,
            Route::SignIn => account.answer(Page::SignIn, request, peer).await,
            Route::SignOut => account.answer(Page::SignOut, request, peer).await,
            Route::Style => account.answer(Page::Style, request, peer).await,
            Route::ApiServers => account.perform(Operation::Servers, request, peer).await,
            Route::ApiToken => account.perform(Operation::Token(server), request, peer).await,
            Route::ApiProbe => account.perform(Operation::Probe(server), request, peer).await,
            Route::ApiConnections => account.perform(Operation::Connections, request, peer).await,
            Route::ApiConnection => account.perform(Operation::Connection(server), request, peer).await,
            Route::ApiDescription => account.perform(Operation::Description, request, peer).await,
            Route::ApiNowhere => account.perform(Operation::Nowhere, request, peer).await,
        }
    }
}
