//! Placeholders in text: which there are for a server, what they stand for, and where they stand.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Fault;
use super::input::Input;
use crate::config::callers::Callers;
use crate::config::{RequestHeader, TokenSetup};
use crate::secret::Credential;

/// Stands for the name of whoever is calling.
const USER_ID: &str = "user.id";

/// Stands for their email address.
const USER_EMAIL: &str = "user.email";

/// One placeholder in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Placeholder {
    /// Where it stands, in bytes.
    pub range: Range<usize>,
    /// What it stands for.
    pub input: Input,
}

/// What may fill the server that is being read, and what was found to.
#[derive(Default)]
pub(in crate::config) struct Placeholders {
    /// The fields of its users' credentials, and whether each is secret.
    fields: Vec<(Box<str>, bool)>,
    used: BTreeSet<Box<str>>,
    names_user: bool,
    headers: Vec<RequestHeader>,
}

impl Placeholders {
    /// For a server whose users give what `setup` asks for.
    pub(in crate::config) fn of(setup: &TokenSetup) -> Self {
        let fields = setup.fields.iter().map(|field| (field.name.clone(), field.is_secret)).collect();
        Self { fields, ..Self::default() }
    }

    /// The placeholders of a `$userToken` text.
    pub(in crate::config) fn read(&mut self, text: &str, callers: &Callers) -> Result<Vec<Placeholder>, Fault> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(start) = text[from..].find("<<").map(|start| start + from) {
            let inside = start + 2;
            let is_name = |c: char| !matches!(c, '<' | '>' | '"' | '\n');
            let end = inside + text[inside..].find(|c| !is_name(c)).unwrap_or(text.len() - inside);
            if !text[end..].starts_with(">>") {
                return Err(Fault::new(start..inside, "this `<<` is not closed by `>>`", &self.help()));
            }
            let range = start..end + 2;
            let Some(input) = self.input(&text[inside..end]) else {
                return Err(Fault::new(range, "this is an unknown placeholder", &self.help()));
            };
            if let Some((message, help)) = callers.cannot_fill(&input) {
                return Err(Fault::new(range, message, help));
            }
            from = range.end;
            found.push(Placeholder { range, input });
        }
        if let Some(range) = find_between(text, ("{{", "}}"), is_token) {
            return Err(Fault::new(range, "`{{token}}` is no placeholder here", "write <<token>>"));
        }
        if found.is_empty() {
            let help = "put <<token>> where the token goes";
            return Err(Fault::new(0..text.len(), "`$userToken` without a placeholder", help));
        }
        for placeholder in &found {
            match &placeholder.input {
                Input::Field { name, .. } => drop(self.used.insert(name.clone())),
                Input::UserId | Input::Email => self.names_user = true,
                Input::Header(_) => {}
            }
        }
        Ok(found)
    }

    /// Where plain `text` holds a placeholder, however it is spelled.
    pub(in crate::config) fn find(&self, text: &str) -> Option<Range<usize>> {
        let is_name = |name: &str| {
            is_token(name)
                || [USER_ID, USER_EMAIL].iter().any(|known| name.eq_ignore_ascii_case(known))
                || self.fields.iter().any(|(field, _)| **field == *name)
        };
        find_between(text, ("<<", ">>"), is_name).or_else(|| find_between(text, ("{{", "}}"), is_token))
    }

    /// What is read from now on fills nothing that counts, until [`Placeholders::resume`] is given what this gives.
    pub(in crate::config) fn pause(&self) -> (BTreeSet<Box<str>>, bool) {
        (self.used.clone(), self.names_user)
    }

    /// Counts again, from where it was paused.
    pub(in crate::config) fn resume(&mut self, (used, names_user): (BTreeSet<Box<str>>, bool)) {
        (self.used, self.names_user) = (used, names_user);
    }

    /// The fields that nothing is filled with.
    pub(in crate::config) fn unused(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| &**name).filter(|name| !self.used.contains(*name))
    }

    /// Whether the server is told who is calling.
    pub(in crate::config) fn names_user(&self) -> bool {
        self.names_user
    }

    /// A header of the request that fills the server, too.
    pub(in crate::config) fn add_header(&mut self, header: RequestHeader) -> Input {
        self.headers.push(header);
        Input::Header(self.headers.len() - 1)
    }

    /// A header that each request must have.
    pub(in crate::config) fn required_header(&self) -> Option<&RequestHeader> {
        self.headers.iter().find(|header| header.default.is_none())
    }

    /// Those headers.
    pub(in crate::config) fn take_headers(&mut self) -> Vec<RequestHeader> {
        std::mem::take(&mut self.headers)
    }

    fn input(&self, name: &str) -> Option<Input> {
        match name {
            USER_ID => Some(Input::UserId),
            USER_EMAIL => Some(Input::Email),
            _ => {
                let (name, is_secret) = self.fields.iter().find(|(field, _)| **field == *name)?;
                Some(Input::Field { name: name.clone(), is_secret: *is_secret })
            }
        }
    }

    fn help(&self) -> String {
        let fields: Vec<&str> = self.fields.iter().map(|(name, _)| &**name).chain([USER_ID]).collect();
        format!("there are <<{}>> and <<{USER_EMAIL}>>", fields.join(">>, <<"))
    }
}

/// Whether a `$userToken` text is filled with something that a user has saved.
pub(in crate::config) fn takes_credential(text: &str) -> bool {
    let mut names = text.split("<<").skip(1).filter_map(|rest| Some(rest.split_once(">>")?.0)).peekable();
    names.peek().is_none() || names.any(|name| ![USER_ID, USER_EMAIL].contains(&name))
}

/// Whether this means the one value that has no name.
fn is_token(name: &str) -> bool {
    name.eq_ignore_ascii_case(Credential::TOKEN)
}

/// Where `text` holds a name of this kind between `open` and `close`, with blanks around it or without.
fn find_between(text: &str, (open, close): (&str, &str), is_name: impl Fn(&str) -> bool) -> Option<Range<usize>> {
    let mut from = 0;
    while let Some(start) = text[from..].find(open).map(|start| start + from) {
        let inside = start + open.len();
        let end = text[inside..].find(close)? + inside;
        if is_name(text[inside..end].trim_matches([' ', '<', '{'])) {
            return Some(start..end + close.len());
        }
        from = inside;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_in_plain_text_is_found_however_it_is_spelled() {
        let placeholders = Placeholders { fields: vec![("apiKey".into(), true)], ..Placeholders::default() };
        for text in [
            "a <<token>>",
            "<< token >>",
            "{{token}}",
            "x{{ Token }}",
            "<<TOKEN>>",
            "<<a<<token>>",
            "<<<token>>",
            "<<apiKey>>",
            "<<User.Id>>",
            "<<user.email>>",
        ] {
            assert!(placeholders.find(text).is_some(), "{text}");
        }
        for text in ["", "<<", "cat <<EOF", "{{x}}", "<<tokens>>", "<token>", "<<token>", "<<apikey>>", "{{apiKey}}"] {
            assert!(placeholders.find(text).is_none(), "{text}");
        }
    }

    #[test]
    fn only_the_names_of_users_need_nothing_that_they_saved() {
        for text in ["<<token>>", "<<user.id>> <<apiKey>>", "<<user.name>>", "sk-1", "<<user.id"] {
            assert!(takes_credential(text), "{text}");
        }
        for text in ["<<user.id>>", "a <<user.id>> b <<user.email>>"] {
            assert!(!takes_credential(text), "{text}");
        }
    }
}
