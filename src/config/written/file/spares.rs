//! The spares of one server, as written.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::text::Time;
use crate::config::written::choices::{EnvironmentCopies, Hold};

/// How many, or how.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum Spares {
    /// So many.
    Count(usize),
    /// As this says.
    Settings(SpareSettings),
}

/// Servers that wait, started, for a request.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "spares")]
pub struct SpareSettings {
    /// How many.
    #[schemars(required)]
    pub count: Option<usize>,
    /// Where they wait. Default: `ready` where nothing of the server is the user's, else `start`.
    pub hold: Option<Hold>,
    /// After that one is replaced; a tenth of it is random. Default: 10m.
    pub max_age: Option<Time>,
    /// For `hold: python`: what a library gets that copies all variables while it is imported. Default: wait.
    pub environment_copies: Option<EnvironmentCopies>,
    /// Lets a program with a token wait as a user whom other servers share. Default: false.
    pub same_user: Option<bool>,
}

impl<'de> Deserialize<'de> for Spares {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SparesVisitor)
    }
}

struct SparesVisitor;

impl<'de> Visitor<'de> for SparesVisitor {
    type Value = Spares;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of servers, or an object with `count`")
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<Spares, E> {
        usize::try_from(count).map(Spares::Count).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(count), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Spares, A::Error> {
        SpareSettings::deserialize(MapAccessDeserializer::new(map)).map(Spares::Settings)
    }
}
