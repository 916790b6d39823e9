//! What people call a bridge.

use super::load::Loader;
use super::written::path::Path;

/// What a bridge is called whose operator says nothing.
const DEFAULT: &str = "Tollbridge";

/// The longest name, in characters.
const LONGEST: usize = 64;

impl Loader<'_> {
    pub(super) fn name(&mut self, written: Option<String>) -> String {
        let Some(name) = written else { return DEFAULT.to_owned() };
        let length = name.chars().count();
        if name.trim().is_empty() || length > LONGEST || name.chars().any(char::is_control) {
            let help = "write 1 to 64 characters, for example \"Acme's MCP servers\", or leave it out";
            self.report(&Path::root().key("name"), "this is not a name to show to people", help);
        }
        name
    }
}
