//! How many connections there may be: in all, so that descriptors are left for calls and for the operator's own
//! questions, and from one address, so that one client is not all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use rustix::process::{Resource, getrlimit};

use crate::auth::PeerAddr;
use crate::config::{Config, IdentityMethod};
use crate::metrics::{Counted, Gauge, Metrics};
use crate::swap::Swap;

/// The most connections unless the operator says how many: each costs some 20 KiB.
const MOST: usize = 10_000;

/// Descriptors for what is neither a connection nor a call: the runtime, the store, the relay, the operator's questions.
const RESERVE: usize = 128;

/// Descriptors of a call: its server's pipes, its process and its control group.
const PER_CALL: usize = 8;

/// The part of all descriptors that is for connections even if calls could use them all.
const LEAST_PART: usize = 4;

/// The part of all connections that one address may have unless the operator says how many.
const PART_OF_ONE: usize = 4;

/// Lets connections in.
pub struct ConnectionLimits {
    most: Swap<Most>,
    open: Mutex<Open>,
    gauge: Gauge,
}

/// How many there may be.
struct Most {
    all: usize,
    of_one: usize,
    /// Reverse proxies, whose connections are those of everybody.
    proxies: Vec<IpNet>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// There are too many.
    #[error("there are as many connections as `limits.connections` allows")]
    All,
    /// There are too many of this address.
    #[error("this address has as many connections as `limits.connectionsPerAddress` allows")]
    One,
}

/// Room that a connection takes until it is dropped.
pub(super) struct ConnectionSlot {
    connections: Arc<ConnectionLimits>,
    source: Option<IpAddr>,
    _counted: Counted,
}

impl ConnectionLimits {
    /// As configured, and no more than the descriptors of this process allow.
    #[must_use]
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let most = Swap::new(Arc::new(Most::of(config)));
        Self { most, open: Mutex::default(), gauge: metrics.open_connections.clone() }
    }

    /// Lets as many in as another configuration says. Who is in stays.
    pub fn change_to(&self, config: &Config) {
        self.most.store(Arc::new(Most::of(config)));
    }

    /// Room for a connection of this peer.
    pub(super) fn admit(self: &Arc<Self>, peer: PeerAddr) -> Result<ConnectionSlot, Full> {
        let most = self.most.load();
        let is_proxy = peer.ip().is_some_and(|address| most.proxies.iter().any(|proxies| proxies.contains(&address)));
        let source = if is_proxy { None } else { peer.source() };
        let mut open = self.open();
        if open.all >= most.all {
            return Err(Full::All);
        }
        if let Some(source) = source {
            let of_one = open.by_source.entry(source).or_default();
            if *of_one >= most.of_one {
                return Err(Full::One);
            }
            *of_one += 1;
        }
        open.all += 1;
        drop(open);
        Ok(ConnectionSlot { connections: Arc::clone(self), source, _counted: Counted::new(&self.gauge) })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Most {
    fn of(config: &Config) -> Self {
        let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
        let possible = possible(files.unwrap_or(usize::MAX), config.limits.total);
        let wanted = config.limits.connections;
        if let Some(wanted) = wanted.filter(|&wanted| wanted > possible) {
            tracing::warn!(wanted, possible, "`limits.connections` is more than this process has descriptors for");
        }
        let all = wanted.unwrap_or(MOST).min(possible);
        let of_one = config.limits.connections_per_address.unwrap_or((all / PART_OF_ONE).max(1));
        let proxies = config.identity.iter().flat_map(|method| match method {
            IdentityMethod::TrustedHeader(header) => header.trusted_peers.as_slice(),
            IdentityMethod::Bearer { .. } | IdentityMethod::Local { .. } => &[],
        });
        Self { all, of_one, proxies: proxies.copied().collect() }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.all -= 1;
        let Some(source) = self.source else { return };
        if let Some(of_one) = open.by_source.get_mut(&source) {
            *of_one -= 1;
            if *of_one == 0 {
                open.by_source.remove(&source);
            }
        }
    }
}

/// How many connections this many descriptors allow beside this many calls.
fn possible(files: usize, calls: usize) -> usize {
    files.saturating_sub(RESERVE + PER_CALL * calls).max(files / LEAST_PART)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn connections(all: usize, of_one: usize) -> Arc<ConnectionLimits> {
        let most = Most { all, of_one, proxies: vec!["10.0.0.5".parse::<IpAddr>().unwrap().into()] };
        Arc::new(ConnectionLimits { most: Swap::new(Arc::new(most)), open: Mutex::default(), gauge: Gauge::default() })
    }

    fn peer(address: &str) -> PeerAddr {
        PeerAddr::Tcp(SocketAddr::new(address.parse().unwrap(), 1234))
    }

    #[test]
    fn one_address_or_network_of_one_customer_does_not_take_all_the_room() {
        for (one, same, other) in
            [("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"), ("2001:db8:1:2::1", "2001:db8:1:2::ff", "2001:db8:1:3::1")]
        {
            let connections = connections(10, 2);
            let held = [connections.admit(peer(one)), connections.admit(peer(same))];
            assert_eq!(connections.admit(peer(one)).err(), Some(Full::One));
            let others = connections.admit(peer(other));
            assert!(others.is_ok());
            assert_eq!(connections.gauge.get(), 3);
            drop(held);
            assert!(connections.admit(peer(same)).is_ok(), "what was closed is forgotten");
            drop(others);
            assert!(connections.open().by_source.is_empty());
        }
    }

    #[test]
    fn a_trusted_proxy_and_the_unix_socket_are_everybody_and_still_leave_room_for_the_rest() {
        let connections = connections(6, 1);
        let mut held: Vec<_> =
            [peer("10.0.0.5"), PeerAddr::Unix].repeat(3).into_iter().map(|p| connections.admit(p)).collect();
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(connections.admit(peer("10.0.0.5")).err(), Some(Full::All));
        assert_eq!(connections.admit(peer("192.0.2.1")).err(), Some(Full::All));
        held.pop();
        assert!(connections.admit(peer("192.0.2.1")).is_ok());
    }

    #[test]
    fn descriptors_are_kept_for_calls_and_for_the_operator() {
        assert_eq!(possible(1024, 512), 256);
        assert_eq!(possible(65_536, 512), 65_536 - 128 - 4096);
        assert!(possible(usize::MAX, 512) > MOST);
    }
}
