//! Values that may be references: `$env` is resolved once, while the configuration is loaded, `$userToken` is left for
//! requests.

use std::ffi::OsString;
use std::ops::Range;

use zeroize::Zeroizing;

use super::load::Loader;
use super::template::Source;
use super::template::input::Input;
use super::written::file::Value;
use super::written::path::{Path, Step};

/// Where a header of the request may stand.
const IN_ENV: &str = "a header of the request may stand in env and headers, as the whole value";

/// A value that needs no user, resolved.
pub(super) enum Setting {
    /// The field is not there.
    Absent,
    /// It is there, and what it says has been refused or is not set here.
    Unknown,
    /// What it says.
    Known(Zeroizing<String>),
}

impl Setting {
    /// What the field says, if that is known.
    pub(super) fn known(&self) -> Option<&str> {
        match self {
            Self::Known(text) => Some(text),
            Self::Absent | Self::Unknown => None,
        }
    }
}

/// A value that may have holes, resolved but not compiled yet.
pub(super) struct Draft {
    /// Where its text stands.
    pub at: Path,
    /// Where its text starts in what stands there.
    pub from: usize,
    /// How it was written.
    pub source: Source,
    /// Its text; `None` for an environment variable that is not set here.
    pub text: Option<Zeroizing<String>>,
    /// What it is filled with as a whole, if it has no text of its own.
    pub whole: Option<Input>,
}

impl Draft {
    pub(super) fn new(at: Path, source: Source, text: Option<String>) -> Self {
        Self { at, from: 0, source, text: text.map(Zeroizing::new), whole: None }
    }
}

impl Loader<'_> {
    /// Resolves a value that must not depend on the user.
    pub(super) fn setting(&mut self, at: &Path, value: Option<Value>) -> Setting {
        match value {
            None => Setting::Absent,
            Some(Value::Misfit) => Setting::Unknown,
            Some(Value::Plain(text)) if self.refuses_plain(at, &text, Expansion::Whole) => Setting::Unknown,
            Some(Value::Plain(text)) => {
                self.warn_of_secret(at, &text);
                Setting::Known(Zeroizing::new(text))
            }
            Some(Value::Env(name)) => self.variable(at, &name).map_or(Setting::Unknown, Setting::Known),
            Some(Value::UserToken(_) | Value::UserTokenFile(_)) => {
                let help = "the user's token may stand in env, args, headers and the path or query of url";
                self.report(at, "the user's token cannot be in this field", help);
                Setting::Unknown
            }
            Some(Value::Header(_)) => {
                self.report(at, "a request's header cannot decide this", IN_ENV);
                Setting::Unknown
            }
        }
    }

    /// Resolves a value that may have holes. With `resolve` off, variables are named but not looked up.
    pub(super) fn draft(&mut self, at: &Path, value: Value, expansion: Expansion, resolve: bool) -> Option<Draft> {
        match value {
            Value::Misfit => None,
            Value::Plain(text) if self.refuses_plain(at, &text, expansion) => None,
            Value::Plain(text) => {
                self.warn_of_secret(at, &text);
                Some(Draft::new(at.clone(), Source::Plain, Some(text)))
            }
            Value::Env(name) => {
                let text = if resolve {
                    self.variable(at, &name)
                } else {
                    self.check_variable_name(at, &name);
                    None
                };
                Some(Draft { text, ..Draft::new(at.clone(), Source::Env(name), None) })
            }
            Value::UserToken(text) => Some(Draft::new(at.key("$userToken"), Source::UserToken, Some(text))),
            Value::UserTokenFile(_) if expansion != Expansion::Variable => {
                let help = "name a variable in `env`, which will hold the path of the file";
                self.report(at, "`$userTokenFile` is for variables in `env` alone", help);
                None
            }
            Value::UserTokenFile(text) => Some(Draft::new(at.key("$userTokenFile"), Source::UserTokenFile, Some(text))),
            Value::Header(_) if !matches!(expansion, Expansion::Variable | Expansion::Header) => {
                self.report(at, "a request's header cannot stand here", IN_ENV);
                None
            }
            Value::Header(header) => {
                let at = at.key("$header");
                let header = self.request_header(&at, header)?;
                let source = Source::Header(header.name.as_str().to_owned());
                let whole = Some(self.placeholders.add_header(header));
                Some(Draft { whole, ..Draft::new(at, source, Some(String::new())) })
            }
        }
    }

    /// The value of the environment variable `name`; reports it if there is none.
    fn variable(&mut self, at: &Path, name: &str) -> Option<Zeroizing<String>> {
        if !self.check_variable_name(at, name) {
            return None;
        }
        let problem = match self.options.environment.read(name).map(OsString::into_string) {
            Some(Ok(text)) if !text.is_empty() => return Some(Zeroizing::new(text)),
            Some(Err(_)) => "is not UTF-8",
            Some(Ok(_)) => "is empty",
            None => "is not set",
        };
        if !self.options.allow_missing_env {
            let message = format!("the environment variable `{name}` {problem}{}", whose(at));
            self.report(at, message, format!("set {name}, or check with --allow-missing-env where it need not be set"));
        }
        None
    }

    fn check_variable_name(&mut self, at: &Path, name: &str) -> bool {
        let bare = name.trim_start_matches(['$', '{']).trim_end_matches('}');
        let fits = !name.is_empty() && bare.len() == name.len() && !name.contains(['=', '\0', ' ', '<']);
        if !fits {
            let help = format!("write the name alone, for example {{ \"$env\": \"{}\" }}", suggested_name(bare));
            self.report(at, "`$env` does not name an environment variable", help);
        }
        fits
    }

    /// Reports plain text that looks like a reference, since it would be passed on as it is.
    fn refuses_plain(&mut self, at: &Path, text: &str, expansion: Expansion) -> bool {
        if let Some(range) = self.placeholders.find(text) {
            let help = "write { \"$userToken\": \"…<<token>>…\" } instead of plain text";
            self.report_within(at, range, "plain text is passed on as it is: nothing would be put in", help);
            return true;
        }
        if let Some((range, name)) = find_expansion(text, expansion) {
            let help = format!("write {{ \"$env\": \"{}\" }} as the whole value", suggested_name(name));
            self.report_within(at, range, "plain text is passed on as it is: the variable would not be put in", help);
            return true;
        }
        false
    }
}

