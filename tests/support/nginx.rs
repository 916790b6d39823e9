//! An nginx of one's own in front of several nodes, in plain round robin, gone when dropped.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{free_address, procs};

/// The configuration that `scripts/conformance` uses too.
const CONFIG: &str = include_str!("../nginx.conf");

/// A running nginx; its answers name the node they came from in `X-Node`.
pub struct Nginx {
    server: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Nginx {
    /// Starts one in front of `nodes`.
    pub fn start(nodes: &[SocketAddr]) -> Self {
        let directory = tempfile::Builder::new().prefix("tollbridge-nginx-").tempdir().expect("a temporary directory");
        let address = free_address();
        let nodes = nodes.iter().fold(String::new(), |mut nodes, node| {
            let _ = write!(nodes, "server {node} max_fails=0; ");
            nodes
        });
        let path = directory.path().to_string_lossy();
        let config = CONFIG.replace("DIRECTORY", &path).replace("NODES", &nodes);
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, config.replace("PORT", &address.port().to_string())).expect("a writable directory");
        let mut server = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(directory.path().join("error.log"))
            .env("PATH", "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        let answers = procs::wait_for(Duration::from_secs(10), || match server.try_wait() {
            Ok(Some(_)) | Err(_) => Some(false),
            Ok(None) => TcpStream::connect(address).is_ok().then_some(true),
        });
        assert_eq!(answers, Some(true), "nginx does not start");
        Self { server, address, _directory: directory }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
