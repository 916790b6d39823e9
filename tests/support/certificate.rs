//! A certificate for `localhost`, of an authority that nobody knows.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A directory with `ca.pem`, and `server.pem` and `server.key` of a server.
pub fn certificate() -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    openssl(directory.path(), &format!("req -x509 {new} -subj /CN=authority -keyout ca.key -out ca.pem"));
    openssl(directory.path(), &format!("req {new} -subj /CN=server -keyout server.key -out server.csr"));
    std::fs::write(directory.path().join("names"), "subjectAltName=DNS:localhost\n").expect("a writable directory");
    let sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
    openssl(directory.path(), &format!("{sign} -out server.pem"));
    directory
}

fn openssl(directory: &Path, arguments: &str) {
    let status = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .stderr(Stdio::null())
        .status()
        .expect("openssl is installed");
    assert!(status.success(), "openssl {arguments}");
}
