//! Where the tasks of a server are kept: calls that are answered with a handle, by which their client asks for the result
//! later, and perhaps another process.

use std::time::Duration;

use super::load::{Loader, Zero};
use super::written::choices::TaskKeeping;
use super::written::file::{self, Time};
use super::written::path::Path;

/// The longest time for which a process may be held for a task.
const MAX_LEASE: Duration = Duration::from_hours(24);

/// Where the tasks of a server are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tasks {
    /// Nowhere: a client is not told that the server has any, nor the server that its client takes them.
    Off,
    /// By the server, outside of its processes: a fresh one knows them.
    Durable,
    /// In the process that began the task, which is held until its end, for `taskLease` at most.
    Hold,
}

impl Loader<'_> {
    /// By a server elsewhere itself, by any other as the file says at `at`.
    pub(super) fn tasks(&mut self, at: &Path, file: &file::Server) -> Tasks {
        let (is_elsewhere, at) = (file.url.is_some(), at.key("tasks"));
        let is_durable = file.durable_tasks == Some(true);
        match file.tasks {
            None if is_durable || is_elsewhere => return Tasks::Durable,
            Some(_) if is_durable => {
                let help = "take one of them out";
                self.report(&at, "`tasks` says how to keep tasks, and with `durableTasks` they need no keeping", help);
            }
            Some(TaskKeeping::Hold) if is_elsewhere => {
                let help = "take it out: a server elsewhere keeps its tasks itself";
                self.report(&at, "a server with `url` has no process to be held", help);
            }
            Some(TaskKeeping::Hold) => return Tasks::Hold,
            Some(TaskKeeping::Off) | None => {}
        }
        Tasks::Off
    }

    /// How long the process of a task is held, as the file says at `at`.
    pub(super) fn task_lease(&mut self, at: &Path, text: Option<&Time>, default: Duration) -> Duration {
        let lease = self.time(at, text, default, Zero::Refused);
        if text.is_some() && lease > MAX_LEASE {
            self.report(at, "a process is held for a task for at most 24h", "write a shorter time");
        }
        lease
    }
}
