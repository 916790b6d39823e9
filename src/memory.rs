//! Memory that requests hold, counted before it is taken: bodies, what calls were asked for as long as they run, what is
//! queued for servers, from them and between nodes, answers that their clients have not taken. There is one budget for
//! all, a part of it for each user, and another limit for each exchange, so that nobody takes what others need, whatever
//! they send and however slowly they read.
//!
//! Counting is all that happens here: nothing waits for room, and who finds none is told whose it was that is used up.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::cgroup_paths::own_cgroups;
use crate::metrics::Gauge;
use crate::user::UserId;

/// The most that is taken of the host's memory, if nobody says otherwise.
const MOST: u64 = 1 << 30;

/// What a piece takes that is kept in a queue, besides its bytes: its place there and what counts it. Pieces may be so short
/// that this is most of it.
pub const PIECE: usize = 256;

/// Into how many users' parts the budget is divided.
pub const PARTS: usize = 8;

/// The budget. Cloning it shares it.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    held: Mutex<Counts>,
    gauge: Gauge,
}

#[derive(Debug)]
struct Counts {
    /// How much there may be.
    most: Most,
    /// How much there is.
    all: Amount,
    /// Users who hold something.
    users: HashMap<UserId, Amount>,
}

#[derive(Debug, Default)]
struct Amount {
    held: usize,
    /// How much has been given back, which says whether somebody who waits for room may hope.
    given_back: usize,
}

impl Amount {
    fn give_back(&mut self, bytes: usize) {
        self.held -= bytes;
        self.given_back = self.given_back.wrapping_add(bytes);
    }
}

#[derive(Debug, Clone, Copy)]
struct Most {
    all: usize,
    per_user: usize,
}

impl Most {
    fn of(all: Option<usize>, exchange: usize) -> Self {
        let all = all.unwrap_or_else(quarter_of_the_host);
        Self { all, per_user: (all / PARTS).max(exchange).min(all) }
    }
}

/// What one exchange may hold: a part of its user's part. Cloning it shares it.
#[derive(Debug, Clone)]
pub struct Share(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    memory: Memory,
    user: UserId,
    most: usize,
    held: Mutex<usize>,
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub struct Held {
    share: Share,
    bytes: usize,
}

/// What there is no room in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The exchange's own share.
    Exchange,
    /// The user's part.
    User,
    /// The whole budget.
    All,
}

impl Memory {
    /// A budget of `all` bytes, or of a quarter of what there is, an eighth of it for each user: but room for one
    /// exchange of `exchange` bytes, or nobody could be answered. `gauge` shows what is held.
    #[must_use]
    pub fn new(all: Option<usize>, exchange: usize, gauge: Gauge) -> Self {
        let counts = Counts { most: Most::of(all, exchange), all: Amount::default(), users: HashMap::new() };
        Self(Arc::new(Budget { held: Mutex::new(counts), gauge }))
    }

    /// Makes another budget of it. What is held stays; where that is more than may be, nothing is added until it is not.
    pub fn change_to(&self, all: Option<usize>, exchange: usize) {
        let most = Most::of(all, exchange);
        self.counts().most = most;
    }

    /// How much it is in all, bytes.
    #[must_use]
    pub fn all(&self) -> usize {
        self.counts().most.all
    }

