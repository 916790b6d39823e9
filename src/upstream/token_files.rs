//! Files with a user's token for one request: in memory, readable by its server alone, gone when the request is.
//!
//! ```text
//! /dev/shm/tollbridge-INSTANCE/   0700: no other user gets past this
//!   └ RANDOM/                     one request
//!       └ VARIABLE                one file
//! ```

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::instance::{Fate, Instance};
use crate::config::StdioLaunch;
use crate::secret::Secret;

/// What the directories of all runs start with.
const PREFIX: &str = "tollbridge-";

/// Who reads the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A program that runs as the same user as the bridge.
    OurUser,
    /// A program in a container, as any user: what it gets is the directory of its request, and only by a mount.
    Container,
}

/// The files of one request. Dropping it removes them.
#[derive(Debug)]
pub struct TokenFiles(Option<PathBuf>);

impl TokenFiles {
    /// Makes the files that `launch` names, and takes them out of it. What a program reads has its path put into the
    /// environment; for a container that is left to the mount.
    ///
    /// # Errors
    /// If they cannot be written; nothing is left then.
    pub fn write(launch: &mut StdioLaunch, reader: Reader) -> io::Result<Self> {
        let Some(base) = launch.token_files.first().map(|file| file.directory.clone()) else { return Ok(Self(None)) };
        let (mode, directory_mode) = match reader {
            Reader::OurUser => (0o600, 0o700),
            Reader::Container => (0o444, 0o755),
        };
        let files = Self(Some(directory_of_request(&base, directory_mode)?));
        let directory = files.directory().expect("it has just been made");
        for file in std::mem::take(&mut launch.token_files) {
            let path = directory.join(&file.variable);
            let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            open.write_all(file.content.expose().as_bytes())?;
            // Whatever the umask is.
            open.set_permissions(fs::Permissions::from_mode(mode))?;
            let seen = match reader {
                Reader::OurUser => path,
                Reader::Container => Path::new(IN_CONTAINER).join(&file.variable),
            };
            launch.env.push((file.variable, Secret::new(seen.to_string_lossy().into_owned())));
        }
        Ok(files)
    }

    /// The directory that holds them, if there are any.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

/// Where a container finds its files.
pub const IN_CONTAINER: &str = "/run/tollbridge";

impl Drop for TokenFiles {
    fn drop(&mut self) {
        if let Some(directory) = &self.0
            && let Err(error) = fs::remove_dir_all(directory)
        {
            tracing::error!(%error, "a file with a user's token cannot be removed");
        }
    }
}

fn directory_of_request(base: &Path, mode: u32) -> io::Result<PathBuf> {
    let own = directory_of(base, &Instance::own().to_string());
    match DirBuilder::new().mode(0o700).create(&own) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Everybody may write to /dev/shm: what is there under our name may be somebody else's.
    let found = fs::symlink_metadata(&own)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut name = [0; 16];
    aws_lc_rs::rand::fill(&mut name).map_err(|_| io::ErrorKind::Other)?;
    let directory = own.join(format!("{:032x}", u128::from_ne_bytes(name)));
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(mode))?;
    Ok(directory)
}

fn directory_of(base: &Path, instance: &str) -> PathBuf {
    base.join(format!("{PREFIX}{instance}"))
}

/// Removes all that one run has made in these directories.
pub fn remove_all<'a>(bases: impl IntoIterator<Item = &'a PathBuf>, instance: &str) {
    for base in bases {
        // There may be none, or not of this user.
        let _ = fs::remove_dir_all(directory_of(base, instance));
    }
}

/// Removes what dead runs have made in these directories. The memory of another boot is gone with it.
pub fn sweep(bases: &[PathBuf]) {
    for base in bases {
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let instance = name.to_str().and_then(|name| Instance::parse(name.strip_prefix(PREFIX)?));
            if instance.is_some_and(|instance| instance.fate() == Fate::Dead) {
                tracing::info!("removed the token files of a bridge that has died");
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
        let files = TokenFiles::write(&mut launch, Reader::OurUser).unwrap();
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
        let files = TokenFiles::write(&mut launch, Reader::Container).unwrap();
        let directory = files.directory().unwrap();
        assert_eq!(launch.env[0].1.expose(), "/run/tollbridge/TOKEN_FILE");
        assert_eq!((mode(&directory.join("TOKEN_FILE")), mode(directory)), (0o444, 0o755));
        assert_eq!(mode(directory.parent().unwrap()), 0o700);
    }

    #[test]
    fn a_directory_that_somebody_else_prepared_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        let own = directory_of(base.path(), &Instance::own().to_string());
        fs::create_dir(&own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(TokenFiles::write(&mut launch(base.path()), Reader::OurUser).is_err());
    }

    #[test]
    fn only_what_dead_runs_left_is_swept() {
        let base = tempfile::tempdir().unwrap();
        let own = Instance::own().to_string();
        let (stem, _) = own.rsplit_once('.').unwrap();
        let names = [&own, &format!("{stem}.1"), "other", "a.1.1.1"].map(|name| directory_of(base.path(), name));
        for name in &names {
            fs::create_dir(name).unwrap();
        }
        sweep(&[base.path().to_owned()]);
        assert_eq!(names.map(|name| name.exists()), [true, false, true, true]);
    }
}
