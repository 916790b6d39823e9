//! The embedded store's files: private, intact or refused, and never in another process's way.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollbridge::clock::{Clock, UnixTime};
use tollbridge::config::TokenStoreKind;
use tollbridge::store::{SetupError, TokenStore};

use crate::home::{Home, Tokens as _, embedded_kind, found, key, look, ring, secret, server, user};
use crate::sessions::session;

/// A closed store that held a token, and the path of its database.
async fn closed() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("data/tokens.db");
    let store = open(&directory.path().join("data")).unwrap();
    store.set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    drop(store);
    // The connections close on their own threads; the last one takes the log with it. Two that close at one moment each
    // leave it to the other, so one more comes and goes.
    let deadline = Instant::now() + Duration::from_mins(1);
    while path.with_extension("db-wal").exists() {
        assert!(Instant::now() < deadline);
        let visitor = rusqlite::Connection::open(&path).unwrap();
        visitor.query_row("SELECT count(*) FROM keys", (), |row| row.get::<_, i64>(0)).unwrap();
        drop(visitor);
        std::thread::sleep(Duration::from_millis(2));
    }
    (directory, path)
}

fn open(directory: &Path) -> Result<TokenStore, SetupError> {
    let kind = embedded_kind(directory.to_owned());
    TokenStore::open(&kind, Arc::new(ring(&[key("k1")])), Clock::System)
}

#[tokio::test]
async fn the_directory_and_its_files_are_ours_alone() {
    let home = TempDir::new().unwrap();
    let directory = home.path().join("new/data");
    let store = open(&directory).unwrap();
    store.set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    let mut names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["tokens.db", "tokens.db-shm", "tokens.db-wal"]);
    for name in names {
        assert_eq!(fs::metadata(directory.join(&name)).unwrap().mode() & 0o777, 0o600, "{name:?}");
    }
}

