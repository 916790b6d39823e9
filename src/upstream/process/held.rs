//! A program that waits before its first instruction: it is started as this very program, which becomes it once it is
//! told the variables that nobody knew before its request.
//!
//! ```text
//! tollbridge held PROGRAM ARGUMENT…
//! ```
//!
//! From stdin it reads a record, and not one byte more: what follows is the program's. A record is its length (4 bytes, the
//! highest first), and as many bytes of variables, each as `NAME=VALUE` with a NUL behind it. In a container
//! `src/sys/held/main.rs` does the same.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::config::{MAX_LAUNCH, StdioLaunch};
use crate::secret::Secret;
use crate::sys::{self, CStrings};

/// The hidden command of this program.
pub const HELD: &str = "held";

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// Nobody had a use for it.
    #[error("there is no request for it")]
    Unneeded,
    /// The arguments or the record are not as they should be.
    #[error("it was not told what the bridge tells")]
    Malformed,
    /// The program cannot be used, or the record cannot be read.
    #[error("{0}")]
    Refused(#[from] io::Error),
}

/// Has `launch` wait before its program's first instruction.
pub(in crate::upstream) fn hold(launch: &mut StdioLaunch) {
    let program = mem::replace(&mut launch.program, "/proc/self/exe".into());
    launch.args.splice(0..0, [HELD.into(), program.into_os_string()]);
}

/// What a program that waits is to be told. It is zeroed when the last copy of it is dropped.
pub(in crate::upstream) fn record(env: &[(String, Secret)]) -> Bytes {
    const EQUALS_AND_NUL: usize = 2;
    let length: usize = env.iter().map(|(name, value)| name.len() + value.expose().len() + EQUALS_AND_NUL).sum();
    // It never grows, because growing would leave a copy behind.
    let mut record = Zeroizing::new(Vec::with_capacity(size_of::<u32>() + length));
    record.extend_from_slice(&u32::try_from(length).expect("an environment is far shorter").to_be_bytes());
    for (name, value) in env {
        for part in [name.as_bytes(), b"=", value.expose().as_bytes(), b"\0"] {
            record.extend_from_slice(part);
        }
    }
    Bytes::from_owner(record)
}

/// Waits for the record, and becomes the program. Returns only if it does not.
#[must_use]
pub fn run(arguments: impl Iterator<Item = OsString>) -> Stopped {
    match become_program(arguments) {
        Ok(refused) => refused.into(),
        Err(stopped) => stopped,
    }
}

fn become_program(arguments: impl Iterator<Item = OsString>) -> Result<io::Error, Stopped> {
    let arguments: Vec<Vec<u8>> = arguments.map(OsStringExt::into_vec).collect();
    let program = arguments.first().and_then(|program| CString::new(&**program).ok()).ok_or(Stopped::Malformed)?;
    let record = read_record(&mut File::from(rustix::stdio::stdin().as_fd().try_clone_to_owned()?))?;
    let late: Vec<&[u8]> = record.split(|&b| b == 0).filter(|variable| !variable.is_empty()).collect();
    let name = |variable: &[u8]| variable.split(|&b| b == b'=').next().unwrap_or_default().to_vec();
    let names: Vec<_> = late.iter().map(|variable| name(variable)).collect();
    let early = std::env::vars_os().filter(|(name, _)| !names.iter().any(|late| *late == name.as_bytes()));
    let early: Vec<_> = early.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect();
    let env: Vec<&[u8]> = early.iter().map(Vec::as_slice).chain(late).collect();
    let args: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
    Ok(sys::run(&program, &strings(&args)?, Some(&strings(&env)?)))
}

/// Reads the record from what is not buffered.
fn read_record(stdin: &mut impl Read) -> Result<Zeroizing<Vec<u8>>, Stopped> {
    /// The budget of a launch counts more than the record, which has a NUL more only for each of its variables.
    const LONGEST: usize = MAX_LAUNCH;
    let mut length = [0; size_of::<u32>()];
    stdin.read_exact(&mut length).map_err(|_| Stopped::Unneeded)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(Stopped::Malformed);
    }
    let mut record = Zeroizing::new(vec![0; length]);
    stdin.read_exact(&mut record)?;
    Ok(record)
}

fn strings(strings: &[&[u8]]) -> Result<CStrings, Stopped> {
    let mut made = CStrings::with_capacity(strings.len(), strings.iter().map(|string| string.len()).sum());
    strings.iter().try_for_each(|string| made.push(&[string])).map_err(|_| Stopped::Malformed)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_the_record_and_not_one_byte_more() {
        let variables = [("A", "1\n2"), ("B", ""), ("C", "ä=b")];
        let env = variables.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned())));
        let told = [&record(&env)[..], b"{\"jsonrpc\""].concat();
        let mut stdin = &told[..];
        assert_eq!(read_record(&mut stdin).unwrap()[..], *b"A=1\n2\0B=\0C=\xc3\xa4=b\0");
        assert_eq!(stdin, b"{\"jsonrpc\"");
        assert_eq!(record(&[])[..], [0; 4], "no variable is a record, too");
    }

    #[test]
    fn what_the_bridge_would_not_write_is_refused() {
        assert!(matches!(read_record(&mut &b""[..]), Err(Stopped::Unneeded)));
        assert!(matches!(read_record(&mut &b"\0\0\0\x02A"[..]), Err(Stopped::Refused(_))));
        assert!(matches!(read_record(&mut &b"\xff\xff\xff\xff"[..]), Err(Stopped::Malformed)));
        assert!(matches!(run(std::iter::empty()), Stopped::Malformed));
    }
}
