//! The file that lines are added to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt};
use std::path::Path;

use crate::config::AuditFile;

/// Who may read and write it: its owner.
const MODE: u32 = 0o600;

/// A file that is open, and perhaps ends within a line.
pub(super) struct FileLog {
    named: AuditFile,
    open: Open,
    /// A line was written in part: the next one begins on a line of its own.
    is_torn: bool,
    /// It was to be opened anew, and could not be.
    is_stale: bool,
}

enum Open {
    Stderr(io::Stderr),
    File(File),
}

impl FileLog {
    /// Opens what the configuration names; a file that is not there is made.
    pub(super) fn open(named: AuditFile) -> io::Result<Self> {
        let open = open(&named)?;
        Ok(Self { named, open, is_torn: false, is_stale: false })
    }

    /// Opens it anew. If that fails, lines are added to what is open until it is done again and does not. It may be the
    /// same file, whose last line is torn.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.is_stale = true;
        self.open = open(&self.named)?;
        self.is_stale = false;
        Ok(())
    }

    /// Whether lines are added to a file that somebody has moved away.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Adds one line. Several processes may add lines to the same file: each is one write.
    pub(super) fn add(&mut self, line: &[u8]) -> io::Result<()> {
        let out: &mut dyn Write = match &mut self.open {
            Open::Stderr(stderr) => stderr,
            Open::File(file) => file,
        };
        if self.is_torn {
            out.write_all(b"\n")?;
        }
        let written = out.write_all(line);
        self.is_torn = written.is_err();
        written
    }

    /// Returns once what was added will be there after a crash of the machine.
    pub(super) fn sync(&self) -> io::Result<()> {
        match &self.open {
            Open::File(file) if file.metadata()?.is_file() => file.sync_data(),
            _ => Ok(()),
        }
    }
}

fn open(named: &AuditFile) -> io::Result<Open> {
    match named {
        AuditFile::Stderr => Ok(Open::Stderr(io::stderr())),
        AuditFile::Path(path) => Ok(Open::File(open_path(path)?)),
    }
}

fn open_path(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
    let about = file.metadata()?;
    // One that was there before may be open to others.
    if about.is_file() && about.mode() & 0o077 != 0 {
        file.set_permissions(PermissionsExt::from_mode(MODE))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_file_is_its_owner_s_alone_whether_it_was_there_or_not() {
        let home = tempfile::tempdir().unwrap();
        let (new, old) = (home.path().join("new"), home.path().join("old"));
        fs::write(&old, "before\n").unwrap();
        fs::set_permissions(&old, PermissionsExt::from_mode(0o644)).unwrap();
        for path in [&new, &old] {
            FileLog::open(AuditFile::Path(path.clone())).unwrap().add(b"line\n").unwrap();
            assert_eq!(mode(path), MODE);
        }
        assert_eq!(fs::read_to_string(&old).unwrap(), "before\nline\n");
    }

    #[test]
    fn a_line_after_one_that_was_cut_off_begins_on_its_own() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit.jsonl");
        fs::write(&path, "{\"cut").unwrap();
        let mut log = FileLog::open(AuditFile::Path(path.clone())).unwrap();
        log.is_torn = true;
        log.add(b"one\n").unwrap();
        log.add(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"cut\none\ntwo\n");
    }
}
