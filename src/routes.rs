//! Every path on one screen.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use crate::bridge::{Bridge, Connection};
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
}

/// Leads requests to what answers them.
pub struct Routes {
    table: matchit::Router<Route>,
    bridge: Arc<Bridge>,
}

impl Routes {
    /// The paths of a bridge.
    #[must_use]
    pub fn new(bridge: Arc<Bridge>) -> Self {
        let mut table = matchit::Router::new();
        for (path, route) in [
            ("/{server}/mcp", Route::Mcp),
            ("/{server}/sse", Route::Sse),
            ("/{server}/message", Route::Message),
            ("/{server}/connect", Route::Connect),
        ] {
            table.insert(path, route).expect("the path is well formed");
        }
        Self { table, bridge }
    }

    /// Answers one request; it never fails, and says so in the response if something did.
    pub async fn answer(&self, request: Request<Incoming>, connection: &Connection) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let Ok(found) = self.table.at(&path) else { return self.bridge.not_found() };
        let Some(server) = decoded_once(found.params.get("server")) else {
            return self.bridge.not_found();
        };
        match found.value {
            Route::Mcp => self.bridge.answer(&server, request, connection).await,
            Route::Sse => self.bridge.answer_sse(&server, request, connection).await,
            Route::Message => self.bridge.answer_message(&server, request, connection).await,
            Route::Connect => self.bridge.setup_page(&server, &request.into_parts().0, connection),
        }
    }
}

/// A path segment, decoded once; what is still encoded then is no server's name.
fn decoded_once(segment: Option<&str>) -> Option<Cow<'_, str>> {
    percent_decode_str(segment?).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_decoded_once_and_never_into_two() {
        assert_eq!(decoded_once(Some("n%6ftion")).unwrap(), "notion");
        assert_eq!(decoded_once(Some("n%256ftion")).unwrap(), "n%6ftion");
        assert_eq!(decoded_once(Some("..%2fnotion")).unwrap(), "../notion");
        assert!(decoded_once(Some("%ff")).is_none());
    }
}