    /// A share of up to `most` bytes for one exchange of `user`.
    #[must_use]
    pub fn share(&self, user: &UserId, most: usize) -> Share {
        Share(Arc::new(Shared { memory: self.clone(), user: user.clone(), most, held: Mutex::default() }))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // What is done under the lock leaves the counts whole at every step.
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Counts `bytes` more.
    ///
    /// # Errors
    /// Says what is used up; nothing is counted then.
    pub fn take(&self, bytes: usize) -> Result<Held, Full> {
        let mut held = self.empty();
        held.grow(bytes)?;
        Ok(held)
    }

    /// Counts `bytes` more that are there already, whether there is room for them or not.
    #[must_use]
    pub fn count(&self, bytes: usize) -> Held {
        self.0.add(bytes, &mut self.held(), &mut self.0.memory.counts());
        Held { share: self.clone(), bytes }
    }

    /// `bytes` for a queue, counted with what their place there takes, whether there is room for them or not.
    #[must_use]
    pub fn queued(&self, bytes: Bytes) -> Bytes {
        self.count(bytes.len() + PIECE).keep(bytes, ())
    }

    /// Nothing, which may grow.
    #[must_use]
    pub fn empty(&self) -> Held {
        Held { share: self.clone(), bytes: 0 }
    }

    /// Whether the user has room for `bytes` more at this moment.
    ///
    /// # Errors
    /// They have not.
    pub fn check_user(&self, bytes: usize) -> Result<(), Full> {
        let counts = self.0.memory.counts();
        let held = counts.users.get(&self.0.user).map_or(0, |amount| amount.held);
        if held.saturating_add(bytes) <= counts.most.per_user { Ok(()) } else { Err(Full::User) }
    }

    /// A number that changes whenever something is given back of what is `full`, while some of it is held.
    #[must_use]
    pub fn given_back(&self, full: Full) -> usize {
        let counts = self.0.memory.counts();
        match full {
            Full::All => counts.all.given_back,
            Full::User | Full::Exchange => counts.users.get(&self.0.user).map_or(0, |amount| amount.given_back),
        }
    }

    /// Whether the exchange holds more than it may: it should take in nothing before it has given something out.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self.held() > self.0.most
    }

    fn held(&self) -> MutexGuard<'_, usize> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts `bytes` more.
    ///
    /// # Errors
    /// Says what is used up; nothing more is counted then.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let shared = &self.share.0;
        let (mut own, mut counts) = (self.share.held(), shared.memory.counts());
        let users = counts.users.get(&shared.user).map_or(0, |amount| amount.held);
        let fits = |held: usize, most| held.saturating_add(bytes) <= most;
        if !fits(*own, shared.most) {
            return Err(Full::Exchange);
        }
        if !fits(users, counts.most.per_user) {
            return Err(Full::User);
        }
        if !fits(counts.all.held, counts.most.all) {
            return Err(Full::All);
        }
        shared.add(bytes, &mut own, &mut counts);
        drop((own, counts));
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        if surplus == 0 {
            return;
        }
        self.bytes -= surplus;
        let shared = &self.share.0;
        *self.share.held() -= surplus;
        let mut counts = shared.memory.counts();
        counts.all.give_back(surplus);
        if let Some(users) = counts.users.get_mut(&shared.user) {
            users.give_back(surplus);
            if users.held == 0 {
                counts.users.remove(&shared.user);
            }
        }
        drop(counts);
        shared.memory.0.gauge.dec_by(as_gauge(surplus));
    }

    /// `bytes`, which are counted here until the last copy of them is dropped, and `with` them.
    #[must_use]
    pub fn keep(self, bytes: Bytes, with: impl Send + Sync + 'static) -> Bytes {
        kept(bytes, (self, with))
    }

    /// The same of pieces that are counted together, until the last of all is dropped.
    #[must_use]
    pub fn keep_all(self, mut pieces: VecDeque<Bytes>, with: impl Send + Sync + 'static) -> VecDeque<Bytes> {
        let shared = Arc::new((self, with));
        for piece in &mut pieces {
            *piece = kept(std::mem::take(piece), Arc::clone(&shared));
        }
        pieces
    }
}

