//! A launch plan as the system wants it: NUL-terminated strings, which are zeroed on drop.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::confine::Cell;
use super::group::SpawnError;
use crate::config::StdioLaunch;
use crate::sys::CStrings;

/// The program that runs, and what it is given.
pub(super) struct CommandLine {
    pub(super) path: CString,
    pub(super) args: CStrings,
    pub(super) env: CStrings,
    pub(super) cwd: Option<CString>,
}

/// The hidden command of this program that becomes another user and then runs a program.
pub const EXEC_AS: &str = "exec-as";

impl CommandLine {
    pub(super) fn new(launch: &StdioLaunch, cell: &Cell) -> Result<Self, SpawnError> {
        let program = launch.program.as_os_str().as_bytes();
        let before = before(cell);
        let mut args: Vec<&[u8]> = before.iter().map(String::as_bytes).collect();
        args.push(program);
        args.extend(launch.args.iter().map(|arg| arg.as_bytes()));
        let path = if before.is_empty() { c_path(&launch.program)? } else { c"/proc/self/exe".to_owned() };
        let cwd = launch.cwd.as_deref().or(cell.directory());
        Ok(Self { path, args: strings(&args)?, env: environment(launch, cell)?, cwd: cwd.map(c_path).transpose()? })
    }
}

/// What stands before the program and its arguments: nothing, unless it runs as another user. Changing the user is
/// left to this program itself, started anew, so that no process shares our memory while it is somebody else's.
fn before(cell: &Cell) -> Vec<String> {
    let Some(user) = &cell.user else { return Vec::new() };
    let limit = |limit: Option<u64>| limit.map_or("-".to_owned(), |limit| limit.to_string());
    vec![
        "tollbridge".to_owned(),
        EXEC_AS.to_owned(),
        user.uid.to_string(),
        user.gid.to_string(),
        limit(cell.by_process.data),
        limit(cell.by_process.processes),
    ]
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

fn environment(launch: &StdioLaunch, cell: &Cell) -> Result<CStrings, SpawnError> {
    const TMPDIR: &str = "TMPDIR";
    let declared = launch.env.iter().any(|(name, _)| name == TMPDIR);
    let own = cell.directory().filter(|_| !declared).map(|path| path.as_os_str().as_bytes());
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
