//! A launch plan as the system wants it: NUL-terminated strings, which are zeroed on drop.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::SpawnError;
use super::confinement::ActiveConfinement;
use super::exec_as::ExecSetup;
use crate::config::StdioLaunch;
use crate::sys::CStrings;

/// The program that runs, and what it is given.
pub(super) struct CommandLine {
    pub(super) path: CString,
    pub(super) args: CStrings,
    pub(super) env: CStrings,
    pub(super) cwd: Option<CString>,
}

impl CommandLine {
    /// What is run is this very program, started anew, if there is something to setup before `launch`.
    pub(super) fn new(
        launch: &StdioLaunch,
        confined: &ActiveConfinement,
        setup: Option<&ExecSetup>,
    ) -> Result<Self, SpawnError> {
        let program = launch.program.as_os_str().as_bytes();
        let before = setup.map(ExecSetup::arguments).unwrap_or_default();
        let mut args: Vec<&[u8]> = before.iter().map(|argument| argument.as_bytes()).collect();
        args.push(program);
        args.extend(launch.args.iter().map(|arg| arg.as_bytes()));
        let (path, cwd) = match setup {
            None => (c_path(&launch.program)?, directory(launch, confined).map(c_path).transpose()?),
            Some(_) => (c"/proc/self/exe".to_owned(), None),
        };
        Ok(Self { path, args: strings(&args)?, env: environment(launch, confined)?, cwd })
    }
}

/// Where the program works, if not where we do.
pub(super) fn directory<'a>(launch: &'a StdioLaunch, confined: &'a ActiveConfinement) -> Option<&'a Path> {
    launch.cwd.as_deref().or(confined.directory())
}

fn c_path(path: &Path) -> Result<CString, SpawnError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| SpawnError::Nul)
}

fn strings(strings: &[&[u8]]) -> Result<CStrings, SpawnError> {
    let bytes = strings.iter().map(|string| string.len()).sum();
    let mut made = CStrings::with_capacity(strings.len(), bytes);
    for string in strings {
        made.push(&[string])?;
    }
    Ok(made)
}

fn environment(launch: &StdioLaunch, confined: &ActiveConfinement) -> Result<CStrings, SpawnError> {
    const TMPDIR: &str = "TMPDIR";
    let declared = launch.env.iter().any(|(name, _)| name == TMPDIR);
    let own = confined.directory().filter(|_| !declared).map(|path| path.as_os_str().as_bytes());
    let bytes: usize = launch.env.iter().map(|(name, value)| name.len() + 1 + value.expose().len()).sum();
    let more = own.map_or(0, |path| TMPDIR.len() + 1 + path.len());
    let mut env = CStrings::with_capacity(launch.env.len() + 1, bytes + more);
    for (name, value) in &launch.env {
        env.push(&[name.as_bytes(), b"=", value.expose().as_bytes()])?;
    }
    if let Some(path) = own {
        env.push(&[TMPDIR.as_bytes(), b"=", path])?;
    }
    Ok(env)
}