impl Shared {
    fn add(&self, bytes: usize, own: &mut usize, counts: &mut Counts) {
        if bytes == 0 {
            return;
        }
        *own += bytes;
        counts.all.held += bytes;
        counts.users.entry(self.user.clone()).or_default().held += bytes;
        self.memory.0.gauge.inc_by(as_gauge(bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// Bytes that keep something else as long as there is a copy of them.
fn kept<W: Send + Sync + 'static>(bytes: Bytes, with: W) -> Bytes {
    struct Kept<W> {
        bytes: Bytes,
        _with: W,
    }
    impl<W> AsRef<[u8]> for Kept<W> {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Kept { bytes, _with: with })
}

fn as_gauge(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A quarter of what this process may use, by its control groups and by the host, at most [`MOST`], bytes.
fn quarter_of_the_host() -> usize {
    let of_groups = |controller, file| own_cgroups(controller).into_iter().map(move |group| group.join(file));
    let limits = of_groups("", "memory.max").chain(of_groups("memory", "memory.limit_in_bytes"));
    let limits = limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    let most = limits.chain(host_memory(Path::new("/proc/meminfo"))).min().unwrap_or(MOST);
    usize::try_from((most / 4).min(MOST)).unwrap_or(usize::MAX)
}

fn host_memory(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::local(name).unwrap()
    }

    #[test]
    fn what_is_used_up_is_named_and_nothing_is_counted_for_who_is_refused() {
        let memory = Memory::new(Some(800), 10, Gauge::default());
        let own = memory.share(&user("alice"), 60);
        let held = own.take(50).unwrap();
        assert_eq!(own.take(11).unwrap_err(), Full::Exchange);
        let other = memory.share(&user("alice"), 60);
        assert_eq!(other.take(51).unwrap_err(), Full::User);
        let rest: Vec<_> = (0..7).map(|n| memory.share(&user(&n.to_string()), 100).take(100).unwrap()).collect();
        let last = memory.share(&user("bob"), 100);
        assert_eq!(last.take(51).unwrap_err(), Full::All);
        assert_eq!(memory.0.gauge.get(), 750);
        let before = last.given_back(Full::All);
        drop((held, rest));
        assert!(last.given_back(Full::All) != before && last.take(100).is_ok());
    }

    #[test]
    fn a_user_has_room_for_one_exchange_however_small_the_budget_is() {
        let memory = Memory::new(Some(100), 60, Gauge::default());
        assert!(memory.share(&user("alice"), 60).take(60).is_ok());
        let memory = Memory::new(Some(100), 1000, Gauge::default());
        assert_eq!(memory.share(&user("alice"), 1000).take(101).unwrap_err(), Full::User);
    }

    #[test]
    fn bytes_are_counted_until_their_last_copy_is_gone_and_their_user_is_forgotten() {
        let memory = Memory::new(Some(800), 10, Gauge::default());
        let share = memory.share(&user("alice"), 60);
        let kept = share.count(70).keep(Bytes::from_static(b"text"), ());
        assert!(share.is_full());
        let piece = kept.slice(1..2);
        drop(kept);
        assert_eq!(memory.0.gauge.get(), 70);
        drop(piece);
        assert!(memory.0.gauge.get() == 0 && memory.counts().users.is_empty() && !share.is_full());
    }

    #[test]
    fn a_budget_that_becomes_smaller_takes_nothing_more_until_there_is_room() {
        let memory = Memory::new(Some(800), 10, Gauge::default());
        let share = memory.share(&user("alice"), 100);
        let held = share.take(80).unwrap();
        memory.change_to(Some(80), 50);
        assert_eq!(share.take(1).unwrap_err(), Full::User);
        assert_eq!(memory.share(&user("bob"), 100).take(1).unwrap_err(), Full::All);
        drop(held);
        assert!(share.take(50).is_ok() && share.take(51).is_err());
        memory.change_to(Some(800), 10);
        assert!(share.take(100).is_ok());
    }

    #[test]
    fn the_default_is_some_of_what_there_is() {
        let quarter = quarter_of_the_host();
        assert!((1 << 20..=1 << 30).contains(&quarter), "{quarter}");
        assert!(host_memory(Path::new("/proc/meminfo")).is_some());
    }
}
