//! The values that a program sends, as JSON: `{"token": "…"}` or `{"fields": {…}}`, and until when they are good. What
//! cannot be read is never repeated in an answer.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::problem::{Fault, Problem};
use crate::account::days::time_of;
use crate::clock::UnixTime;
use crate::config::TokenSetup;
use crate::secret::{Credential, Secret};
use crate::tokens::{self, Entered, FieldFault};

/// What was sent.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Given {
    token: Option<Value>,
    fields: Option<Fields>,
    expires_at: Option<String>,
}

/// A value, in custody from the first.
struct Value(Secret);

/// Values by the names of fields, in the order in which they came, with those that came twice.
struct Fields(Vec<(String, Secret)>);

/// Reads what was sent for a server that asks for this.
pub(super) fn read(body: &[u8], setup: &TokenSetup, now: UnixTime) -> Result<Entered, Problem> {
    const SHAPE: &str = "the body must be {\"token\": \"…\"} or {\"fields\": {\"NAME\": \"…\"}}, with \"expiresAt\": \"TIME\" or without";
    // What the parser says of it could show a value.
    let given: Given = serde_json::from_slice(body).map_err(|_| Problem::Malformed(SHAPE))?;
    let (values, is_token) = match (given.token, given.fields) {
        (Some(Value(token)), None) => (vec![(Credential::TOKEN.to_owned(), token)], true),
        (None, Some(Fields(fields))) => (fields, false),
        (Some(_), Some(_)) | (None, None) => return Err(Problem::Malformed(SHAPE)),
    };
    let values: Vec<(&str, &[u8])> =
        values.iter().map(|(name, value)| (name.as_str(), value.expose().as_bytes())).collect();
    let end = given.expires_at.map(|text| time_of(&text, now).ok_or(LATE));
    match (Entered::parse(setup, &values, now), end.transpose()) {
        (Ok(entered), Ok(end)) => Ok(Entered { expires_at: end.or(entered.expires_at), ..entered }),
        (parsed, end) => {
            let faults = parsed.err().unwrap_or_default();
            let mut faults: Vec<Fault> = faults.iter().map(|fault| said(fault, is_token)).collect();
            // However many there are of which none may be named, that is said once.
            faults.dedup_by(|one, other| one.pointer == other.pointer);
            faults.extend(end.err().map(Into::into));
            Err(Problem::Invalid(faults))
        }
    }
}

/// What is wrong with an end.
const LATE: (&str, &str) =
    ("#/expiresAt", "this must be a time as in 2027-03-01T12:00:00Z, to come and within ten years");

/// What is wrong with a field, and where it stands. A name that is none of the configuration's may be a value.
fn said(fault: &FieldFault, is_token: bool) -> Fault {
    let place = match fault.fault {
        tokens::Fault::Unknown if !is_token => "#/fields".to_owned(),
        _ if is_token && *fault.field == *Credential::TOKEN => "#/token".to_owned(),
        _ => format!("#/fields/{}", fault.field),
    };
    Fault { pointer: place.into(), detail: fault.fault.to_string().into() }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of text")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, Value(value))) = members.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Members)
    }
}
