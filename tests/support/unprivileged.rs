//! A bridge that is not root, and has what capabilities it is given.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::home::TOLLBRIDGE;
use super::{Bridge, Home, procs, server};

/// The user whom the bridge runs as; nothing else on the machine does.
pub const USER: u32 = 61_500;

/// What `runAs` needs.
pub const FOR_RUN_AS: &str = "+setuid,+setgid,+kill,+chown";

/// A home of that user, with copies of the programs: the originals may be where nobody else gets.
pub struct Unprivileged(pub Home);

impl Unprivileged {
    /// None where only root could make one.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let home = Home::without_key();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).expect("ours");
        procs::copy_program(TOLLBRIDGE.as_ref(), &home.path().join("tollbridge"));
        procs::copy_program(server("hostile").as_ref(), &home.path().join("hostile"));
        chown(home.path(), Some(USER), Some(USER)).expect("root may");
        Some(Self(home))
    }

    /// The server that misbehaves.
    pub fn hostile(&self) -> PathBuf {
        self.0.path().join("hostile")
    }

    /// Starts a bridge with these capabilities, as setpriv writes them, ambient as a service manager makes them.
    pub fn serve(&self, config: Value, capabilities: &str) -> Bridge {
        self.serve_through(config, capabilities, &[])
    }

    /// The same through a program that, still as root, becomes the one which its arguments name.
    pub fn serve_through(&self, config: Value, capabilities: &str, through: &[&str]) -> Bridge {
        let path = self.0.write(config);
        chown(&path, Some(USER), Some(USER)).expect("root may");
        let (first, others) = through.split_first().unwrap_or((&"env", &[]));
        let mut command = Command::new(first);
        command.args(others).arg("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()]);
        if !capabilities.is_empty() {
            command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
        }
        command.arg("--").arg(self.0.path().join("tollbridge"));
        // Directories are made where other users get to.
        command.env_remove("TMPDIR").env_remove("XDG_RUNTIME_DIR");
        Bridge::start_as(&self.0, &mut command, &["--cgroup", "off"])
    }
}
