//! The table, and the one line that says whether the targets are met.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::figures::{Figures, Memory, percentile};

/// The most that the bridge may add to the median of a call when calls come one at a time.
const ADDED: f64 = 0.35;
/// The most that a token which a service gave may add to it, against one that was pasted.
const ADDED_SIGNED_IN: f64 = 0.02;
/// The least share of the direct rate at 8 and 32 calls at a time.
const SHARE: f64 = 0.55;
/// The most memory of an idle bridge, MB, worker and supervisor together, pages that they share counted once.
const IDLE: f64 = 12.0;
/// The least rate of a large result, MB/s.
const LARGE: f64 = 150.0;
/// How many times as long as 4 MiB of the best shape those of the worst may take to be read.
const SHAPES: f64 = 3.0;
/// The most median time from a progress event's write to its read, ms.
const PROGRESS: f64 = 0.3;

#[derive(Default)]
pub(crate) struct Report {
    /// Concurrency, direct, modern, legacy.
    pub(crate) rates: Vec<(usize, Figures, Figures, Figures)>,
    /// One at a time, with a token that was pasted and with one that a service gave.
    pub(crate) pasted: Figures,
    pub(crate) signed_in: Figures,
    pub(crate) idle: Memory,
    pub(crate) loaded: Memory,
    pub(crate) after_large: Memory,
    pub(crate) large_direct: Vec<f64>,
    pub(crate) large_json: Vec<f64>,
    pub(crate) large_stream: Vec<f64>,
    pub(crate) progress_direct: Vec<Duration>,
    pub(crate) progress: Vec<Duration>,
    /// Shape of a long message, until it is refused, processor time of the bridge for a call; ms.
    pub(crate) shapes: Vec<(&'static str, f64, f64)>,
    /// Concurrency, child, container.
    pub(crate) images: Vec<(usize, Figures, Figures)>,
}

impl Report {
    pub(crate) fn targets_missed(&self) -> usize {
        self.targets().iter().filter(|(met, _)| !met).count()
    }

    /// How many times as long as that of the best shape a message of the worst takes.
    fn spread(&self) -> f64 {
        let times = || self.shapes.iter().map(|(_, refused, _)| *refused);
        times().fold(0.0, f64::max) / times().fold(f64::INFINITY, f64::min)
    }

