//! One spare: a started server that nobody has asked anything.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::config::Spares as Settings;
use crate::metrics::{Counted, SpareCounts};
use crate::upstream::started::Started;
use crate::upstream::stdio::started::UnaskedOutput;

/// How often it is looked whether one that starts has come to rest.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// At how many looks one after another its processes must have used no processor.
const QUIET_LOOKS: u8 = 3;

/// A started server that waits.
pub(super) struct Spare {
    started: Started,
    since: Instant,
    /// When it is replaced.
    until: Instant,
    output: UnaskedOutput,
    stage: Stage,
    counts: SpareCounts,
}

/// Whether it has come to rest.
enum Stage {
    Starting(Start),
    Waiting { _counted: Counted },
}

/// A start under way.
struct Start {
    quiet: Quiet,
    next_look: Instant,
    /// When it counts as done in any case.
    by: Instant,
    _starting: Counted,
    _turn: OwnedSemaphorePermit,
}

/// Whether the processes of a server have come to rest.
#[derive(Default)]
pub(super) struct Quiet {
    /// The processor time at the last look, and at how many looks it has been that.
    used: u64,
    looks: u8,
}

impl Quiet {
    /// For how long they must have used no processor.
    pub(super) const TIME: Duration = LOOK.saturating_mul(QUIET_LOOKS as u32);

    /// Whether they have, if it is looked every [`LOOK`] and they have used so much by now.
    pub(super) fn look(&mut self, used: u64) -> bool {
        self.looks = if used == self.used { self.looks.saturating_add(1) } else { 0 };
        self.used = used;
        self.looks >= QUIET_LOOKS
    }
}

impl Spare {
    /// One that was started just now, in the turn of `turn`, and may take so long to come to rest.
    pub(super) fn new(
        mut started: Started,
        settings: &Settings,
        within: Duration,
        counts: &SpareCounts,
        turn: OwnedSemaphorePermit,
    ) -> Self {
        started.set_spare(true);
        let since = Instant::now();
        let start = Start {
            quiet: Quiet::default(),
            next_look: since + LOOK,
            by: since + within,
            _starting: Counted::new(&counts.starting),
            _turn: turn,
        };
        Self {
            started,
            since,
            until: since + age(settings.max_age),
            output: UnaskedOutput::default(),
            stage: Stage::Starting(start),
            counts: counts.clone(),
        }
    }

    /// When it is replaced.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// When it is to be looked at.
    pub(super) fn next_look(&self) -> Instant {
        match &self.stage {
            Stage::Starting(start) => start.next_look,
            Stage::Waiting { .. } => self.until,
        }
    }

    /// How long it has waited.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting(_))
    }

    /// Looks whether it has come to rest.
    pub(super) fn look(&mut self) {
        let Stage::Starting(start) = &mut self.stage else { return };
        let now = Instant::now();
        if start.next_look > now {
            return;
        }
        start.next_look = now + LOOK;
        if start.quiet.look(self.started.processor_time()) || now >= start.by {
            self.stage = Stage::Waiting { _counted: Counted::new(&self.counts.waiting) };
        }
    }

    /// Whether it has ended, by a look at this moment.
    pub(super) fn is_over(&mut self) -> bool {
        self.started.is_over()
    }

    /// Takes in what it writes. Ready when it cannot be of use any more.
    pub(super) fn poll_useless(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.started.poll_useless(task, &mut self.output)
    }

    /// Puts into the log what it last wrote to stderr.
    pub(super) fn explain(&self) {
        self.output.errors.explain();
    }

    /// The server itself, which is no spare any more.
    pub(super) fn into_started(mut self) -> Started {
        self.started.set_spare(false);
        self.counts.junk_lines.inc_by(self.output.lines);
        self.started
    }
}

/// How old one gets: a tenth is random, so that those that were started together are not replaced together.
fn age(most: Duration) -> Duration {
    let mut word = [0; 2];
    aws_lc_rs::rand::fill(&mut word).expect("the system has randomness");
    most.mul_f64(1.0 - f64::from(u16::from_ne_bytes(word)) / f64::from(u16::MAX) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_age_is_random() {
        let most = Duration::from_mins(10);
        let ages: Vec<_> = (0..1000).map(|_| age(most)).collect();
        assert!(ages.iter().all(|age| (most * 9 / 10..=most).contains(age)), "{ages:?}");
        let spread = ages.iter().max().unwrap().saturating_sub(*ages.iter().min().unwrap());
        assert!(spread > most / 20, "{spread:?}");
    }
}
