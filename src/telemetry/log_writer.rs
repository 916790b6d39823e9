//! Log lines on their way out: a queue of bounded size and one thread that writes, so that whoever reads the log, or
//! has stopped reading it, delays nobody else.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

use crate::sys;

/// What may wait to be written, in bytes. A line that does not fit is dropped and counted.
const ROOM: usize = 1 << 20;

/// What is kept of that memory while nothing waits, in bytes.
const KEPT: usize = 16 << 10;

/// How long the thread rests between two rounds: to be woken for each line costs a busy bridge more than the line does.
const REST: Duration = Duration::from_millis(5);

/// The way of log lines to the thread that writes them. Cloning it shares it.
#[derive(Clone, Default)]
pub(super) struct LogWriter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// A line waits.
    filled: Condvar,
    /// Everything has been written.
    emptied: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<u8>,
    /// Lines that found no room since the last time that any were taken out.
    dropped: u64,
    /// Lines have been taken out and are not all written.
    writing: bool,
    /// The thread waits to be told of a line.
    asleep: bool,
}

impl LogWriter {
    /// Starts the thread that writes to `out`, to the end of the process.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self::default();
        let writing = lines.clone();
        sys::start_thread("log", move || writing.write_all_to(out))?;
        Ok(lines)
    }

    /// Counts the lines that were dropped.
    pub(super) fn dropped(&self) -> Counter {
        self.0.dropped.clone()
    }

    /// Waits until everything has been written, but no longer than this.
    pub(super) fn flush(&self, longest: Duration) {
        let pending = |queue: &mut Queue| queue.writing || !queue.waiting.is_empty();
        let _written = self.0.emptied.wait_timeout_while(self.queue(), longest, pending);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.queue();
        if queue.waiting.len() + line.len() <= ROOM {
            queue.waiting.extend_from_slice(line);
            if std::mem::take(&mut queue.asleep) {
                self.0.filled.notify_one();
            }
        } else {
            queue.dropped += 1;
            self.0.dropped.inc();
        }
    }

    fn write_all_to(&self, mut out: impl Write) {
        let mut taken = Vec::new();
        loop {
            let dropped = self.take(&mut taken);
            for line in taken.split_inclusive(|&byte| byte == b'\n') {
                // Each by itself: short ones do not mix with those of another process that writes to the same pipe.
                if out.write_all(line).is_err() {
                    self.0.dropped.inc();
                }
            }
            taken.clear();
            taken.shrink_to(KEPT);
            if dropped > 0 {
                tracing::warn!(
                    lines = dropped,
                    "log lines were dropped: whoever reads the log had stopped or was slow"
                );
            }
            thread::sleep(REST);
        }
    }

    /// Waits for lines and takes all of them, and the number of those that found no room behind them.
    fn take(&self, taken: &mut Vec<u8>) -> u64 {
        let mut queue = self.queue();
        queue.writing = false;
        if queue.waiting.is_empty() {
            self.0.emptied.notify_all();
        }
        while queue.waiting.is_empty() {
            queue.asleep = true;
            queue = self.0.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut queue.waiting, taken);
        queue.writing = true;
        std::mem::take(&mut queue.dropped)
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    const LINE: &[u8] = b"a line of a log, as long as such lines are\n";

    /// A writer whose reader reads nothing yet, and how many were given until one was dropped.
    fn stuck() -> (LogWriter, UnixStream, usize) {
        let (reader, writer) = UnixStream::pair().unwrap();
        let lines = LogWriter::start(writer).unwrap();
        // Twice what fits between the two, at once: whoever has taken it waits.
        let mut given = ROOM / 2 / LINE.len();
        lines.push(&LINE.repeat(given));
        while !lines.queue().waiting.is_empty() {
            thread::sleep(REST);
        }
        while lines.dropped().get() == 0 {
            lines.push(LINE);
            given += 1;
        }
        (lines, reader, given)
    }

    #[test]
    fn a_reader_that_has_stopped_delays_nobody_and_costs_no_more_than_the_queue() {
        let (lines, _reader, given) = stuck();
        let began = Instant::now();
        for _ in 0..10_000 {
            lines.push(LINE);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(lines.dropped().get(), 10_001);
        assert!(lines.queue().waiting.len() <= ROOM && given * LINE.len() > ROOM);
        let began = Instant::now();
        lines.flush(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }

    #[test]
    fn what_was_kept_is_written_whole_and_in_order_once_somebody_reads() {
        let (lines, mut reader, given) = stuck();
        let mut read = vec![0; (given - 1) * LINE.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read.chunks(LINE.len()).all(|line| line == LINE));
        lines.push(b"the next\n");
        lines.flush(Duration::from_secs(20));
        let mut next = [0; 9];
        reader.read_exact(&mut next).unwrap();
        assert_eq!(&next, b"the next\n");
        assert!(lines.queue().waiting.capacity() <= ROOM, "{}", lines.queue().waiting.capacity());
    }

    #[test]
    fn everything_has_been_written_when_the_flush_returns() {
        let (reader, writer) = UnixStream::pair().unwrap();
        let lines = LogWriter::start(writer).unwrap();
        for _ in 0..100 {
            lines.push(LINE);
        }
        lines.flush(Duration::from_secs(20));
        reader.set_nonblocking(true).unwrap();
        let mut read = vec![0; 100 * LINE.len()];
        (&reader).read_exact(&mut read).unwrap();
        assert!(read.ends_with(LINE));
    }

    #[test]
    fn a_reader_that_is_gone_is_no_trouble() {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let lines = LogWriter::start(writer).unwrap();
        lines.push(LINE);
        lines.flush(Duration::from_secs(20));
        assert_eq!(lines.dropped().get(), 1);
    }
}
