//! What can be said of a service before anybody clicks, for operators: nothing is registered or kept for that.

use http::Request;
use http::header::LOCATION;
use reqwest::Client;

use super::client::{Who, who};
use super::discovery::{self, Found};
use super::service::{Fault, host_of};
use crate::config::{Config, OAuth, Server};
use crate::http_client::guard::{CALL, GuardedClient};
use crate::store::ClientKind;

/// With what a service refuses to be told for what tokens are asked. Source: RFC 8707 section 2.
const INVALID_TARGET: &str = "invalid_target";

/// What is known of the service of a server.
#[derive(Debug)]
pub struct Inspection {
    /// The host on which people sign in.
    pub host: String,
    /// How it knows the bridge, as the configuration calls that; nothing if it does not.
    pub client: Option<&'static str>,
    /// Whether it takes back what it gave.
    pub takes_back: bool,
    /// For what tokens are asked, if the service refuses that.
    pub refused_resource: Option<String>,
}

/// Finds out what is to be known of the service of `server`, whose users sign in. `servers` is the client that calls servers.
///
/// # Errors
/// Says why nobody can sign in there.
pub async fn inspect(config: &Config, server: &Server, servers: &Client) -> Result<Inspection, Fault> {
    let oauth = super::oauth(server);
    let unavailable = |_| Fault::Unavailable { host: server.name.to_string() };
    let guarded = GuardedClient::new(&oauth.allow_hosts).map_err(unavailable)?;
    let mut found = discovery::find((server, oauth), servers, &guarded).await?;
    let host = host_of(&found.service.authorization_endpoint);
    let takes_back = found.service.revocation_endpoint.is_some();
    let known = match who(config, oauth, &found.service) {
        Ok(Who::Known(client)) => Some(client),
        Ok(Who::Registers(_)) => {
            let client = Some(ClientKind::Registered(String::new()).as_str());
            return Ok(Inspection { host, client, takes_back, refused_resource: None });
        }
        Err(Fault::NotKnown { .. }) => None,
        Err(fault) => return Err(fault),
    };
    let refused_resource = match &known {
        Some(client) => {
            let redirect_uri = config.redirect_uri(server);
            refused_resource(&mut found, oauth, (&client.id, &redirect_uri), &guarded).await?
        }
        None => None,
    };
    Ok(Inspection { host, client: known.map(|client| client.kind.as_str()), takes_back, refused_resource })
}

/// What the service refuses to be asked for: it is asked as for a person, and told to show nobody a page.
async fn refused_resource(
    found: &mut Found,
    oauth: &OAuth,
    (id, redirect_uri): (&str, &str),
    guarded: &GuardedClient,
) -> Result<Option<String>, Fault> {
    let mut begun = found.begin(oauth, id, redirect_uri).await?;
    let Some(resource) = begun.resource else { return Ok(None) };
    begun.url.query_pairs_mut().append_pair("prompt", "none");
    let Ok(request) = Request::get(begun.url.as_str()).body(Vec::new()) else { return Ok(None) };
    let Ok(answer) = guarded.call(request, CALL).await else { return Ok(None) };
    let leads_to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
    let is_refused =
        leads_to.contains(INVALID_TARGET) || String::from_utf8_lossy(answer.body()).contains(INVALID_TARGET);
    Ok(is_refused.then_some(resource))
}
