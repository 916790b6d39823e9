//! From a command to the absolute path of a program, once, at load.

use std::path::{Path as FilePath, PathBuf};

use rustix::fs::{Access, access};

use super::load::Loader;
use super::written::path::Path;

/// The search path of a bridge that was started without one.
pub(super) const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

impl Loader<'_> {
    /// The program that `command` names: found in PATH, or relative to the file.
    pub(super) fn program(&mut self, at: &Path, command: &str) -> Option<PathBuf> {
        if command.trim().is_empty() || command.contains('\0') {
            self.report(at, "this names no program", "write the program's name or path");
            return None;
        }
        let found = if command.contains('/') { self.program_at(command) } else { self.program_in_path(command) };
        match found {
            Ok(program) => Some(program),
            Err(message) => {
                let help = if command.contains(' ') {
                    "no shell splits this: write the program alone here and its arguments in `args`"
                } else if command.starts_with('~') {
                    "no shell expands `~`: write the whole path"
                } else {
                    "install it, or write its path; relative paths start at the configuration file"
                };
                self.report(at, message, help);
                None
            }
        }
    }

    fn program_at(&self, command: &str) -> Result<PathBuf, &'static str> {
        let path = self.located(command);
        match path.metadata() {
            Ok(file) if file.is_dir() => Err("this is a directory, not a program"),
            Ok(_) if is_program(&path) => Ok(path),
            Ok(_) => Err("this file is not executable"),
            Err(_) => Err("there is no such program"),
        }
    }

    fn program_in_path(&self, command: &str) -> Result<PathBuf, &'static str> {
        let path = self.options.environment.read("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        std::env::split_paths(&path)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(command))
            .find(|path| is_program(path))
            .ok_or("no program of this name is in PATH")
    }
}

fn is_program(path: &FilePath) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}
