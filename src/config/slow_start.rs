//! Warnings about programs that look for the server, and may fetch it, whenever they start: here that is at every request.

use std::path::Path as FilePath;

use super::literal_secret::service;
use super::load::Loader;
use super::written::path::Path;

/// Where the help says that servers are installed.
const PREFIX: &str = "/opt/mcp";

impl Loader<'_> {
    /// Warns if `command`, which stands at `at`, is such a program; `arguments` are its own.
    pub(super) fn warn_of_slow_start(&mut self, at: &Path, command: &str, arguments: &[&str]) {
        let name = FilePath::new(command).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (package, program) = packaged(name, arguments);
        let install = match name {
            "npx" => format!("npm install --global --prefix {PREFIX} {package}"),
            "uvx" => format!("UV_TOOL_DIR={PREFIX}/tools UV_TOOL_BIN_DIR={PREFIX}/bin uv tool install {package}"),
            _ => return,
        };
        let message = format!("`{name}` looks for its package whenever it starts: 2 to 4 s more on every request");
        let help = format!(
            "run `{install}` once, and write \"command\": \"{PREFIX}/bin/{program}\" (`ls {PREFIX}/bin` shows the name) \
             with the arguments behind the package"
        );
        self.warn(at, message, help);
    }
}

/// The package that a launcher is told to run, and the program in it that probably is the server.
fn packaged<'a>(launcher: &str, arguments: &[&'a str]) -> (&'a str, &'a str) {
    const UNKNOWN: (&str, &str) = ("PACKAGE", "SERVER");
    let mut words = arguments.iter().copied();
    let mut from = None;
    while let Some(word) = words.next() {
        match word {
            "-y" | "--yes" | "-q" | "--quiet" => {}
            "-p" | "--package" | "--from" => from = words.next(),
            _ => {
                let package = from.unwrap_or(word);
                if !is_package(package) || !is_package(word) {
                    return UNKNOWN;
                }
                let word = word.rsplit('/').next().unwrap_or(word);
                let program =
                    if launcher == "npx" { word } else { word.split(['=', '[', '<', '>']).next().unwrap_or(word) };
                return (package, program.split('@').next().unwrap_or(program));
            }
        }
    }
    UNKNOWN
}

/// Whether this may be shown: it reads as the name of a package, and as nothing else.
fn is_package(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@/._-~^=[]".contains(c);
    (1..=100).contains(&word.len()) && !word.starts_with('-') && word.chars().all(plain) && service(word).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_told_from_options_and_secrets() {
        for (launcher, arguments, expected) in [
            ("npx", &["-y", "@scope/server-x@1.2", "/data"][..], ("@scope/server-x@1.2", "server-x")),
            ("npx", &["-y", "-p", "@scope/many", "mcp-x"], ("@scope/many", "mcp-x")),
            ("uvx", &["mcp-server-time==1.0"], ("mcp-server-time==1.0", "mcp-server-time")),
            ("uvx", &["--from", "git-mcp", "serve-git"], ("git-mcp", "serve-git")),
            ("npx", &["--registry=https://u:p@r.example", "x"], ("PACKAGE", "SERVER")),
            ("npx", &["-y", "ghp_0123456789abcdef"], ("PACKAGE", "SERVER")),
            ("npx", &[], ("PACKAGE", "SERVER")),
        ] {
            assert_eq!(packaged(launcher, arguments), expected, "{arguments:?}");
        }
    }
}
