//! What a person or a script gives to be saved. It is taken byte for byte or refused, and never changed in silence: where
//! something stands around a value that is not a part of it, what to take out is described.

use std::fmt;

use regex::Regex;

use super::MAX_TOKEN;
use crate::clock::UnixTime;
use crate::config::TokenSetup;
use crate::secret::{Credential, Field, Secret};
use crate::store::{Record, RecordKind, SavedBy};

/// Everything that a server asks its users for, each once and of its format.
#[derive(Debug)]
pub struct Entered {
    /// The values by the names of the server's fields, in their order.
    pub fields: Vec<(Box<str>, Secret)>,
    /// When the service stops taking them, if that is known.
    pub expires_at: Option<UnixTime>,
    /// Whether they are to be saved although nobody knows that they are good: the server could have been tried with them.
    pub untried: bool,
}

/// What is wrong with one field. Never shows its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// The field's name, as it was given.
    pub field: Box<str>,
    /// What is wrong.
    pub fault: Fault,
}

/// Why text cannot be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The field was not given.
    #[error("this is missing")]
    Missing,
    /// It was given twice.
    #[error("this was given twice")]
    Twice,
    /// The server asks for no such field.
    #[error("there is no such field")]
    Unknown,
    /// Nothing, or nothing but blanks.
    #[error("this is empty")]
    Blank,
    /// Over [`MAX_TOKEN`] bytes.
    #[error("this is longer than 16 KiB")]
    TooLong,
    /// Holds a line break or another control character, or is not UTF-8.
    #[error("this holds a line break or another control character, or is not UTF-8")]
    Control,
    /// Blanks before or after it.
    #[error("there are blanks before or after this: paste only what stands between them")]
    Blanks,
    /// A header's scheme before it.
    #[error("paste only what comes after `Bearer`")]
    Bearer,
    /// Quotes around it.
    #[error("paste only what stands between the quotes")]
    Quotes,
    /// A shell's assignment before it.
    #[error("paste only what comes after the `=`")]
    Assignment,
    /// Not of the configured format.
    #[error("this does not have the form that the service's values have: check that it is complete")]
    Format,
}

/// The field and what is wrong with it, for a terminal.
impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.fault)
    }
}

impl Entered {
    /// Takes what was `given` by the names of fields, byte for byte. It is good for as long from `now` as the operator says.
    ///
    /// # Errors
    /// All fields that are missing or cannot be taken, and why.
    pub fn parse(setup: &TokenSetup, given: &[(&str, &[u8])], now: UnixTime) -> Result<Self, Vec<FieldFault>> {
        let (mut fields, mut faults) = (Vec::with_capacity(setup.fields.len()), Vec::new());
        for field in &setup.fields {
            let mut values = given.iter().filter(|(name, _)| *name == &*field.name).map(|(_, value)| *value);
            let value = match (values.next(), values.next()) {
                (None, _) => Err(Fault::Missing),
                (Some(_), Some(_)) => Err(Fault::Twice),
                (Some(value), None) => parse(value, field.format.as_ref()),
            };
            match value {
                Ok(value) => fields.push((field.name.clone(), value)),
                Err(fault) => faults.push(FieldFault { field: field.name.clone(), fault }),
            }
        }
        let is_known = |name: &str| setup.fields.iter().any(|field| *field.name == *name);
        let unknown = given.iter().filter(|(name, _)| !is_known(name));
        faults.extend(unknown.map(|(name, _)| FieldFault { field: (*name).into(), fault: Fault::Unknown }));
        if !faults.is_empty() {
            return Err(faults);
        }
        let expires_at = setup.expires.map(|lifetime| UnixTime(now.0 + lifetime.as_secs()));
        Ok(Self { fields, expires_at, untried: false })
    }

    /// The same as what a server is filled with.
    #[must_use]
    pub fn credential(&self, setup: &TokenSetup) -> Credential {
        let is_secret = |name: &str| setup.fields.iter().all(|field| *field.name != *name || field.is_secret);
        let fields = self.fields.iter().map(|(name, value)| Field {
            name: name.clone(),
            value: Secret::new(value.expose().to_owned()),
            is_secret: is_secret(name),
        });
        Credential::new(fields.collect())
    }

    /// The same as a record that was saved `now`.
    #[must_use]
    pub fn into_record(self, now: UnixTime, by: SavedBy) -> Record {
        Record {
            kind: RecordKind::Fields,
            saved_at: now,
            saved_by: Some(by),
            expires_at: self.expires_at,
            fields: self.fields,
            grant: None,
        }
    }
}

/// One value, byte for byte.
fn parse(given: &[u8], format: Option<&Regex>) -> Result<Secret, Fault> {
    if given.len() > MAX_TOKEN {
        return Err(Fault::TooLong);
    }
    let text = str::from_utf8(given).map_err(|_| Fault::Control)?;
    let inner = text.trim();
    if inner.chars().any(char::is_control) {
        return Err(Fault::Control);
    }
    if inner.is_empty() {
        return Err(Fault::Blank);
    }
    if inner.len() < text.len() {
        return Err(Fault::Blanks);
    }
    match format {
        Some(format) if format.is_match(text) => {}
        _ => match (surroundings(text), format) {
            (Some(fault), _) => return Err(fault),
            (None, Some(_)) => return Err(Fault::Format),
            (None, None) => {}
        },
    }
    Ok(Secret::new(text.to_owned()))
}

