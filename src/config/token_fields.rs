//! What a person is asked for who connects to a server.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;
use url::Url;

use super::load::{Loader, Zero};
use super::written::file::{self, Object, Time};
use super::written::path::Path;
use super::{TokenField, TokenSetup};
use crate::secret::Credential;

/// The most fields of one server.
const MOST_FIELDS: usize = 16;

/// The longest name of a field, bytes.
const LONGEST_NAME: usize = 32;

/// The shortest time for which a token may be good, if that is said.
const SHORTEST_LIFE: Duration = Duration::from_hours(24);

impl Default for TokenSetup {
    fn default() -> Self {
        Self { display_name: None, instructions: None, help_url: None, fields: vec![the_token(None)], expires: None }
    }
}

/// The one value that has no name.
fn the_token(format: Option<Regex>) -> TokenField {
    TokenField { name: Credential::TOKEN.into(), label: None, help: None, is_secret: true, format }
}

impl Loader<'_> {
    pub(super) fn token_setup(&mut self, at: &Path, file: Option<file::TokenSetup>) -> Option<TokenSetup> {
        let file = file?;
        let help_url = file.help_url.and_then(|text| {
            let url = Url::parse(&text).ok().filter(|url| url.scheme() == "https" && url.host().is_some());
            if url.is_none() {
                self.report(&at.key("helpUrl"), "this is not an https URL", "write https://…, or leave it out");
            }
            url
        });
        let format = file.token_format.and_then(|text| self.format(&at.key("tokenFormat"), &text));
        let fields = match file.fields {
            None => vec![the_token(format)],
            Some(fields) => {
                if format.is_some() {
                    let help = "give each field a `format`";
                    self.report_key(&at.key("tokenFormat"), "this server has fields instead of one token", help);
                }
                self.token_fields(&at.key("fields"), fields)
            }
        };
        let expires = file.expires.map(|time| self.lifetime(&at.key("expires"), &time));
        let (display_name, instructions) = (file.display_name, file.instructions);
        Some(TokenSetup { display_name, instructions, help_url, fields, expires })
    }

    /// The fields in the order of the file, in which people are asked for them.
    fn token_fields(
        &mut self,
        at: &Path,
        written: BTreeMap<String, Option<Object<file::TokenField>>>,
    ) -> Vec<TokenField> {
        if !(1..=MOST_FIELDS).contains(&written.len()) {
            self.report(at, format!("there may be 1 to {MOST_FIELDS} fields"), "name what a person must give");
            return vec![the_token(None)];
        }
        let mut fields = Vec::new();
        for (name, field) in written {
            let at = at.key(&name);
            self.check_field_name(&at, &name);
            // One that does not fit has been reported.
            let Object(field) = field.unwrap_or(Object(file::TokenField::default()));
            let format = field.format.and_then(|text| self.format(&at.key("format"), &text));
            let place = self.document.range(&at).start;
            let (label, help, is_secret) = (field.label, field.help, field.secret.unwrap_or(true));
            fields.push((place, TokenField { name: name.into(), label, help, is_secret, format }));
        }
        fields.sort_by_key(|(place, _)| *place);
        fields.into_iter().map(|(_, field)| field).collect()
    }

    fn check_field_name(&mut self, at: &Path, name: &str) {
        let fits = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.len() <= LONGEST_NAME
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !fits {
            let help = "use a letter and up to 31 letters, digits or `_`: it is written as <<name>>";
            self.report_key(at, "this cannot be the name of a field", help);
        } else if name == Credential::TOKEN {
            let help = "choose another name; a server with one token needs no `fields`";
            self.report_key(at, "`token` is the only value of a server without `fields`", help);
        }
    }

    /// The regular expression at `at`.
    pub(super) fn format(&mut self, at: &Path, text: &str) -> Option<Regex> {
        let (message, help) = match Regex::new(text) {
            Ok(format) => return Some(format),
            Err(regex::Error::CompiledTooBig(_)) => ("this regular expression is too large", "write a simpler one"),
            Err(_) => (
                "this is not a regular expression",
                "write one without look-around and back-references, for example ^ntn_[A-Za-z0-9]+$",
            ),
        };
        self.report(at, message, help);
        None
    }

    fn lifetime(&mut self, at: &Path, time: &Time) -> Duration {
        let lifetime = self.time(at, Some(time), SHORTEST_LIFE, Zero::Refused);
        if lifetime < SHORTEST_LIFE {
            self.report(at, "this is shorter than a day", "write for example \"90d\"");
        }
        lifetime
    }
}
