//! Files with a user's token for one request: in memory, readable by its server alone, gone when the request is.
//!
//! ```text
//! /dev/shm/tollbridge-run-…/      0700: no other user gets past this; locked for as long as the bridge lives
//!   └ RANDOM/                     one request
//!       └ VARIABLE                one file
//! ```

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::cleanup::{BackgroundCleanup, TURN};
use super::instance::directory::{self, InstanceDirectory};
use super::remove_tree::{remove_tree, remove_tree_within};
use crate::config::StdioLaunch;
use crate::secret::Secret;

/// Who reads the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A program that runs as the same user as the bridge.
    OurUser,
    /// A program in a container, as any user: what it gets is the directory of its request, and only by a mount.
    Container,
}

/// Where a container finds its files.
pub const IN_CONTAINER: &str = "/run/tollbridge";

/// Where files are made: in a directory of this instance, within each that a configuration names. Cloning it shares it.
#[derive(Debug, Clone, Default)]
pub struct TokenFileWriter {
    instance_directories: Arc<Mutex<HashMap<PathBuf, InstanceDirectory>>>,
    cleanup: Option<BackgroundCleanup>,
}

impl TokenFileWriter {
    /// What cannot be removed at once is removed by `cleanup`.
    pub(super) fn new(cleanup: Option<BackgroundCleanup>) -> Self {
        Self { instance_directories: Arc::default(), cleanup }
    }

    /// Makes the files that `launch` names, and takes them out of it. What a program reads has its path put into the
    /// environment; for a container that is left to the mount.
    ///
    /// # Errors
    /// If they cannot be written; nothing is left then.
    pub fn write(&self, launch: &mut StdioLaunch, reader: Reader) -> io::Result<TokenFiles> {
        let mut files = TokenFiles { directory: None, files: Vec::new(), cleanup: self.cleanup.clone() };
        let Some(base) = launch.token_files.first().map(|file| file.directory.clone()) else { return Ok(files) };
        let (mode, directory_mode) = match reader {
            Reader::OurUser => (0o600, 0o700),
            Reader::Container => (0o444, 0o755),
        };
        let directory = self.directory_of_request(&base)?;
        files.directory = Some(directory.clone());
        // Whatever the umask is, here and below.
        fs::set_permissions(&directory, fs::Permissions::from_mode(directory_mode))?;
        for file in std::mem::take(&mut launch.token_files) {
            let path = directory.join(&file.variable);
            let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            files.files.push(path.clone());
            open.write_all(file.content.expose().as_bytes())?;
            open.set_permissions(fs::Permissions::from_mode(mode))?;
            let seen = match reader {
                Reader::OurUser => path,
                Reader::Container => Path::new(IN_CONTAINER).join(&file.variable),
            };
            launch.env.push((file.variable, Secret::new(seen.to_string_lossy().into_owned())));
        }
        Ok(files)
    }

    fn directory_of_request(&self, base: &Path) -> io::Result<PathBuf> {
        let mut name = [0; 16];
        aws_lc_rs::rand::fill(&mut name).map_err(|_| io::ErrorKind::Other)?;
        let directory = self.directory_of_instance(base)?.join(format!("{:032x}", u128::from_ne_bytes(name)));
        fs::create_dir(&directory)?;
        Ok(directory)
    }

    /// Made when it is first needed, by nobody but us, so that nobody else can have prepared it.
    fn directory_of_instance(&self, base: &Path) -> io::Result<PathBuf> {
        let mut instance_directories = self.instance_directories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(instance) = instance_directories.get(base) {
            return Ok(instance.path().to_owned());
        }
        let instance = InstanceDirectory::create_private(base)?;
        let path = instance.path().to_owned();
        instance_directories.insert(base.to_owned(), instance);
        Ok(path)
    }
}

/// The files of one request. Dropping it removes them at once, and then their directory with whatever a server has
/// added to it.
#[derive(Debug)]
pub struct TokenFiles {
    directory: Option<PathBuf>,
    files: Vec<PathBuf>,
    cleanup: Option<BackgroundCleanup>,
}

impl TokenFiles {
    /// The directory that holds them, if there are any.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }
}

