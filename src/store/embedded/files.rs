//! The database on disk: private, made whole or not at all, and never made anew over something that is damaged.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rustix::fs::Access;

use crate::store::SetupError;

/// The database's name in its directory.
const DATABASE: &str = "tokens.db";
/// "Toll", in the header of a database of ours.
const APPLICATION: i32 = 0x546f_6c6c;
/// The version of the tables.
const VERSION: i32 = 5;
/// The oldest version that is brought up to date: all have the tables of [`SCHEMA`].
const OLDEST: i32 = 1;
/// What stands where a path is wanted for a database that has none.
pub(super) const IN_MEMORY: &str = ":memory:";
/// The most pages of a database in memory: 64 MiB.
const MAX_PAGES: i32 = 16 * 1024;
/// The bits of a mode that let others in.
const OTHERS: u32 = 0o077;

const SCHEMA: &str = "
    CREATE TABLE keys (id TEXT PRIMARY KEY, proof BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE owners (name TEXT PRIMARY KEY, sealed BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE tokens (name TEXT, server TEXT, record BLOB NOT NULL, PRIMARY KEY (name, server)) STRICT, WITHOUT ROWID;
";

/// What is kept of sessions: whose they are, in which order they were written to and until when; their fields; those that
/// were ended, with one of no name for all that expire no later.
const SESSIONS: &str = "
    CREATE TABLE sessions (user TEXT, name TEXT, written INTEGER NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (user, name))
        STRICT, WITHOUT ROWID;
    CREATE INDEX sessions_by_end ON sessions (until);
    CREATE TABLE fields (name TEXT, field TEXT, value BLOB NOT NULL, PRIMARY KEY (name, field)) STRICT, WITHOUT ROWID;
    CREATE TABLE ended (user TEXT, name TEXT, expires INTEGER NOT NULL, PRIMARY KEY (user, name)) STRICT, WITHOUT ROWID;
    CREATE INDEX ended_by_expiry ON ended (expires);
";

/// The first version with the tables of [`SESSIONS`].
const WITH_SESSIONS: i32 = 3;

/// What is noted beside tokens; what is remembered for a time, with a number; when what keys had sealed was sealed anew.
const NOTES: &str = "
    CREATE TABLE notes (name TEXT, field TEXT, value BLOB NOT NULL, PRIMARY KEY (name, field)) STRICT, WITHOUT ROWID;
    CREATE TABLE marks (name TEXT PRIMARY KEY, until INTEGER NOT NULL, count INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX marks_by_end ON marks (until);
    CREATE TABLE rotated (id TEXT PRIMARY KEY, time INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// The first version with the tables of [`NOTES`].
const WITH_NOTES: i32 = 4;

/// What lies by itself under a name of its own, until then, or without an end.
const CELLS: &str = "
    CREATE TABLE cells (name TEXT PRIMARY KEY, value BLOB NOT NULL, until INTEGER) STRICT, WITHOUT ROWID;
    CREATE INDEX cells_by_end ON cells (until);
";

/// Sees to it that `directory` and the database in it exist and are ours alone; the database's path.
pub(super) fn prepare(directory: &Path) -> Result<PathBuf, SetupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| failed(directory, &error))?;
    let (directory, path) = private(directory)?;
    if !exists(&path)? {
        create(&directory, &path)?;
    }
    Ok(path)
}

/// The path of the database in `directory`, if there is one. Where there is none, one could be made.
pub(super) fn find(directory: &Path) -> Result<Option<PathBuf>, SetupError> {
    if exists(directory)? {
        let (_, path) = private(directory)?;
        return Ok(exists(&path)?.then_some(path));
    }
    let above = directory.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let writable = rustix::fs::access(above, Access::WRITE_OK | Access::EXEC_OK);
    writable.map(|()| None).map_err(|error| failed(directory, &error.into()))
}

/// The plain path of `directory` and that of the database in it, if what is there is ours alone.
fn private(directory: &Path) -> Result<(PathBuf, PathBuf), SetupError> {
    ours_alone(directory, fs::Metadata::is_dir)?;
    // Symbolic links above the directory are the operator's; below it there are none.
    let directory = fs::canonicalize(directory).map_err(|error| failed(directory, &error))?;
    let [path, log, shared] = ["", "-wal", "-shm"].map(|end| directory.join(format!("{DATABASE}{end}")));
    // In this order, for another process may be making both.
    if !exists(&path)? && exists(&log)? && !exists(&path)? {
        return Err(SetupError::Corrupt { path, problem: "the file is missing but its log is there" });
    }
    for file in [&path, &log, &shared] {
        if exists(file)? {
            ours_alone(file, fs::Metadata::is_file)?;
        }
    }
    Ok((directory, path))
}

/// A connection to the database at `path`, which must exist. It waits up to `busy` for another process's write.
pub(super) fn connect(path: &Path, busy: Duration) -> Result<Connection, SetupError> {
    let connect = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(busy)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // A commit is on the disk when it returns, and what was deleted is overwritten.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        Ok(connection)
    };
    connect().map_err(|error| setup(&error, path))
}

/// A connection to a database of its own that is nowhere but in memory.
pub(super) fn in_memory() -> Result<Connection, SetupError> {
    let open = || {
        let connection = Connection::open_in_memory()?;
        connection.pragma_update(None, "max_page_count", MAX_PAGES)?;
        connection.execute_batch(SCHEMA)?;
        connection.execute_batch(SESSIONS)?;
        connection.execute_batch(NOTES)?;
        connection.execute_batch(CELLS)?;
        Ok(connection)
    };
    open().map_err(|error| setup(&error, Path::new(IN_MEMORY)))
}

/// Whether the database is ours and intact; then brings it up to date and turns on its write-ahead log.
pub(super) fn verify(connection: &mut Connection, path: &Path) -> Result<(), SetupError> {
    let failed = |error: rusqlite::Error| setup(&error, path);
    if examine(connection, path)? < VERSION {
        bring_up_to_date(connection).map_err(failed)?;
    }
    if connection.query_row("PRAGMA journal_mode = WAL", (), text).map_err(failed)? != "wal" {
        let problem = "this file system does not support its write-ahead log";
        return Err(SetupError::Corrupt { path: path.to_owned(), problem });
    }
    Ok(())
}

/// The version of the database, if it is ours and intact.
pub(super) fn examine(connection: &Connection, path: &Path) -> Result<i32, SetupError> {
    let corrupt = |problem| Err(SetupError::Corrupt { path: path.to_owned(), problem });
    if fs::metadata(path).map_err(|error| failed(path, &error))?.len() == 0 {
        return corrupt("it is empty");
    }
    let failed = |error: rusqlite::Error| setup(&error, path);
    if number(connection, "application_id").map_err(failed)? != APPLICATION {
        return corrupt("it was made by another program");
    }
    let version = match number(connection, "user_version").map_err(failed)? {
        known @ OLDEST..=VERSION => known,
        newer if newer > VERSION => return Err(SetupError::Newer { path: path.to_owned() }),
        _ => return corrupt("its version is unknown"),
    };
    if connection.query_row("PRAGMA quick_check(1)", (), text).map_err(failed)? != "ok" {
        return corrupt("its pages do not fit together");
    }
    Ok(version)
}

fn text(row: &rusqlite::Row<'_>) -> rusqlite::Result<String> {
    row.get(0)
}

/// Brings a database of an earlier version up to date, unless another process was faster. What the first versions kept of
/// sessions is forgotten.
fn bring_up_to_date(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = number(&transaction, "user_version")?;
    if version < WITH_SESSIONS {
        transaction.execute_batch("DROP TABLE IF EXISTS revoked; DROP TABLE IF EXISTS sessions;")?;
        transaction.execute_batch(SESSIONS)?;
    }
    if version < WITH_NOTES {
        transaction.execute_batch(NOTES)?;
    }
    if version < VERSION {
        transaction.execute_batch(CELLS)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

/// A failure while the database is opened.
pub(super) fn setup(error: &rusqlite::Error, path: &Path) -> SetupError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            SetupError::Corrupt { path: path.to_owned(), problem: "SQLite cannot read it" }
        }
        // SQLite has many words for it.
        _ if is_read_only(path) => failed(path, &io::ErrorKind::ReadOnlyFilesystem.into()),
        Some(rusqlite::ErrorCode::PermissionDenied | rusqlite::ErrorCode::ReadOnly) => {
            failed(path, &io::ErrorKind::PermissionDenied.into())
        }
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            failed(path, &io::ErrorKind::ResourceBusy.into())
        }
        Some(rusqlite::ErrorCode::DiskFull) => failed(path, &io::ErrorKind::StorageFull.into()),
        _ => failed(path, &io::ErrorKind::Other.into()),
    }
}

