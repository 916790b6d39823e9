//! Which peers have closed their side or reset the connection, however many unread bytes lie in between: hyper does not
//! see that while it does not read. One epoll instance beside the runtime's own looks at the connections' own
//! descriptors, so that none needs a second one.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::sys;

/// How many are heard of at once.
const EVENTS: usize = 64;

/// Sees peers leave.
pub struct DisconnectWatcher {
    epoll: AsyncFd<OwnedFd>,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    /// A number is never used again: what is heard late means nobody else.
    next: u64,
    gone: HashMap<u64, CancellationToken>,
}

/// A connection whose peer is watched, until this is dropped.
pub(super) struct Watch {
    disconnects: Arc<DisconnectWatcher>,
    number: u64,
}

impl DisconnectWatcher {
    /// Nobody is watched yet.
    ///
    /// # Errors
    /// If the system has no descriptor for it.
    ///
    /// # Panics
    /// Outside the runtime.
    pub fn new() -> io::Result<Self> {
        let epoll = sys::watch(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
        Ok(Self { epoll, watched: Mutex::default() })
    }

    /// Cancels `gone` when the peer of `stream` has left.
    pub(super) fn watch(self: &Arc<Self>, stream: &impl AsFd, gone: CancellationToken) -> io::Result<Watch> {
        let number = {
            let mut watched = self.watched();
            watched.next += 1;
            let number = watched.next;
            watched.gone.insert(number, gone);
            number
        };
        let watch = Watch { disconnects: Arc::clone(self), number };
        // It is heard of once; resets and errors are always told. Closing the descriptor takes it out of the set.
        let flags = epoll::EventFlags::RDHUP | epoll::EventFlags::ONESHOT;
        epoll::add(self.epoll.get_ref(), stream, epoll::EventData::new_u64(number), flags)?;
        Ok(watch)
    }

    /// Tells of those who leave, for as long as it is polled.
    pub(super) async fn tell(&self) {
        while let Ok(mut ready) = self.epoll.readable().await {
            if !self.tell_some() {
                ready.clear_ready();
            }
        }
    }

    /// Tells of some who have left; says whether there may be more.
    fn tell_some(&self) -> bool {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut events = Vec::with_capacity(EVENTS);
        let heard = epoll::wait(self.epoll.get_ref(), spare_capacity(&mut events), Some(&AT_ONCE));
        let watched = self.watched();
        for event in events {
            if let Some(gone) = watched.gone.get(&event.data.u64()) {
                gone.cancel();
            }
        }
        heard != Ok(0)
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.disconnects.watched().gone.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn whoever_leaves_is_seen_and_nobody_else_whatever_is_unread() {
        let disconnects = Arc::new(DisconnectWatcher::new().unwrap());
        let mut task = JoinSet::new();
        let telling = Arc::clone(&disconnects);
        task.spawn(async move { telling.tell().await });
        let pairs: Vec<_> = (0..200).map(|_| UnixStream::pair().unwrap()).collect();
        let watched: Vec<_> = pairs
            .into_iter()
            .map(|(ours, mut theirs)| {
                let gone = CancellationToken::new();
                let watch = disconnects.watch(&ours, gone.clone()).unwrap();
                theirs.write_all(b"never read").unwrap();
                (ours, theirs, gone, watch)
            })
            .collect();
        for (_, theirs, ..) in watched.iter().skip(1).step_by(2) {
            theirs.shutdown(Shutdown::Write).unwrap();
        }
        for (_, _, gone, _) in watched.iter().skip(1).step_by(2) {
            timeout(SOON, gone.cancelled()).await.unwrap();
        }
        assert!(watched.iter().step_by(2).all(|(_, _, gone, _)| !gone.is_cancelled()));
        drop(watched);
        assert!(disconnects.watched().gone.is_empty());
    }

    #[tokio::test]
    async fn one_who_left_before_is_seen_too() {
        let disconnects = Arc::new(DisconnectWatcher::new().unwrap());
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let gone = CancellationToken::new();
        let _watch = disconnects.watch(&ours, gone.clone()).unwrap();
        tokio::select! {
            () = disconnects.tell() => {}
            left = timeout(SOON, gone.cancelled()) => left.unwrap(),
        }
    }
}