impl Drop for TokenFiles {
    fn drop(&mut self) {
        let Some(directory) = self.directory.take() else { return };
        for file in &self.files {
            // A server may have removed it, or have closed or moved its directory, which is removed with all in it below.
            let _ = fs::remove_file(file);
        }
        if fs::remove_dir(&directory).is_ok() {
            return;
        }
        match &self.cleanup {
            Some(cleanup) => cleanup.retry_until(move || remove_tree_within(&directory, TURN)),
            None => {
                let _ = remove_tree(&directory);
            }
        }
    }
}

/// Removes what dead instances have made in these directories.
pub fn remove_dead(bases: &[PathBuf]) {
    for base in bases {
        let removed = directory::remove_dead(base, |instance| {
            let _ = remove_tree(instance);
        });
        if removed > 0 {
            tracing::info!(removed, "removed token files that a bridge which has died had left");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::config::{Confinement, TokenFile};

    fn launch(base: &Path) -> StdioLaunch {
        let content = Secret::new("a token".to_owned());
        let file = TokenFile { variable: "TOKEN_FILE".to_owned(), directory: base.to_owned(), content };
        StdioLaunch {
            program: "/".into(),
            args: vec![],
            env: vec![],
            token_files: vec![file],
            cwd: None,
            confinement: Confinement::default(),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_file_is_private_and_goes_with_its_request() {
        let base = tempfile::tempdir().unwrap();
        let mut launch = launch(base.path());
        let files = TokenFileWriter::default().write(&mut launch, Reader::OurUser).unwrap();
        let (name, path) = &launch.env[0];
        let path = PathBuf::from(path.expose());
        assert_eq!((name.as_str(), fs::read_to_string(&path).unwrap().as_str()), ("TOKEN_FILE", "a token"));
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(files);
        assert!(!path.exists() && !path.parent().unwrap().exists());
    }

    #[test]
    fn only_a_container_gets_past_the_private_directory() {
        let base = tempfile::tempdir().unwrap();
        let mut launch = launch(base.path());
        let files = TokenFileWriter::default().write(&mut launch, Reader::Container).unwrap();
        let directory = files.directory().unwrap();
        assert_eq!(launch.env[0].1.expose(), "/run/tollbridge/TOKEN_FILE");
        assert_eq!((mode(&directory.join("TOKEN_FILE")), mode(directory)), (0o444, 0o755));
        assert_eq!(mode(directory.parent().unwrap()), 0o700);
    }

    #[test]
    fn however_deep_a_server_nests_directories_beside_its_token_all_of_it_goes() {
        const DEPTH: u32 = 15_000;
        let base = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut launch = launch(base.path());
        let cabinet = TokenFileWriter::default();
        let files = cabinet.write(&mut launch, Reader::OurUser).unwrap();
        let directory = files.directory().unwrap().to_owned();
        nest(&directory, DEPTH);
        drop(files);
        assert!(!directory.exists());
        let left = TokenFileWriter::default().write(&mut super::tests::launch(base.path()), Reader::OurUser).unwrap();
        nest(left.directory().unwrap(), DEPTH);
        // As if it had died.
        std::mem::forget(left);
        remove_dead(&[base.path().to_owned()]);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1, "what is left is that of the instance that lives");
    }

    fn nest(directory: &Path, depth: u32) {
        use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
        let mut at = open(directory, OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", OFlags::PATH, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn only_what_dead_runs_left_is_swept() {
        let base = tempfile::tempdir().unwrap();
        let (alive, dead) = (TokenFileWriter::default(), TokenFileWriter::default());
        let kept = alive.write(&mut launch(base.path()), Reader::OurUser).unwrap();
        let left = dead.write(&mut launch(base.path()), Reader::OurUser).unwrap();
        let left_at = left.directory().unwrap().to_owned();
        std::mem::forget(left);
        drop(dead);
        fs::create_dir(base.path().join("other")).unwrap();
        remove_dead(&[base.path().to_owned()]);
        assert!(kept.directory().unwrap().exists() && base.path().join("other").exists());
        assert!(!left_at.parent().unwrap().exists());
    }
}
