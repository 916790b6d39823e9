//! What servers of a bridge that has died as a whole, supervisor and worker at once, have left running: nobody was there to
//! end it, and it holds its user's token.
//!
//! Such a process bears the tag of a request, and so does everything above it, up to a process that is above this one,
//! too: it has fallen to the first process of the system or of the session. What a living bridge has started stands below
//! that bridge, which bears no tag. And it is older than this process. Whoever calls this has found the directory of a
//! dead instance, which nobody has locked any more.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, getpid, getrlimit};

use super::tags::{TAGS_PER_TRACKER, first_tag, tag_of};
use crate::descendants::{self, Process, ProcessSet};

/// The longest that ending it takes.
const LONGEST: Duration = Duration::from_secs(2);

/// How often to check whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// Ends all of it, and returns how many processes that were. Blocks until they are gone, for two seconds at most.
#[must_use]
pub fn end_dead_instances() -> usize {
    // Who is limited here may be the server of another bridge, and has other tags than one that is not.
    let is_plain = getrlimit(Resource::Locks).maximum.is_none();
    let Some(of_clients) = first_tag(1).filter(|_| is_plain) else { return 0 };
    let is_tagged = |pid| tag_of(pid).is_some_and(|tag| (of_clients - TAGS_PER_TRACKER + 1..of_clients).contains(&tag));
    let (deadline, mut ended) = (Instant::now() + LONGEST, 0);
    loop {
        let left = left_behind(is_tagged).unwrap_or_default();
        if left.is_empty() || Instant::now() >= deadline {
            return ended;
        }
        let mut set = ProcessSet::default();
        set.stop(left);
        ended = set.kill().len().max(ended);
        std::thread::sleep(POLL);
    }
}

/// The processes of dead instances that have not ended. `is_tagged` tells whether a process bears the tag of a request.
fn left_behind(is_tagged: impl Fn(Pid) -> bool) -> io::Result<Vec<Process>> {
    let all: HashMap<i32, Process> =
        descendants::everything()?.map(|process| (process.pid.as_raw_pid(), process)).collect();
    let Some(own) = all.get(&getpid().as_raw_pid()) else { return Ok(Vec::new()) };
    let above = above(own, &all);
    // What has fallen to a bridge is that bridge's to end.
    if above.iter().any(|&pid| is_bridge(pid)) {
        return Ok(Vec::new());
    }
    let is_left = |process: &&Process| !process.ended && process.born <= own.born && is_tagged(process.pid);
    let has_fallen = |process: &&Process| has_fallen(process, &all, &above, &is_tagged);
    Ok(all.values().filter(is_left).filter(has_fallen).copied().collect())
}

/// Every process above this one.
fn above(process: &Process, all: &HashMap<i32, Process>) -> HashSet<i32> {
    let mut above = HashSet::new();
    let mut next = process.parent;
    while let Some(parent) = all.get(&next).filter(|_| above.insert(next)) {
        next = parent.parent;
    }
    above
}

fn is_bridge(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_ascii_end() == b"tollbridge")
}

/// Whether nothing but processes with the tag of a request stands between this one and one of those that are `above` us.
fn has_fallen(
    process: &Process,
    all: &HashMap<i32, Process>,
    above: &HashSet<i32>,
    is_tagged: impl Fn(Pid) -> bool,
) -> bool {
    let (mut next, mut seen) = (process.parent, HashSet::new());
    while !above.contains(&next) {
        match all.get(&next) {
            // No process is above itself, but what changes while it is looked at may seem to be.
            Some(parent) if is_tagged(parent.pid) && seen.insert(next) => next = parent.parent,
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> (i32, Process) {
        (pid, Process { pid: Pid::from_raw(pid).unwrap(), parent, session: 0, ended: false, born: 0 })
    }

    #[test]
    fn only_what_has_nothing_but_marked_processes_above_it_is_of_a_dead_instance() {
        let all = [process(1, 0), process(5, 1), process(10, 1), process(11, 10), process(12, 5)];
        let bridge = [process(20, 1), process(21, 20), process(22, 21), process(30, 5)];
        let all: HashMap<_, _> = all.into_iter().chain(bridge).collect();
        let above = above(&all[&30], &all);
        assert_eq!(above, [5, 1].into());
        let has_fallen = |process: &Process, tagged: &[i32]| {
            has_fallen(process, &all, &above, |pid| tagged.contains(&pid.as_raw_pid()))
        };
        assert!(has_fallen(&all[&10], &[10, 11]) && has_fallen(&all[&11], &[10, 11]));
        assert!(has_fallen(&all[&12], &[12]), "5 is that of the session");
        assert!(!has_fallen(&all[&22], &[21, 22]) && !has_fallen(&all[&21], &[21, 22]), "20 is a bridge that lives");
        let elsewhere = Process { parent: 99, ..all[&11] };
        assert!(!has_fallen(&elsewhere, &[11]), "what cannot be seen is not taken for dead");
    }
}
