//! The page behind the link that a caller without a token is given: how a person gets one and has it saved. It says who
//! they are to the bridge, as `/mcp` would see them, holds no secret and runs no script.

use http::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::bridge::error::BridgeError;
use crate::bridge::{Bridge, Connection};
use crate::config::Server;
use crate::respond::{self, Body};
use crate::user::{LOCAL_ISSUER, UserId};

/// Nothing is loaded, framed or sent anywhere.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

impl Bridge {
    /// Answers `GET /{server}/connect`.
    pub fn setup_page(&self, server: &str, head: &Parts, connection: &Connection) -> Response<Body> {
        let page = || -> Result<String, BridgeError> {
            let (caller, server) = self.identify(head, server, connection)?;
            if head.method == Method::GET { Ok(page(&caller.user, &server)) } else { Err(BridgeError::Method("GET")) }
        };
        match page() {
            Ok(page) => {
                let kind = HeaderValue::from_static("text/html; charset=utf-8");
                let mut response = respond::with_type(StatusCode::OK, kind, page);
                response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
                response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
                response
            }
            Err(error) => self.refuse((server, connection), &error, None),
        }
    }
}

fn page(user: &UserId, server: &Server) -> String {
    let name = escape(server.display_name());
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Connect {name}</title>\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}}</style>\
         <h1>Connect {name}</h1>"
    );
    if !server.requires_user_token {
        return page + &format!("<p>{name} needs no token of yours.");
    }
    let instructions = server.token_setup.instructions.as_deref().map(|text| format!("<p>{}", escape(text)));
    let help = server.token_setup.help_url.as_ref().map(|url| escape(url.as_str()));
    let help = help.map(|url| format!("<p>More: <a rel=\"noreferrer\" href=\"{url}\">{url}</a>"));
    page.extend(instructions.into_iter().chain(help));
    let who = escape(&user.to_string());
    page + &format!(
        "<p>You are <strong>{who}</strong> here. Give your token to whoever runs this bridge, to be saved with \
         <code>{}</code>.",
        escape(&command(user, server))
    )
}

/// What an operator types to save a token, each name quoted for a shell.
fn command(user: &UserId, server: &Server) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let issuer = (user.issuer() != LOCAL_ISSUER).then(|| format!(" --issuer {}", quoted(user.issuer())));
    let (user, issuer) = (quoted(user.subject()), issuer.unwrap_or_default());
    format!("tollbridge token set --config FILE --user {user}{issuer} --server {}", server.name)
}

/// Text as it may stand anywhere in HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_an_operator_or_a_user_is_called_becomes_markup() {
        assert_eq!(escape("<b a='x' c=\"y\">&"), "&lt;b a=&#39;x&#39; c=&quot;y&quot;&gt;&amp;");
    }
}
