//! Users to run servers as: each request gets one that no other running request has.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::RunAs;

/// Which users are taken.
#[derive(Debug, Default, Clone)]
pub(super) struct Users(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    taken: HashSet<u32>,
    /// Where to look next: whoever was used last is used again last.
    next: HashMap<RunAs, u32>,
}

/// A user for one request; dropping it makes them free.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Not where all requests share one user.
    exclusive: bool,
    users: Users,
}

impl Users {
    /// A free user; none if all are taken.
    pub(super) fn lease(&self, run_as: RunAs) -> Option<Lease> {
        let exclusive = run_as.first != run_as.last;
        let uid = if exclusive { self.take(run_as)? } else { run_as.first };
        Some(Lease { uid, gid: run_as.gid.unwrap_or(uid), exclusive, users: self.clone() })
    }

    fn take(&self, run_as: RunAs) -> Option<u32> {
        let mut table = self.lock();
        let start = table.next.get(&run_as).copied().unwrap_or(run_as.first);
        let uid = (start..=run_as.last).chain(run_as.first..start).find(|uid| !table.taken.contains(uid))?;
        table.taken.insert(uid);
        table.next.insert(run_as, if uid == run_as.last { run_as.first } else { uid + 1 });
        Some(uid)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.exclusive {
            self.users.lock().taken.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_requests_share_a_user_of_a_range_and_the_last_used_is_used_again_last() {
        let (users, range) = (Users::default(), RunAs { first: 10, last: 12, gid: None });
        let mut leases: Vec<_> = (0..3).map(|_| users.lease(range).unwrap()).collect();
        assert_eq!(leases.iter().map(|lease| lease.uid).collect::<Vec<_>>(), [10, 11, 12]);
        assert!(users.lease(range).is_none(), "all are taken");
        assert!(users.lease(RunAs { first: 11, last: 12, gid: None }).is_none(), "also for another range");
        leases.remove(1);
        assert_eq!(users.lease(range).unwrap().uid, 11);
        leases.clear();
        let order: Vec<_> = (0..4).map(|_| users.lease(range).unwrap().uid).collect();
        assert_eq!(order, [12, 10, 11, 12]);
    }

    #[test]
    fn a_single_user_is_shared() {
        let (users, one) = (Users::default(), RunAs { first: 10, last: 10, gid: Some(7) });
        let leases = [users.lease(one).unwrap(), users.lease(one).unwrap()];
        assert!(leases.iter().all(|lease| (lease.uid, lease.gid) == (10, 7)));
    }
}
