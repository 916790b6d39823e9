//! The leaves of the file: times, sizes, and values that may be references.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

/// A time as text with its unit.
#[derive(Clone, JsonSchema)]
#[schemars(rename = "time", extend("pattern" = "^[0-9]+ ?(ms|s|m|h|d)$"))]
pub struct Time(pub String);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("text with a unit, for example \"30s\"")).map(Self)
    }
}

/// A size as text with its unit.
#[derive(Clone, JsonSchema)]
#[schemars(rename = "size", extend("pattern" = "^[0-9]+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB)$"))]
pub struct Size(pub String);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("text with a unit, for example \"4MiB\"")).map(Self)
    }
}

/// How often something may be done, as text: a number and the unit of time in which that may be.
#[derive(Clone, JsonSchema)]
#[schemars(rename = "rate", extend("pattern" = "^[0-9]+ ?/ ?(s|m|h|d)$"))]
pub struct Rate(pub String);

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("text such as \"60/m\"")).map(Self)
    }
}

/// Whether there is one, or what it may hold.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum PrivateDirectory {
    /// One that holds what is usual, or none.
    Wanted(bool),
    /// One that holds so much.
    Sized(Size),
}

impl<'de> Deserialize<'de> for PrivateDirectory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PrivateDirectoryVisitor)
    }
}

struct PrivateDirectoryVisitor;

impl Visitor<'_> for PrivateDirectoryVisitor {
    type Value = PrivateDirectory;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, or a size with a unit, for example \"64MiB\"")
    }

    fn visit_bool<E: de::Error>(self, wanted: bool) -> Result<PrivateDirectory, E> {
        Ok(PrivateDirectory::Wanted(wanted))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PrivateDirectory, E> {
        Ok(PrivateDirectory::Sized(Size(text.to_owned())))
    }
}

/// Reads text, and says what it should have been if it is something else.
struct Text(&'static str);

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

/// An object that is read as a `T`. serde would also read a list as one, field by field.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

impl<T: JsonSchema> JsonSchema for Object<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A value: text, a reference to an environment variable or a header, or text with holes for what a user saved.
pub enum Value {
    /// Text, taken as it is.
    Plain(String),
    /// `{"$env": "NAME"}`.
    Env(String),
    /// `{"$userToken": "… <<token>> …"}`.
    UserToken(String),
    /// `{"$userTokenFile": "… <<token>> …"}`.
    UserTokenFile(String),
    /// `{"$header": {"name": "…", "format": "…"}}`.
    Header(RequestHeader),
    /// Something that has been reported already.
    Misfit,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum Reference {
    #[serde(rename = "$env")]
    Env,
    #[serde(rename = "$userToken")]
    UserToken,
    #[serde(rename = "$userTokenFile")]
    UserTokenFile,
    #[serde(rename = "$header")]
    Header,
}

/// A header of the request that goes into the server: only in `env` and `headers`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "requestHeader")]
pub struct RequestHeader {
    /// Its name.
    #[schemars(required)]
    pub name: Option<String>,
    /// A regular expression that the whole value must match.
    #[schemars(required)]
    pub format: Option<String>,
    /// What stands for a header that is not there. Without it the request is refused.
    pub default: Option<String>,
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, { \"$env\": \"NAME\" } or { \"$userToken\": \"<<token>>\" }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Plain(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut value = None;
        while let Some(reference) = map.next_key::<Reference>()? {
            let text = |map: &mut A, make: fn(String) -> Value| {
                map.next_value::<Option<String>>().map(|text| text.map_or(Value::Misfit, make))
            };
            let read = match reference {
                Reference::Env => text(&mut map, Value::Env)?,
                Reference::UserToken => text(&mut map, Value::UserToken)?,
                Reference::UserTokenFile => text(&mut map, Value::UserTokenFile)?,
                Reference::Header => {
                    let header = map.next_value::<Option<Object<RequestHeader>>>()?;
                    header.map_or(Value::Misfit, |Object(header)| Value::Header(header))
                }
            };
            if value.replace(read).is_some() {
                return Err(de::Error::custom("`$env`, `$userToken` and `$header` cannot stand together"));
            }
        }
        value.ok_or_else(|| de::Error::invalid_length(0, &self))
    }
}

impl JsonSchema for Value {
    fn schema_name() -> Cow<'static, str> {
        "value".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let header = generator.subschema_for::<RequestHeader>();
        let reference = |name: &str, says: &str, pattern: &str| {
            serde_json::json!({
                "type": "object", "description": says, "required": [name], "additionalProperties": false,
                "properties": { name: { "type": "string", "pattern": pattern } },
            })
        };
        json_schema!({
            "anyOf": [
                { "type": "string", "description": "Text, taken as it is." },
                reference("$env", "The value of an environment variable of the bridge.", "^[^=]+$"),
                reference("$userToken", "Text in which <<token>> stands for the user's token.", "<<.+>>"),
                reference(
                    "$userTokenFile",
                    "The same, only in `env`: put into a file, gone with the request; the variable holds its path.",
                    "<<.+>>",
                ),
                {
                    "type": "object", "description": "A header of the request, only in `env` and `headers`.",
                    "required": ["$header"], "additionalProperties": false, "properties": { "$header": header },
                },
            ]
        })
    }
}
