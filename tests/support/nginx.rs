//! An nginx of one's own in front of several nodes, in plain round robin, gone when dropped.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{free_address, procs};

/// The configuration that `scripts/conformance` uses too.
const CONFIG: &str = include_str!("../nginx.conf");

/// The page that shows one to operators.
const PAGE: &str = include_str!("../../docs/operate.md");

/// A running nginx; its answers name the node they came from in `X-Node`.
pub struct Nginx {
    server: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Nginx {
    /// Starts one in front of `nodes`.
    pub fn start(nodes: &[SocketAddr]) -> Self {
        let nodes = nodes.iter().fold(String::new(), |mut nodes, node| {
            let _ = write!(nodes, "server {node} max_fails=0; ");
            nodes
        });
        Self::run(&CONFIG.replace("NODES", &nodes))
    }

    /// Starts one as docs/operate.md configures it, but without TLS and with one user, who is taken for granted, in front of
    /// two `nodes`. `proof` is the secret by which it proves itself.
    pub fn as_documented(nodes: &[SocketAddr; 2], user: &str, proof: &str) -> Self {
        let shown = PAGE.split("```nginx\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a configuration");
        let lines =
            shown.lines().filter(|line| !line.trim().starts_with("ssl_") && !line.trim().starts_with("auth_basic"));
        let shown: String = lines.map(|line| line.to_owned() + "\n").collect();
        let mut shown = shown.replace("$remote_user", user).replace("\"\u{2026}\"", &format!("\"{proof}\""));
        shown = shown.replace("listen 443 ssl", "listen 127.0.0.1:PORT");
        for (documented, node) in ["10.0.0.11:8080", "10.0.0.12:8080"].into_iter().zip(nodes) {
            assert!(shown.contains(documented), "{shown}");
            shown = shown.replace(documented, &node.to_string());
        }
        let (around, _) = CONFIG.split_once("    upstream nodes").expect("the nodes");
        Self::run(&format!("{around}{shown}}}\n"))
    }

    /// Starts one with this configuration, once its capitals are filled in.
    fn run(config: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("tollbridge-nginx-").tempdir().expect("a temporary directory");
        let address = free_address();
        let config = config.replace("DIRECTORY", &directory.path().to_string_lossy());
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
        Self { server, address, directory }
    }

    /// What it has to complain of.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
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