/// Whether nothing can be written where `path` is.
fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|system| system.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Makes an empty database beside `path` and moves it there whole, so that a file that is found there empty was damaged
/// and not begun. Another process that was faster wins.
fn create(directory: &Path, path: &Path) -> Result<(), SetupError> {
    let mut random = [0; 9];
    aws_lc_rs::rand::fill(&mut random).expect("the system gives random bytes");
    let draft = directory.join(format!(".{DATABASE}.{}", BASE64_URL_SAFE_NO_PAD.encode(random)));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(|error| failed(&draft, &error))?;
    // Nobody else knows of it.
    let made = connect(&draft, Duration::ZERO).and_then(|connection| {
        let tables = || {
            connection.execute_batch(SCHEMA)?;
            connection.execute_batch(SESSIONS)?;
            connection.execute_batch(NOTES)?;
            connection.execute_batch(CELLS)?;
            connection.pragma_update(None, "user_version", VERSION)?;
            connection.pragma_update(None, "application_id", APPLICATION)?;
            // Now, while nobody else has it open; the file remembers it.
            connection.pragma_update(None, "journal_mode", "WAL")
        };
        tables().map_err(|error| setup(&error, &draft))
    });
    let moved = made.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(path, &error)),
        _ => File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| failed(path, &error)),
    });
    fs::remove_file(&draft).map_err(|error| failed(&draft, &error))?;
    moved
}

/// Refuses a link, somebody else's file and what others may read or write.
///
/// The file is looked at, not opened: closing it would release the locks that SQLite holds on it elsewhere in this
/// process. Nobody else can swap it meanwhile, since its directory is ours alone.
fn ours_alone(path: &Path, is_wanted: fn(&fs::Metadata) -> bool) -> Result<(), SetupError> {
    let metadata = fs::symlink_metadata(path).map_err(|error| failed(path, &error))?;
    let problem = if metadata.is_symlink() {
        "must not be a symbolic link"
    } else if !is_wanted(&metadata) {
        "is not the kind of file that belongs here"
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        "must belong to the user who runs tollbridge"
    } else if metadata.mode() & OTHERS != 0 {
        "is open to other users; run chmod go= on it"
    } else {
        return Ok(());
    };
    Err(SetupError::Exposed { path: path.to_owned(), problem })
}

fn exists(path: &Path) -> Result<bool, SetupError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(path, &error)),
    }
}

fn failed(path: &Path, error: &io::Error) -> SetupError {
    SetupError::Io { path: path.to_owned(), kind: error.kind() }
}
