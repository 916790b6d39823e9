//! A reverse proxy of one's own in front of several nodes, in plain round robin, gone when dropped.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{free_address, procs};

/// The configuration that `scripts/conformance` uses too.
const CONFIG: &str = include_str!("../nginx.conf");

/// The configurations for operators.
const NGINX: &str = include_str!("../../deploy/nginx.conf");
const HAPROXY: &str = include_str!("../../deploy/haproxy.cfg");
const CADDY: &str = include_str!("../../deploy/Caddyfile");

/// `wonderland` as Caddy keeps passwords, with as little work as it takes.
const WONDERLAND: &str = "$2a$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu";

/// A running nginx, `HAProxy` or Caddy.
pub struct ReverseProxy {
    server: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl ReverseProxy {
    /// Starts nginx in front of `nodes`; its answers name the node they came from in `X-Node`.
    pub fn nginx(nodes: &[SocketAddr]) -> Self {
        Self::run_nginx(&in_front_of(nodes))
    }

    /// The same with TLS, with what is in the directory of a [`super::certificate`].
    pub fn nginx_with_tls(nodes: &[SocketAddr], certificate: &Path) -> Self {
        let file = |name: &str| certificate.join(name).display().to_string();
        let tls = format!("ssl; ssl_certificate {}; ssl_certificate_key {};", file("server.pem"), file("server.key"));
        Self::run_nginx(&in_front_of(nodes).replace("127.0.0.1:PORT;", &format!("127.0.0.1:PORT {tls}")))
    }

    /// Starts nginx as deploy/nginx.conf configures it, but without TLS and with one user, who is taken for granted, in
    /// front of two `nodes`. `proof` is the secret by which it proves itself.
    pub fn deployed_nginx(nodes: &[SocketAddr; 2], user: &str, proof: &str) -> Self {
        let shown = deployed(NGINX, nodes, proof);
        let lines =
            shown.lines().filter(|line| !line.trim().starts_with("ssl_") && !line.trim().starts_with("auth_basic"));
        let shown: String = lines.map(|line| line.to_owned() + "\n").collect();
        let shown = shown.replace("$remote_user", user).replace("listen 443 ssl", "listen 127.0.0.1:PORT");
        let (around, _) = CONFIG.split_once("    upstream nodes").expect("the nodes");
        Self::run_nginx(&format!("{around}{shown}}}\n"))
    }

    /// Starts `HAProxy` as deploy/haproxy.cfg configures it, but without TLS and with alice's password `wonderland`, in
    /// front of two `nodes`. `proof` is the secret by which it proves itself.
    pub fn deployed_haproxy(nodes: &[SocketAddr; 2], proof: &str) -> Self {
        let config = deployed(HAPROXY, nodes, proof)
            .replace("password $5$\u{2026}", "insecure-password wonderland")
            .replace("bind :443 ssl crt /etc/haproxy/mcp.pem", "bind 127.0.0.1:PORT");
        Self::run("haproxy", &config, |file| {
            let check = program("haproxy").arg("-c").arg("-f").arg(file).output().expect("haproxy is installed");
            let said = String::from_utf8_lossy(&[check.stdout, check.stderr].concat()).into_owned();
            assert!(check.status.success() && !said.contains("[WARNING]"), "{said}");
            vec!["-db".into(), "-f".into(), file.into()]
        })
    }

    /// The same of Caddy and deploy/Caddyfile.
    pub fn deployed_caddy(nodes: &[SocketAddr; 2], proof: &str) -> Self {
        let config = deployed(CADDY, nodes, proof)
            .replace("$2a$14$\u{2026}", WONDERLAND)
            .replace("mcp.example.com {", "http://127.0.0.1:PORT {");
        let (tls, rest) = config.split_once("\ttls ").expect("TLS");
        let (_, rest) = rest.split_once('\n').expect("more than that");
        // It would listen for commands.
        let options = "{\n\tadmin off\n\tlog {\n\t\tlevel ERROR\n\t}\n\tstorage file_system DIRECTORY\n}\n";
        Self::run("caddy", &format!("{options}{tls}{rest}"), |file| {
            ["run", "--adapter", "caddyfile", "--config"].map(Into::into).into_iter().chain([file.into()]).collect()
        })
    }

    fn run_nginx(config: &str) -> Self {
        Self::run("nginx", config, |file| {
            vec!["-c".into(), file.into(), "-e".into(), file.with_file_name("error.log").into()]
        })
    }

    /// Starts a program with this configuration, once its capitals are filled in, and the arguments for its file.
    fn run(name: &str, config: &str, arguments: impl FnOnce(&Path) -> Vec<std::ffi::OsString>) -> Self {
        let directory = tempfile::Builder::new().prefix("tollbridge-proxy-").tempdir().expect("a temporary directory");
        let address = free_address();
        let config = config.replace("DIRECTORY", &directory.path().to_string_lossy());
        let file = directory.path().join("proxy.conf");
        std::fs::write(&file, config.replace("PORT", &address.port().to_string())).expect("a writable directory");
        // Where Caddy keeps a copy of its configuration.
        let mut program = program(name);
        program.env("XDG_CONFIG_HOME", directory.path());
        let mut server = program.args(arguments(&file)).spawn().expect("it is installed");
        let answers = procs::wait_for(Duration::from_mins(1), || match server.try_wait() {
            Ok(Some(_)) | Err(_) => Some(false),
            Ok(None) => TcpStream::connect(address).is_ok().then_some(true),
        });
        assert_eq!(answers, Some(true), "{name} does not start");
        Self { server, address, directory }
    }

    /// What nginx has to complain of.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The configuration of nginx in front of these nodes.
fn in_front_of(nodes: &[SocketAddr]) -> String {
    let nodes = nodes.iter().fold(String::new(), |mut nodes, node| {
        let _ = write!(nodes, "server {node} max_fails=0; ");
        nodes
    });
    CONFIG.replace("NODES", &nodes)
}

/// A configuration for operators, in front of these nodes and with this secret.
fn deployed(config: &str, nodes: &[SocketAddr; 2], proof: &str) -> String {
    let mut shown = config.replace("\"\u{2026}\"", &format!("\"{proof}\""));
    for (documented, node) in ["10.0.0.11:8080", "10.0.0.12:8080"].into_iter().zip(nodes) {
        assert!(shown.contains(documented), "{shown}");
        shown = shown.replace(documented, &node.to_string());
    }
    shown
}

/// A program of the system's administrator, which says nothing here.
fn program(name: &str) -> Command {
    let mut program = Command::new(name);
    program.env("PATH", "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin");
    program.stdin(Stdio::null()).stdout(Stdio::null());
    program
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
