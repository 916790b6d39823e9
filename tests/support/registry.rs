//! A registry of container images of one's own: ephemeral port, temporary directory, gone when dropped.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{free_address, procs};

/// How long it may take to answer.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often a port that somebody else took first is replaced by another.
const ATTEMPTS: usize = 5;

/// A running registry, which anybody may write to.
pub struct Registry {
    server: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Registry {
    /// Starts an empty one.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("tollbridge-registry-").tempdir().expect("a directory");
        for _ in 0..ATTEMPTS {
            let address = free_address();
            let mut server = spawn(address, &directory);
            let answers = procs::wait_for(DEADLINE, || match server.try_wait() {
                Ok(Some(_)) | Err(_) => Some(false),
                Ok(None) => TcpStream::connect(address).is_ok().then_some(true),
            });
            if answers == Some(true) {
                return Self { server, address, directory };
            }
            let _ = server.kill();
            let _ = server.wait();
        }
        panic!("docker-registry does not start; is it installed?");
    }

    /// Its address, which is how the names of its images begin.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The digest by which it knows an image.
    pub fn digest(&self, image: &str, tag: &str) -> String {
        let tags =
            self.directory.path().join("data/docker/registry/v2/repositories").join(image).join("_manifests/tags");
        std::fs::read_to_string(tags.join(tag).join("current/link")).expect("it has been pushed")
    }

    /// A file that tells podman that this one has no TLS. Docker takes that for granted on loopback.
    pub fn settings(&self) -> PathBuf {
        let path = self.directory.path().join("registries.conf");
        let text = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", self.address);
        std::fs::write(&path, text).expect("a writable directory");
        path
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn spawn(address: SocketAddr, directory: &TempDir) -> Child {
    let (settings, data) = (directory.path().join("config.yml"), directory.path().join("data"));
    let text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
        data.display()
    );
    std::fs::write(&settings, text).expect("a writable directory");
    Command::new("docker-registry")
        .arg("serve")
        .arg(settings)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker-registry is installed")
}