/// How much of a plain text must look like `${NAME}` before it is taken for a mistake.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expansion {
    /// All of it: `${NAME}` within longer text may be meant for the program.
    Whole,
    /// The same, in a variable, which may also hold the path of a file.
    Variable,
    /// Any part of it.
    Part,
    /// The same, in a header, which may also be one of the request.
    Header,
}

/// Where `text` holds `${NAME}` (or `${env:NAME}`), and the name.
fn find_expansion(text: &str, expansion: Expansion) -> Option<(Range<usize>, &str)> {
    let start = text.find("${")?;
    let end = text[start..].find('}')? + start + 1;
    let fits = matches!(expansion, Expansion::Part | Expansion::Header) || (start == 0 && end == text.len());
    let inside = &text[start + 2..end - 1];
    fits.then(|| (start..end, inside.rsplit(':').next().unwrap_or(inside)))
}

/// `name` if it may be shown as one, else an example.
fn suggested_name(name: &str) -> &str {
    let is_name = !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_name { name } else { "NAME" }
}

/// " (server `notion`, field `env.TOKEN`)" for a path inside a server.
fn whose(at: &Path) -> String {
    match at.steps() {
        [Step::Key(table), Step::Key(server), field @ ..] if table == "mcpServers" => {
            let field = field.iter().fold(Path::root(), |path, step| path.step(step.clone()));
            format!(" (server `{server}`, field `{field}`)")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expansion_of_other_clients_is_found() {
        assert_eq!(find_expansion("${env:KEY}", Expansion::Whole).map(|(_, name)| name), Some("KEY"));
        assert_eq!(find_expansion("a ${KEY}", Expansion::Whole), None);
        assert_eq!(find_expansion("a ${KEY}", Expansion::Part), Some((2..8, "KEY")));
        assert_eq!(find_expansion("$KEY", Expansion::Part), None);
    }
}
