//! The one place that reads the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Where `$env` looks.
#[derive(Default)]
pub enum Environment {
    /// The environment of this process.
    #[default]
    Process,
    /// These variables and no others.
    Given(BTreeMap<String, OsString>),
}

impl Environment {
    /// The value of the variable `name`.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    #[must_use]
    pub fn read(&self, name: &str) -> Option<OsString> {
        match self {
            Self::Process => std::env::var_os(name),
            Self::Given(variables) => variables.get(name).cloned(),
        }
    }
}