    /// What the figures have to be, each with whether it is so.
    fn targets(&self) -> Vec<(bool, String)> {
        let mut targets = Vec::new();
        for (concurrency, direct, modern, legacy) in &self.rates {
            for (era, bridge) in [("modern", modern), ("legacy", legacy)] {
                if *concurrency == 1 {
                    let added = bridge.added_to(direct);
                    targets.push((added <= ADDED, format!("{era} {added:+.2} ms p50 at 1")));
                } else {
                    let share = bridge.share_of(direct);
                    targets.push((share >= SHARE, format!("{era} {:.0} % at {concurrency}", share * 100.0)));
                }
            }
        }
        let added = self.signed_in.added_to(&self.pasted);
        targets.push((added <= ADDED_SIGNED_IN, format!("a token of a service {added:+.3} ms p50 at 1")));
        let idle = self.idle.together;
        targets.push((idle <= IDLE, format!("{idle:.1} MB idle")));
        for (form, rates) in [("JSON", &self.large_json), ("SSE", &self.large_stream)] {
            let rate = percentile(rates, 0.5).unwrap_or(0.0);
            targets.push((rate >= LARGE, format!("10 MB as {form} at {rate:.0} MB/s")));
        }
        let progress = milliseconds(&self.progress, 0.5);
        targets.push((progress <= PROGRESS, format!("progress after {progress:.2} ms")));
        let spread = self.spread();
        targets.push((spread <= SHAPES, format!("4 MiB of the worst shape in {spread:.1} times the best")));
        targets
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "tools/call, a fresh process each; latency in ms, processor time in ms per call, ratio by rounds")?;
        writeln!(
            f,
            "{:<18}{:>7}{:>9}{:>7}{:>8}{:>8}{:>8}{:>9}{:>9}{:>9}{:>9}",
            "", "at once", "calls/s", "ratio", "p50", "p95", "p99", "worker", "(kernel", "servers", "driver"
        )?;
        for (concurrency, direct, modern, legacy) in &self.rates {
            for (name, row) in [("direct", direct), ("bridge, modern", modern), ("bridge, legacy", legacy)] {
                self::row(f, name, *concurrency, row, direct)?;
            }
        }
        for (name, row) in [("pasted token", &self.pasted), ("token of a service", &self.signed_in)] {
            self::row(f, name, 1, row, &self.pasted)?;
        }
        writeln!(f, "\nresident memory, MB  worker  supervisor  worker's peak  both, shared pages once")?;
        for (name, memory) in [("idle", self.idle), ("after load", self.loaded), ("after 10 MB", self.after_large)] {
            let Memory { worker, supervisor, peak, together } = memory;
            writeln!(f, "{name:<20}{worker:>7.1}{supervisor:>12.1}{peak:>15.1}{together:>25.1}")?;
        }
        writeln!(f, "\n10 MB result, MB/s      p50     worst")?;
        let large = [("direct", &self.large_direct), ("as JSON", &self.large_json), ("as SSE", &self.large_stream)];
        for (name, rates) in large {
            let worst = percentile(rates, 0.0).unwrap_or(0.0);
            writeln!(f, "{name:<20}{:>7.0}{worst:>10.0}", percentile(rates, 0.5).unwrap_or(0.0))?;
        }
        writeln!(f, "\nprogress event, ms      p50     p95     p99   (from the server's write to the read)")?;
        for (name, latencies) in [("direct", &self.progress_direct), ("bridge", &self.progress)] {
            let at = |share| milliseconds(latencies, share);
            writeln!(f, "{name:<20}{:>7.3}{:>8.3}{:>8.3}", at(0.5), at(0.95), at(0.99))?;
        }
        writeln!(f, "\n4 MiB of each shape     read and refused, ms   called, ms of the worker's processor time")?;
        for (shape, refused, called) in &self.shapes {
            writeln!(f, "{shape:<24}{refused:>20.2}{called:>13.1}")?;
        }
        for (concurrency, child, image) in &self.images {
            if *concurrency == 1 {
                writeln!(f, "\nthrough the bridge  at once  calls/s    p50     p99   (ms)")?;
            }
            for (name, row) in [("child", child), ("container", image)] {
                let at = |share| milliseconds(&row.latencies, share);
                writeln!(f, "{name:<20}{concurrency:>7}{:>9.1}{:>8.1}{:>8.1}", row.per_second(), at(0.5), at(0.99))?;
            }
        }
        let targets = self.targets();
        let parts: Vec<_> =
            targets.iter().map(|(met, text)| if *met { text.clone() } else { format!("{text} (MISSED)") }).collect();
        let missed = self.targets_missed();
        write!(f, "\n{} targets met, {missed} missed: {}", targets.len() - missed, parts.join(", "))
    }
}

fn row(f: &mut Formatter<'_>, name: &str, concurrency: usize, row: &Figures, direct: &Figures) -> fmt::Result {
    let at = |share| milliseconds(&row.latencies, share);
    let driver = row.per_call(row.driver.own);
    write!(
        f,
        "{name:<18}{concurrency:>7}{:>9.0}{:>6.0}%{:>8.2}{:>8.2}{:>8.2}",
        row.per_second(),
        row.share_of(direct) * 100.0,
        at(0.5),
        at(0.95),
        at(0.99)
    )?;
    if name == "direct" {
        return writeln!(f, "{:>9}{:>9}{:>9.3}{driver:>9.3}", "", "", row.per_call(row.driver.children));
    }
    let (own, kernel) = (row.per_call(row.bridge.own), row.per_call(row.bridge.kernel));
    writeln!(f, "{own:>9.3}{:>9}{:>9.3}{driver:>9.3}", format!("{kernel:.3})"), row.per_call(row.bridge.children))
}

fn milliseconds(latencies: &[Duration], share: f64) -> f64 {
    percentile(latencies, share).unwrap_or_default().as_secs_f64() * 1e3
}
