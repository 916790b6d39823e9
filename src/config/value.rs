//! Values that may be references: `$env` is resolved once, while the configuration is loaded, `$userToken` is left for
//! requests.

use std::ffi::OsString;
use std::ops::Range;

use zeroize::Zeroizing;

use super::load::Loader;
use super::template::Source;
use super::template::placeholder::find_token;
use super::written::file::Value;
use super::written::path::{Path, Step};

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
        }
    }

    /// Resolves a value that may have holes. With `resolve` off, variables are named but not looked up.
    pub(super) fn draft(&mut self, at: &Path, value: Value, expansion: Expansion, resolve: bool) -> Option<Draft> {
        match value {
            Value::Misfit => None,
            Value::Plain(text) if self.refuses_plain(at, &text, expansion) => None,
            Value::Plain(text) => {
                self.warn_of_secret(at, &text);
                Some(Draft { at: at.clone(), from: 0, source: Source::Plain, text: Some(Zeroizing::new(text)) })
            }
            Value::Env(name) => {
                let text = if resolve {
                    self.variable(at, &name)
                } else {
                    self.check_variable_name(at, &name);
                    None
                };
                Some(Draft { at: at.clone(), from: 0, source: Source::Env(name), text })
            }
            Value::UserToken(text) => {
                let at = at.key("$userToken");
                Some(Draft { at, from: 0, source: Source::UserToken, text: Some(Zeroizing::new(text)) })
            }
            Value::UserTokenFile(_) if expansion != Expansion::Variable => {
                let help = "name a variable in `env`, which will hold the path of the file";
                self.report(at, "`$userTokenFile` is for variables in `env` alone", help);
                None
            }
            Value::UserTokenFile(text) => {
                let at = at.key("$userTokenFile");
                Some(Draft { at, from: 0, source: Source::UserTokenFile, text: Some(Zeroizing::new(text)) })
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
        if let Some(range) = find_token(text) {
            let help = "write { \"$userToken\": \"…<<token>>…\" } instead of plain text";
            self.report_within(at, range, "plain text is passed on as it is: the token would not be put in", help);
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
}

/// Where `text` holds `${NAME}` (or `${env:NAME}`), and the name.
fn find_expansion(text: &str, expansion: Expansion) -> Option<(Range<usize>, &str)> {
    let start = text.find("${")?;
    let end = text[start..].find('}')? + start + 1;
    let fits = expansion == Expansion::Part || (start == 0 && end == text.len());
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