/// What people copy with a value and is no part of it.
fn surroundings(text: &str) -> Option<Fault> {
    let begins = |with: &str| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    let quoted = |[open, close]: [char; 2]| text.strip_prefix(open).is_some_and(|rest| rest.ends_with(close));
    if begins("authorization:") || begins("bearer ") {
        Some(Fault::Bearer)
    } else if begins("export ") && text.contains('=') {
        Some(Fault::Assignment)
    } else if [['"', '"'], ['\'', '\''], ['`', '`'], ['\u{201c}', '\u{201d}']].into_iter().any(quoted) {
        Some(Fault::Quotes)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::TokenField;

    fn field(name: &str, format: Option<&str>) -> TokenField {
        let format = format.map(|format| Regex::new(format).unwrap());
        TokenField { name: name.into(), label: None, help: None, is_secret: name != "email", format }
    }

    fn outcome(given: &[u8], format: Option<&str>) -> Result<String, Fault> {
        let setup = TokenSetup { fields: vec![field(Credential::TOKEN, format)], ..TokenSetup::default() };
        let entered = Entered::parse(&setup, &[(Credential::TOKEN, given)], UnixTime(0));
        entered.map(|entered| entered.fields[0].1.expose().to_owned()).map_err(|faults| faults[0].fault)
    }

    #[test]
    fn a_value_is_kept_byte_for_byte() {
        for text in [
            "x",
            "ntn_1",
            "a b",
            "<<token>>",
            "$1 %s {{x}}",
            "p\u{e4}ss",
            "bearer",
            "a=b",
            "\"",
            &"x".repeat(MAX_TOKEN),
        ] {
            assert_eq!(outcome(text.as_bytes(), None).unwrap(), text);
        }
    }

    #[test]
    fn what_cannot_be_saved_is_refused() {
        for blank in ["", " ", "\u{2003}", "\n"] {
            assert_eq!(outcome(blank.as_bytes(), None), Err(Fault::Blank));
        }
        assert_eq!(outcome(&b"x".repeat(MAX_TOKEN + 1), None), Err(Fault::TooLong));
        for control in [&b"a\nb"[..], b"a\0", b"\0", b"a\tb", b"\x7f", "a\u{80}".as_bytes(), b"\xff"] {
            assert_eq!(outcome(control, None), Err(Fault::Control), "{control:?}");
        }
    }

    #[test]
    fn what_stands_around_a_value_is_described_and_not_taken_away() {
        for (given, fault) in [
            (" ntn_1", Fault::Blanks),
            ("ntn_1\r\n", Fault::Blanks),
            ("\u{a0}ntn_1", Fault::Blanks),
            ("Bearer ntn_1", Fault::Bearer),
            ("bearer ntn_1", Fault::Bearer),
            ("Authorization: Bearer ntn_1", Fault::Bearer),
            ("\"ntn_1\"", Fault::Quotes),
            ("'ntn_1'", Fault::Quotes),
            ("`ntn_1`", Fault::Quotes),
            ("\u{201c}ntn_1\u{201d}", Fault::Quotes),
            ("export NOTION_TOKEN=ntn_1", Fault::Assignment),
        ] {
            for format in [None, Some("^ntn_[0-9]+$")] {
                assert_eq!(outcome(given.as_bytes(), format), Err(fault), "{given:?}");
            }
            assert!(!fault.to_string().contains("ntn_1"));
        }
    }

    #[test]
    fn a_configured_format_decides() {
        let format = Some("^(ntn|secret)_[A-Za-z0-9]+$");
        assert_eq!(outcome(b"ntn_1", format).unwrap(), "ntn_1");
        assert_eq!(outcome(b"xoxb-1", format), Err(Fault::Format));
        assert_eq!(
            outcome(b"Bearer x", Some("^Bearer [a-z]+$")).unwrap(),
            "Bearer x",
            "where it is a part of the value"
        );
    }

    #[test]
    fn all_fields_are_taken_or_none() {
        let fields = vec![field("email", Some("@")), field("apiKey", None)];
        let setup = TokenSetup { fields, expires: Some(Duration::from_hours(24)), ..TokenSetup::default() };
        let parse = |given: &[(&str, &str)]| {
            let given: Vec<_> = given.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            Entered::parse(&setup, &given, UnixTime(10))
        };
        let entered = parse(&[("apiKey", "k"), ("email", "a@b")]).unwrap();
        let names: Vec<_> = entered.fields.iter().map(|(name, value)| (&**name, value.expose())).collect();
        assert_eq!(names, [("email", "a@b"), ("apiKey", "k")], "in the order of the configuration");
        assert_eq!(entered.expires_at, Some(UnixTime(86_410)));
        let secrets: Vec<_> = entered.credential(&setup).secrets().map(|secret| secret.expose().to_owned()).collect();
        assert_eq!(secrets, ["k"]);

        let faults = |given: &[(&str, &str)]| {
            let faults = parse(given).unwrap_err();
            faults.into_iter().map(|FieldFault { field, fault }| (String::from(field), fault)).collect::<Vec<_>>()
        };
        let fault = |field: &str, fault| (field.to_owned(), fault);
        assert_eq!(faults(&[("apiKey", "k")]), [fault("email", Fault::Missing)]);
        assert_eq!(
            faults(&[("email", "b"), ("apiKey", "k"), ("apiKey", "k"), ("token", "t")]),
            [fault("email", Fault::Format), fault("apiKey", Fault::Twice), fault("token", Fault::Unknown)]
        );
    }
}
