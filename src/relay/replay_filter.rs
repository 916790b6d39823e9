//! Replay protection: a message that was received before is dropped, since whoever can write to Redis may repeat what they
//! saw there.

use std::collections::HashMap;

use super::NodeId;

/// How far frames of one node may overtake each other.
const REACH: u64 = 8192;
/// Nodes that are remembered, dead ones among them. What was sent by the one that was heard least lately could be
/// repeated once more other nodes than this have been heard.
const NODES: usize = 1024;

/// Which frames of which nodes were heard.
#[derive(Default)]
pub(super) struct ReplayFilter {
    nodes: HashMap<NodeId, Window>,
    /// Counts what is heard.
    now: u64,
}

struct Window {
    /// The greatest number that was heard.
    top: u64,
    /// One bit for each of the [`REACH`] numbers up to `top`, at the number's remainder.
    seen: Box<[u64]>,
    /// When it was last heard.
    last: u64,
}

impl ReplayFilter {
    /// Whether frame `number` of `from` is heard for the first time. One that comes too late to tell is not.
    pub(super) fn first_time(&mut self, from: NodeId, number: u64) -> bool {
        self.now += 1;
        if self.nodes.len() >= NODES && !self.nodes.contains_key(&from) {
            let oldest = self.nodes.iter().min_by_key(|(_, window)| window.last).map(|(node, _)| *node);
            oldest.and_then(|node| self.nodes.remove(&node));
        }
        let window = self.nodes.entry(from).or_insert_with(Window::new);
        window.last = self.now;
        window.first_time(number)
    }
}

impl Window {
    fn new() -> Self {
        Self { top: 0, seen: vec![0; usize::try_from(REACH / 64).unwrap_or(0)].into(), last: 0 }
    }

    fn first_time(&mut self, number: u64) -> bool {
        if self.top.saturating_sub(number) >= REACH {
            return false;
        }
        for skipped in (self.top + 1)..=number.min(self.top.saturating_add(REACH)) {
            let (word, bit) = self.place(skipped);
            *word &= !bit;
        }
        self.top = self.top.max(number);
        let (word, bit) = self.place(number);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    fn place(&mut self, number: u64) -> (&mut u64, u64) {
        let at = usize::try_from(number % REACH).expect("below 8192");
        (&mut self.seen[at / 64], 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_new_once_in_whatever_order_it_comes() {
        let mut heard = ReplayFilter::default();
        let (a, b) = (NodeId([1; 16]), NodeId([2; 16]));
        let numbers = [5, 1, 2, 8000, 3, 100_000, 99_999, 100_000 - REACH + 1];
        assert!(numbers.iter().all(|number| heard.first_time(a, *number)));
        assert!(!numbers.iter().any(|number| heard.first_time(a, *number)));
        assert!(!heard.first_time(a, 100_000 - REACH), "too late to tell");
        assert!(heard.first_time(b, 5));
    }

    #[test]
    fn the_node_that_was_heard_least_lately_is_forgotten_first() {
        let mut heard = ReplayFilter::default();
        let node = |n: usize| NodeId(std::array::from_fn(|at| n.to_be_bytes().get(at).copied().unwrap_or(0)));
        for n in 0..NODES {
            assert!(heard.first_time(node(n), 1));
        }
        assert!(heard.first_time(node(0), 2));
        assert!(heard.first_time(node(NODES), 1));
        assert_eq!(heard.nodes.len(), NODES);
        assert!(!heard.first_time(node(0), 2));
        assert!(heard.first_time(node(1), 1));
    }
}
