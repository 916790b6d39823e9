//! What is measured: latencies, processor time, memory.

use std::ops::{AddAssign, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What one way of calling did in its slices.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) seconds: f64,
    /// Of each slice: calls a second, and the median latency in milliseconds.
    pub(crate) slices: Vec<(f64, f64)>,
    /// This process and the servers it started itself.
    pub(crate) driver: Cpu,
    /// The bridge's worker and the servers it started.
    pub(crate) bridge: Cpu,
}

impl Figures {
    pub(crate) fn add(&mut self, other: Self) {
        let median = percentile(&other.latencies, 0.5).unwrap_or_default().as_secs_f64() * 1e3;
        self.slices.push((other.per_second(), median));
        self.latencies.extend(other.latencies);
        self.seconds += other.seconds;
        self.driver += other.driver;
        self.bridge += other.bridge;
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    /// The share of the other's rate, as the median over the rounds: a neighbour's busy second spoils one round only.
    pub(crate) fn share_of(&self, other: &Self) -> f64 {
        let shares = self.slices.iter().zip(&other.slices).map(|(own, other)| own.0 / other.0);
        percentile(&shares.collect::<Vec<_>>(), 0.5).unwrap_or(0.0)
    }

    /// What is added to the other's median latency, in milliseconds, as the median over the rounds.
    pub(crate) fn added_to(&self, other: &Self) -> f64 {
        let added = self.slices.iter().zip(&other.slices).map(|(own, other)| own.1 - other.1);
        percentile(&added.collect::<Vec<_>>(), 0.5).unwrap_or(0.0)
    }

    /// Milliseconds of processor time per call.
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    pub(crate) fn per_call(&self, seconds: f64) -> f64 {
        seconds * 1e3 / self.latencies.len() as f64
    }
}

/// Processor time in seconds.
#[derive(Default, Clone, Copy)]
pub(crate) struct Cpu {
    /// In the process itself.
    pub(crate) own: f64,
    /// Of that, in the kernel.
    pub(crate) kernel: f64,
    /// In children that it has waited for.
    pub(crate) children: f64,
}

impl Cpu {
    pub(crate) fn of_this_process() -> Self {
        Self::of("self")
    }

    /// The processor time of `/proc/PROCESS/stat`; nothing for one that has ended.
    pub(crate) fn of(process: &str) -> Self {
        /// `USER_HZ`, which Linux has fixed for programs.
        const TICK: f64 = 0.01;
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let fields: Vec<f64> = stat
            .rsplit(')')
            .next()
            .map(|rest| rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
            .unwrap_or_default();
        let field = |index: usize| fields.get(index).copied().unwrap_or(0.0) * TICK;
        Self { own: field(11) + field(12), kernel: field(12), children: field(13) + field(14) }
    }
}

impl Sub for Cpu {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { own: self.own - other.own, kernel: self.kernel - other.kernel, children: self.children - other.children }
    }
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, other: Self) {
        self.own += other.own;
        self.kernel += other.kernel;
        self.children += other.children;
    }
}

/// Memory in MB (10^6 bytes).
#[derive(Default, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) worker: f64,
    pub(crate) supervisor: f64,
    /// The worker's highest so far.
    pub(crate) peak: f64,
    /// Both together with each page counted once: they are one program, and share what was read from its file.
    pub(crate) together: f64,
}

/// A field of `/proc/PID/FILE` that counts kB, in MB; nothing if it may not be read.
pub(crate) fn kilobytes(pid: u32, file: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0 / 1e6)
}

/// The value below which a share of the sorted values lies.
pub(crate) fn percentile<T: Copy + PartialOrd>(values: &[T], share: f64) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied()
}

/// Nanoseconds since the epoch, by the clock that `tiny` reads too.
#[expect(clippy::disallowed_methods, reason = "a stand-alone program that compares two processes' clocks")]
pub(crate) fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
