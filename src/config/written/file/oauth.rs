//! How the users of a server sign in at its service, as written.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::text::{Time, Value};
use crate::config::written::choices::{ClientAuthentication, PasteToo, Registration};

/// How users sign in at the service: `true` where everything can be found out from the server's `url`.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "oauth")]
pub enum OAuth {
    /// Whether they do.
    Found(bool),
    /// What cannot be found out.
    Written(Box<OAuthFields>),
}

/// What is said of the service of a server.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "oauthFields")]
pub struct OAuthFields {
    /// Who issues the tokens: its metadata says the rest.
    pub issuer: Option<String>,
    /// Where a person signs in, instead of `issuer`.
    pub authorization_endpoint: Option<String>,
    /// Where tokens are issued, instead of `issuer`.
    pub token_endpoint: Option<String>,
    /// Where tokens are given back.
    pub revocation_endpoint: Option<String>,
    /// Where sign-ins by a code begin.
    pub device_endpoint: Option<String>,
    /// The id of a client that was registered there for this bridge.
    pub client_id: Option<Value>,
    /// Its secret: `{ "$env": "NAME" }`.
    pub client_secret: Option<Value>,
    /// How it shows who it is. Default: `auto`.
    pub client_auth: Option<ClientAuthentication>,
    /// How the bridge becomes known there. Default: `auto`.
    pub registration: Option<Registration>,
    /// What was registered there as redirect URI, where that cannot be the bridge's own: people paste where they were led.
    pub redirect_uri: Option<String>,
    /// What is asked for. Without it what the server and its service say.
    pub scopes: Option<Vec<Option<String>>>,
    /// For what tokens are asked, or `false` where the service refuses to be told.
    pub resource: Option<Resource>,
    /// The same for services that call it `audience`.
    pub audience: Option<String>,
    /// Whether `audience` is also said when a token is renewed. Default: false.
    pub audience_on_refresh: Option<bool>,
    /// What else is said where a person signs in.
    pub authorize_params: Option<BTreeMap<String, Option<String>>>,
    /// Hosts with private addresses, or without TLS, that may be called.
    pub allow_hosts: Option<Vec<Option<String>>>,
    /// How long before its end a token is renewed, half its lifetime at most. Default: 60s.
    pub refresh_before: Option<Time>,
    /// What a person may do instead of signing in.
    pub also: Option<PasteToo>,
}

/// For what tokens are asked.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum Resource {
    /// For this. Source: RFC 8707.
    Named(String),
    /// Whether it is said.
    Said(bool),
}

impl<'de> Deserialize<'de> for OAuth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OAuthVisitor)
    }
}

struct OAuthVisitor;

impl<'de> Visitor<'de> for OAuthVisitor {
    type Value = OAuth;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, or an object")
    }

    fn visit_bool<E: de::Error>(self, found: bool) -> Result<OAuth, E> {
        Ok(OAuth::Found(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OAuth, A::Error> {
        OAuthFields::deserialize(MapAccessDeserializer::new(map)).map(|fields| OAuth::Written(Box::new(fields)))
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ResourceVisitor)
    }
}

struct ResourceVisitor;

impl Visitor<'_> for ResourceVisitor {
    type Value = Resource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL, or false")
    }

    fn visit_bool<E: de::Error>(self, said: bool) -> Result<Resource, E> {
        Ok(Resource::Said(said))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Resource, E> {
        Ok(Resource::Named(text.to_owned()))
    }
}