#[tokio::test]
async fn what_others_may_reach_is_refused() {
    let (home, path) = closed().await;
    let data = path.parent().unwrap();
    for (target, bad, good) in [(data, 0o750, 0o700), (path.as_path(), 0o640, 0o600)] {
        fs::set_permissions(target, Permissions::from_mode(bad)).unwrap();
        assert!(matches!(open(data).unwrap_err(), SetupError::Exposed { .. }), "{target:?}");
        fs::set_permissions(target, Permissions::from_mode(good)).unwrap();
    }
    let link = home.path().join("link");
    symlink(data, &link).unwrap();
    assert!(matches!(open(&link).unwrap_err(), SetupError::Exposed { .. }));
    fs::rename(&path, home.path().join("elsewhere.db")).unwrap();
    symlink(home.path().join("elsewhere.db"), &path).unwrap();
    assert!(matches!(open(data).unwrap_err(), SetupError::Exposed { .. }));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(open(data).unwrap_err(), SetupError::Exposed { .. }));
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_left_as_it_is() {
    let (_home, path) = closed().await;
    let intact = fs::read(&path).unwrap();
    let page = |number: usize| {
        let mut bytes = intact.clone();
        bytes[(number - 1) * 4096..][..64].fill(0xff);
        bytes
    };
    let last = intact.len() / 4096;
    for damaged in [Vec::new(), b"not a database".repeat(500), page(1), page(last), intact[..4096].to_vec()] {
        fs::write(&path, &damaged).unwrap();
        let error = open(path.parent().unwrap()).unwrap_err();
        assert!(matches!(error, SetupError::Corrupt { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
    fs::write(&path, &intact).unwrap();
    open(path.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn a_lost_database_is_not_made_anew_over_its_log() {
    let (_home, path) = closed().await;
    fs::rename(&path, path.with_extension("db-wal")).unwrap();
    assert!(matches!(open(path.parent().unwrap()).unwrap_err(), SetupError::Corrupt { .. }));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_newer_or_another_program_s_database_is_refused() {
    let (_home, path) = closed().await;
    let pragma = |name: &str, value: i32| {
        rusqlite::Connection::open(&path).unwrap().pragma_update(None, name, value).unwrap();
    };
    pragma("user_version", 6);
    assert!(matches!(open(path.parent().unwrap()).unwrap_err(), SetupError::Newer { .. }));
    pragma("user_version", 5);
    pragma("application_id", 7);
    assert!(matches!(open(path.parent().unwrap()).unwrap_err(), SetupError::Corrupt { .. }));
}

#[tokio::test]
async fn a_database_of_an_earlier_version_is_brought_up_to_date() {
    let versions = [
        (4, "DROP TABLE cells"),
        (3, "DROP TABLE cells; DROP TABLE notes; DROP TABLE marks; DROP TABLE rotated"),
        (
            1,
            "DROP TABLE cells; DROP TABLE notes; DROP TABLE marks; DROP TABLE rotated; DROP TABLE sessions; DROP TABLE fields; DROP TABLE ended;
            CREATE TABLE revoked (name TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        ),
        (
            2,
            "DROP TABLE cells; DROP TABLE notes; DROP TABLE marks; DROP TABLE rotated; DROP TABLE sessions; DROP TABLE fields; DROP TABLE ended;
            CREATE TABLE sessions (name TEXT, field TEXT, value BLOB NOT NULL, until INTEGER NOT NULL,
            PRIMARY KEY (name, field)) STRICT, WITHOUT ROWID; CREATE INDEX sessions_by_end ON sessions (until)",
        ),
    ];
    for (version, tables) in versions {
        let (_home, path) = closed().await;
        let old = rusqlite::Connection::open(&path).unwrap();
        old.execute_batch(&format!("{tables}; PRAGMA user_version = {version}")).unwrap();
        drop(old);
        for _ in 0..2 {
            let store = open(path.parent().unwrap()).unwrap();
            store.set_level(&session("s1"), "info").await.unwrap();
            let state = store.session_state(&session("s1")).await.unwrap().unwrap();
            assert_eq!(state.level.as_deref(), Some("info"));
            store.mark_ended("nonce", UnixTime(Clock::System.now().0 + 60)).await.unwrap();
            assert!(store.is_ended("nonce").await.unwrap());
            let listing = store.list(None).await.unwrap();
            assert_eq!(listing.unreadable, 1, "the tokens are still there");
        }
    }
}

#[tokio::test]
async fn a_lookup_does_not_wait_for_another_process_s_write() {
    let home = Home::embedded();
    let TokenStoreKind::Embedded { path, .. } = home.kind() else { unreachable!() };
    let store = home.open(&[key("k1")]);
    store.set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    let other = rusqlite::Connection::open(path.join("tokens.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE; DELETE FROM tokens").unwrap();
    let (alice, linear, token) = (user("alice"), server("linear"), secret("lin_1"));
    let write = store.set(&alice, &linear, &token);
    let read = async {
        assert_eq!(look(&store, &alice, "notion").await, found("ntn_1"));
        other.execute_batch("ROLLBACK").unwrap();
    };
    tokio::join!(write, read).0.unwrap();
    assert_eq!(look(&store, &alice, "linear").await, found("lin_1"));
}

#[tokio::test]
async fn many_who_make_the_same_store_make_one() {
    let home = TempDir::new().unwrap();
    let directory = home.path().join("data");
    let keys = [key("k1")];
    let kind = || embedded_kind(directory.clone());
    let handles: Vec<_> = std::thread::scope(|scope| {
        let open = || TokenStore::open(&kind(), Arc::new(ring(&keys)), Clock::System).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (i, store) in handles.iter().enumerate() {
        store.set(&user("alice"), &server(&format!("s{i}")), &secret("token")).await.unwrap();
    }
    assert_eq!(handles[0].list(None).await.unwrap().entries.len(), handles.len());
}
