//! Lines on their way out: a queue of bounded size and one thread that writes.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::file::FileLog;
use super::stream::StreamLog;
use crate::clock::Clock;
use crate::metrics::AuditCounts;
use crate::sys;
use crate::telemetry::LogThrottle;

/// What may wait to be written, bytes. A line that does not fit is lost and counted.
const ROOM: usize = 1 << 20;

/// What is kept of that memory while nothing waits, bytes.
const KEPT: usize = 16 << 10;

/// How long the thread rests between two rounds: to be woken for each line would cost a busy bridge more than the line.
const REST: Duration = Duration::from_millis(5);

/// Between two tries to open the file anew while nobody waits for that.
const PAUSE: Duration = Duration::from_secs(1);

/// The way to the thread that writes, which ends with this.
#[derive(Debug)]
pub(super) struct Writer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to do.
    filled: Condvar,
    counts: AuditCounts,
}

#[derive(Debug, Default)]
struct Queue {
    lines: String,
    /// Who waits for what has been pushed by now.
    waiting: Vec<oneshot::Sender<bool>>,
    reopen: bool,
    /// The thread waits to be told of something.
    asleep: bool,
    closed: bool,
}

/// What the thread writes to.
struct Sinks {
    file: Option<FileLog>,
    stream: Option<Arc<StreamLog>>,
    /// Whether a line that somebody waits for must outlive a crash of the machine.
    durable: bool,
    runtime: Handle,
    clock: Clock,
    counts: AuditCounts,
    failures: LogThrottle,
    /// When the file was last to be opened anew.
    reopened: Instant,
}

impl Writer {
    /// Starts the thread; `runtime` is where Redis is asked.
    pub(super) fn start(
        (file, stream): (Option<FileLog>, Option<Arc<StreamLog>>),
        durable: bool,
        (runtime, counts): (Handle, AuditCounts),
        clock: Clock,
    ) -> io::Result<Self> {
        let (queue, filled) = Default::default();
        let shared = Arc::new(Shared { queue, filled, counts: counts.clone() });
        let failures = LogThrottle::default();
        let reopened = Instant::now();
        let mut sinks = Sinks { file, stream, durable, runtime, clock, counts, failures, reopened };
        let theirs = Arc::clone(&shared);
        sys::start_thread("audit", move || {
            while let Some(taken) = theirs.take() {
                sinks.write(taken);
                thread::sleep(REST);
            }
        })?;
        Ok(Self(shared))
    }

    /// Leaves a line, and whom to tell whether it was written with everything before it.
    pub(super) fn push(&self, line: &str, told: Option<oneshot::Sender<bool>>) {
        let mut queue = self.0.queue();
        if queue.lines.len() + line.len() > ROOM {
            self.0.counts.lines_dropped.inc();
            // Dropping `told` says no.
            return;
        }
        queue.lines.push_str(line);
        queue.waiting.extend(told);
        self.0.wake(&mut queue);
    }

    /// Has the file opened anew before the next line.
    pub(super) fn reopen(&self) {
        let mut queue = self.0.queue();
        queue.reopen = true;
        self.0.wake(&mut queue);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        self.0.wake(&mut queue);
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, queue: &mut Queue) {
        if std::mem::take(&mut queue.asleep) {
            self.filled.notify_one();
        }
    }

    /// Waits for something to do and takes all of it; `None` once there will be nothing more.
    fn take(&self) -> Option<Queue> {
        let mut queue = self.queue();
        while queue.lines.is_empty() && queue.waiting.is_empty() && !queue.reopen {
            if queue.closed {
                return None;
            }
            queue.asleep = true;
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let left = Queue { closed: queue.closed, lines: String::with_capacity(KEPT), ..Queue::default() };
        Some(std::mem::replace(&mut queue, left))
    }
}

impl Sinks {
    /// Does what was asked for, and tells who waits whether all of it was done.
    fn write(&mut self, taken: Queue) {
        let lines: Vec<&str> = taken.lines.split_inclusive('\n').collect();
        let wanted = !taken.waiting.is_empty();
        let is_current = self.reopen(taken.reopen, wanted);
        let in_file = self.write_file(&lines, wanted) && is_current;
        let in_stream = self.write_stream(&lines);
        for told in taken.waiting {
            // Whoever has given up does not want to know.
            let _given_up = told.send(in_file && in_stream);
        }
    }

    /// Opens the file anew if that is `asked` for, or was and has failed: then whenever somebody waits, and else once in a
    /// while. Whether lines go where they should.
    fn reopen(&mut self, asked: bool, wanted: bool) -> bool {
        let Some(file) = &mut self.file else { return true };
        let is_due = asked || (file.is_stale() && (wanted || self.reopened.elapsed() > PAUSE));
        if !is_due {
            return !file.is_stale();
        }
        self.reopened = Instant::now();
        let Err(error) = file.reopen() else { return true };
        self.counts.failures.inc();
        if let Some(unsaid) = self.failures.turn("reopen") {
            tracing::error!(
                %error,
                unsaid,
                "`audit.file` cannot be opened anew: lines still go to the file that is open, and it is tried again"
            );
        }
        false
    }

    fn write_file(&mut self, lines: &[&str], wanted: bool) -> bool {
        let Some(file) = &mut self.file else { return true };
        let (mut lost, mut why) = (0, None);
        for line in lines {
            if let Err(error) = file.add(line.as_bytes()) {
                (lost, why) = (lost + 1, Some(error));
            }
        }
        if wanted && self.durable && why.is_none() {
            why = file.sync().err();
        }
        self.report(lost, why.as_ref().map(|error| ("file", error as &dyn std::error::Error)))
    }

    fn write_stream(&mut self, lines: &[&str]) -> bool {
        let Some(stream) = &self.stream else { return true };
        let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
        let (lost, why) = self.runtime.block_on(stream.add(&lines, self.clock.now()));
        self.report(lost, why.as_ref().map(|error| ("redis", error as &dyn std::error::Error)))
    }

    /// Counts and says what could not be written, if anything; whether all of it was.
    fn report(&self, lost: usize, why: Option<(&'static str, &dyn std::error::Error)>) -> bool {
        let Some((place, error)) = why else { return true };
        self.counts.failures.inc_by(lost.max(1) as u64);
        if let Some(unsaid) = self.failures.turn(place) {
            tracing::error!(%error, unsaid, "`audit.{place}` cannot be written to: what happens is not written down there");
        }
        false
    }
}
