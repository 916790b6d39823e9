//! Bad credentials, limited per source in a table that never grows.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::PeerAddr;

/// Bad credentials that a source may present in a row.
const BURST: u32 = 20;
/// How long it takes until it may present one more.
const PAUSE: Duration = Duration::from_secs(3);
/// Sources share cells by hash. Two that do are limited together, which costs the innocent of them nothing: good
/// credentials are not counted.
const CELLS: usize = 4096;

/// One cell per source: when, in milliseconds since `start`, all its failures will be forgotten.
#[derive(Debug)]
pub(super) struct Failures {
    cells: Box<[AtomicU64]>,
    /// Keyed at random, so that nobody can choose whose cell to share.
    hash: RandomState,
    start: Instant,
}

impl Default for Failures {
    fn default() -> Self {
        let cells = std::iter::repeat_with(AtomicU64::default).take(CELLS).collect();
        Self { cells, hash: RandomState::new(), start: Instant::now() }
    }
}

impl Failures {
    /// Counts one failure, or says when the next may be made.
    pub(super) fn count(&self, peer: PeerAddr) -> Result<(), Duration> {
        self.count_at(peer, self.start.elapsed())
    }

    fn count_at(&self, peer: PeerAddr, now: Duration) -> Result<(), Duration> {
        let at = self.hash.hash_one(source(peer)) % CELLS as u64;
        let cell = &self.cells[usize::try_from(at).expect("it is below CELLS")];
        let (now, pause) = (millis(now), millis(PAUSE));
        let full = now + pause * u64::from(BURST);
        let counted = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |forgotten| {
            let next = forgotten.max(now) + pause;
            (next <= full).then_some(next)
        });
        counted
            .map(drop)
            .map_err(|forgotten| Duration::from_millis(forgotten + pause - full).max(Duration::from_secs(1)))
    }
}

/// What counts as one source: an IPv4 address, an IPv6 /64 (one customer has at least as many), or the unix socket.
fn source(peer: PeerAddr) -> Option<IpAddr> {
    match peer.ip()? {
        IpAddr::V6(address) => Some(IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into())),
        v4 @ IpAddr::V4(_) => Some(v4),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> PeerAddr {
        PeerAddr::Tcp(std::net::SocketAddr::new(address.parse().unwrap(), 1234))
    }

    #[test]
    fn a_burst_is_let_pass_and_then_one_for_each_pause() {
        let failures = Failures::default();
        let start = Duration::from_hours(1);
        for _ in 0..BURST {
            assert_eq!(failures.count_at(peer("192.0.2.1"), start), Ok(()));
        }
        assert_eq!(failures.count_at(peer("192.0.2.1"), start), Err(PAUSE));
        assert_eq!(failures.count_at(peer("192.0.2.1"), start + PAUSE), Ok(()));
        assert_eq!(failures.count_at(peer("192.0.2.1"), start + PAUSE), Err(PAUSE));
        let later = start + PAUSE * (BURST + 2);
        assert!((0..BURST).all(|_| failures.count_at(peer("192.0.2.1"), later).is_ok()), "all is forgotten");
    }

    #[test]
    fn the_wait_is_never_less_than_a_second() {
        let failures = Failures::default();
        while failures.count_at(PeerAddr::Unix, Duration::ZERO).is_ok() {}
        let wait = failures.count_at(PeerAddr::Unix, PAUSE.saturating_sub(Duration::from_millis(1)));
        assert_eq!(wait, Err(Duration::from_secs(1)));
    }

    #[test]
    fn one_v6_network_is_one_source_and_so_is_an_address_in_either_form() {
        let same = |a, b| source(peer(a)) == source(peer(b));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(!same("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
        assert_ne!(source(peer("192.0.2.1")), source(PeerAddr::Unix));
    }

    #[test]
    fn any_number_of_sources_needs_the_same_memory() {
        let failures = Failures::default();
        for bits in 0..100_000_u32 {
            let _ = failures.count(PeerAddr::Tcp((std::net::Ipv4Addr::from_bits(bits), 1).into()));
        }
        assert_eq!(failures.cells.len(), CELLS);
    }
}
