//! What a server turns out to be when it is started once as for a request (`tollbridge doctor --servers`).

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::Bridge;
use super::error::BridgeError;
use super::exchange::child::Child;
use super::exchange::handshake::{ClientKind, Handshake};
use super::probe::own_introduction;
use crate::config::{Inputs, Server};
use crate::mcp::era::Version;
use crate::mcp::modern::META_SERVER_INFO;
use crate::secret::{Credential, Field, Secret};
use crate::upstream::UpstreamError;
use crate::upstream::process::group::Consumption;
use crate::user::Caller;

/// What stands in place of what a user would have saved.
const MADE_UP: &str = "tollbridge-doctor-has-no-token";

/// How much of the name and version of a server is shown, in characters.
const SHOWN: usize = 60;

/// What one start of a server has shown.
#[derive(Debug)]
pub struct ServerReport {
    /// Its name and version, if it has said them.
    pub name: String,
    /// The version of the protocol that it speaks.
    pub version: &'static str,
    /// How many tools it has for whoever asks.
    pub tools: usize,
    /// From its start to its answer to the handshake.
    pub start: Duration,
    /// From there to the list of its tools.
    pub list: Duration,
    /// What it then had taken of this host, if it runs here.
    pub consumption: Option<Consumption>,
}

impl Bridge {
    /// Starts a server for `caller`, who has saved nothing: it gets a made-up value where it takes theirs. Nothing is left of it.
    ///
    /// # Errors
    /// As a request would be told.
    pub async fn report(self: &Arc<Self>, caller: &Caller, server: &Arc<Server>) -> Result<ServerReport, BridgeError> {
        let values = server.request_values(&HeaderMap::new())?;
        let made_up =
            |name: &str| Field { name: name.into(), value: Secret::new(MADE_UP.to_owned()), is_secret: false };
        let fields = server.token_setup.fields.iter().map(|field| made_up(&field.name));
        let credential = server.requires_user_token.then(|| Credential::new(fields.collect()));
        let began = Instant::now();
        let mut child = Child::open(self, server, Inputs::of(caller, credential, values), Duration::ZERO).await?;
        let told = timeout(server.process.start_timeout, child.report(began)).await;
        child.close().await;
        told.unwrap_or(Err(UpstreamError::StartTimeout.into()))
    }
}

impl Child {
    async fn report(&mut self, began: Instant) -> Result<ServerReport, BridgeError> {
        let client = own_introduction();
        let handshake = self.handshake_to_listen(&client, ClientKind::WithoutSession).await?;
        let start = began.elapsed();
        let (version, says) = match &handshake {
            Handshake::Legacy(initialized) => (initialized.version, initialized.server_info()),
            Handshake::Modern(discovered) => (Version::V2026_07_28, discovered.clone()),
        };
        let as_modern = matches!(handshake, Handshake::Modern(_)).then_some(&client);
        let tools = if handshake.offers("tools") { self.learn_tools(as_modern).await?.count() } else { 0 };
        let name = says.as_deref().map(named).unwrap_or_default();
        let list = began.elapsed().saturating_sub(start);
        Ok(ServerReport {
            name,
            version: version.as_str(),
            tools,
            start,
            list,
            consumption: self.upstream.consumption(),
        })
    }
}

/// The name and version that a server gives itself, without what could be taken for something else.
fn named(info: &str) -> String {
    let info: Value = serde_json::from_str(info).unwrap_or_default();
    let said = &info["_meta"][META_SERVER_INFO];
    let info = if said.is_object() { said } else { &info };
    let words = ["name", "version"].map(|member| info[member].as_str().unwrap_or_default());
    let words = words.join(" ");
    words.trim().chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_server_is_short_and_plain() {
        assert_eq!(named(r#"{"name":"every\u001b[2Jthing","version":"2.0\n"}"#), "every[2Jthing 2.0");
        assert_eq!(named(r#"{"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"modern"}}}"#), "modern");
        assert_eq!(named(r#"{"name":7}"#), "");
        assert_eq!(named(&format!(r#"{{"name":"{}"}}"#, "x".repeat(1000))).len(), SHOWN);
    }
}
