//! What the `watcher` servers of a test watch, and what they heard.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::SOON;
use crate::support::{Home, procs, server};

/// A directory that servers watch.
pub(super) struct Watched {
    directory: TempDir,
}

impl Watched {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("tollbridge-watched-").tempdir().expect("a directory") }
    }

    /// A server that watches it, as an entry of `mcpServers`. It leaves at the end of its input, having written down all
    /// that it heard.
    pub(super) fn server(&self, home: &Home, era: &str) -> Value {
        let marker = format!("marker={}", home.marker());
        let arguments = [self.directory.path().to_string_lossy().into_owned(), format!("era={era}"), marker];
        json!({ "command": server("watcher"), "args": arguments, "eofGrace": "30s", "protocol": era })
    }

    /// Lets something happen, seen by every server that runs now.
    pub(super) fn happens(&self, event: &str) {
        let events = self.directory.path().join("events");
        let mut events = OpenOptions::new().create(true).append(true).open(events).expect("a writable directory");
        events.write_all(format!("{event}\n").as_bytes()).expect("a writable directory");
    }

    /// Waits until one server has heard something with this text in it, and answers everything that it heard.
    pub(super) async fn until_heard(&self, text: &str) -> Vec<Value> {
        let heard = procs::eventually(SOON, || {
            let files = self.files().into_iter().filter_map(|path| std::fs::read_to_string(path).ok());
            files.into_iter().find(|heard| heard.contains(text))
        });
        let heard = heard.await.unwrap_or_else(|| panic!("nobody heard {text}: {:?}", self.everything()));
        heard.lines().map(|line| serde_json::from_str(line).expect("whole lines are written")).collect()
    }

    /// Everything that every server heard.
    pub(super) fn everything(&self) -> Vec<String> {
        self.files().into_iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.path()).expect("it is there").flatten().map(|e| e.path());
        entries.filter(|path| path.to_string_lossy().contains("heard.")).collect()
    }
}
