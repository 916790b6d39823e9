//! What `doctor` says of the services at which users sign in: what is missing, and what mends it.

use futures_util::future::join_all;

use crate::cli::Stop;
use crate::cli::token_store::run;
use crate::config::{Config, NamedService, Server};
use crate::http_client;
use crate::oauth::{Fault, Inspection, NO_HTTPS, NO_S256, OTHER_ISSUER, UNREADABLE, inspect};
use crate::upstream::process::host_checks::{Finding, Verdict};

/// What is to be known of the service of each server whose users sign in. All are asked at once.
pub(super) fn findings(config: &Config) -> Result<Vec<Finding>, Stop> {
    let servers: Vec<&Server> =
        config.servers.values().map(|server| &**server).filter(|server| server.oauth.is_some()).collect();
    if servers.is_empty() {
        return Ok(Vec::new());
    }
    run(async {
        let client = http_client::build().map_err(Stop::failed)?;
        let inspected = join_all(servers.iter().map(|server| inspect(config, server, &client))).await;
        let findings = servers.iter().zip(inspected).flat_map(|(server, inspected)| {
            let said = match inspected {
                Ok(inspection) => said(config, server, &inspection),
                Err(fault) => vec![(Verdict::Missing, format!("{fault}: {}", advice(server, &fault)))],
            };
            said.into_iter()
                .map(|(verdict, text)| Finding { verdict, text: format!("sign-in at {}: {text}", server.name) })
        });
        Ok(findings.collect())
    })
}

fn said(config: &Config, server: &Server, inspection: &Inspection) -> Vec<(Verdict, String)> {
    let Inspection { host, client, takes_back, refused_resource } = inspection;
    let known = if let Some(client) = client {
        let known = match *client {
            "preregistered" => "knows the bridge by `oauth.clientId`",
            "metadataDocument" => "reads who the bridge is",
            _ => "lets the bridge register itself",
        };
        (Verdict::Holds, format!("{host} offers S256 and {known}"))
    } else {
        let uri = config.redirect_uri(server);
        let mend = format!("register it with the redirect URI {uri}, and write `oauth.clientId`");
        (Verdict::Missing, format!("{host} lets nobody register, and does not know the bridge: {mend}"))
    };
    let mut said = vec![known];
    if !takes_back {
        let mend = "write `oauth.revocationEndpoint` if it has one";
        said.push((
            Verdict::Weak,
            format!("{host} does not say where it takes tokens back, so that Disconnect ends nothing there: {mend}"),
        ));
    }
    if let Some(resource) = refused_resource {
        let mend = "write \"resource\": false in `oauth`, or what the service expects";
        said.push((
            Verdict::Missing,
            format!("{host} refuses the `resource` {resource}, with which nobody can sign in: {mend}"),
        ));
    }
    said
}

/// What mends it.
fn advice(server: &Server, fault: &Fault) -> &'static str {
    let is_named = server.oauth.as_ref().is_some_and(|oauth| matches!(oauth.service, NamedService::Issuer(_)));
    match fault {
        Fault::Unavailable { .. } => "see that it runs and that its address in the configuration is right",
        Fault::NoMetadata { .. } => "name the service's `issuer` in `oauth`, or both of its endpoints",
        Fault::Metadata { why: OTHER_ISSUER, .. } if is_named => {
            "write `issuer` in `oauth` exactly as its metadata says it"
        }
        Fault::Metadata { why: OTHER_ISSUER, .. } => {
            "the server names its issuer otherwise than that does itself: write `issuer` in `oauth` as it should be"
        }
        Fault::Metadata { why: NO_S256, .. } => {
            "write both of its endpoints in `oauth` if it takes S256 without saying so; nobody can sign in there safely else"
        }
        Fault::Metadata { why: NO_HTTPS | UNREADABLE, .. } => {
            "add the hosts of its addresses to `allowHosts` in `oauth` if they are to be called although they are private or \
             have no https; else whoever runs the service must mend it"
        }
        Fault::Metadata { .. } => "nobody can sign in there safely until whoever runs the service mends it",
        Fault::NotKnown { .. } | Fault::ClientRefused { .. } | Fault::Refused { .. } | Fault::Store(_) => {
            "register the bridge there, and write `oauth.clientId`"
        }
    }
}
