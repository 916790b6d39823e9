//! `tollbridge keygen`: sealing keys and bearer tokens.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aws_lc_rs::digest::{SHA256, digest};

use super::Stop;
use crate::keyring::RootKey;

/// Make a sealing key for `tokenStore.keys`, or a bearer token for `identity`.
#[derive(Debug, clap::Args)]
pub struct Keygen {
    /// Write the key to this new file, readable by its owner alone, and not to stdout.
    #[arg(long, value_name = "FILE", conflicts_with = "bearer")]
    out: Option<PathBuf>,
    /// Print a bearer token for a client, and the SHA-256 of it for the configuration.
    #[arg(long)]
    bearer: bool,
}

impl Keygen {
    /// Makes a key or a token.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let secret = RootKey::random().to_text();
        Stop::exit(match (&self.out, self.bearer) {
            (Some(path), _) => save(path, &secret),
            (None, true) => print_bearer(&secret).map_err(Stop::output),
            (None, false) => writeln!(io::stdout(), "{}", *secret).map_err(Stop::output),
        })
    }
}

fn print_bearer(token: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "token {token}")?;
    write!(stdout, "sha256 ")?;
    for byte in digest(&SHA256, token.as_bytes()).as_ref() {
        write!(stdout, "{byte:02x}")?;
    }
    writeln!(stdout)
}

/// Writes `key` to a new file that only its owner can read, durably: what it will seal cannot be read without it.
fn save(path: &Path, key: &str) -> Result<(), Stop> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Stop::failed(format!(
            "{} exists and is left as it is: what it sealed could not be read without it",
            path.display()
        )),
        _ => Stop::failed(format!("cannot write {}: {error}", path.display())),
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    writeln!(file, "{key}").and_then(|()| file.sync_all()).map_err(failed)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}
