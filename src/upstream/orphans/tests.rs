use rustix::process::{PidfdFlags, pidfd_open};

use super::*;

fn family(strangers: Strangers) -> Family {
    Family::new(strangers, ProcessCounts::default()).unwrap()
}

/// A candidate that is in truth this process: judging looks only at what is written down.
fn candidate(mark: Option<u64>, born: u64) -> Candidate {
    let pid = rustix::process::getpid();
    Candidate {
        pid,
        pinned: pidfd_open(pid, PidfdFlags::empty()).unwrap(),
        ended: false,
        mark,
        session: own_session(),
        born,
    }
}

#[test]
fn a_mark_tells_whose_an_orphan_is() {
    let family = family(Strangers::End);
    let [ended, running] = [(); 2].map(|()| family.join().unwrap());
    let [of_ended, of_running] = [ended, running].map(|place| family.mark(place));
    family.leave(ended);
    let begun = family.table().groups[&running.serial].born;
    for born in [begun, u64::MAX] {
        assert!(family.judge(&candidate(of_ended, born)) == Verdict::End);
        assert!(family.judge(&candidate(of_running, born)) == Verdict::Wait);
        // A lower mark, which any process can take, is of no request that runs.
        assert!(family.judge(&candidate(of_running.map(|mark| mark - 1), born)) == Verdict::End);
    }
}

#[test]
fn a_mark_of_a_request_that_began_later_spares_nobody() {
    let family = family(Strangers::End);
    let running = family.join().unwrap();
    let begun = family.table().groups[&running.serial].born;
    assert!(family.judge(&candidate(family.mark(running), begun - 1)) == Verdict::End);
}

#[test]
fn an_orphan_that_has_ended_is_reaped_once_it_is_surely_not_the_leader() {
    let family = family(Strangers::End);
    let place = family.join().unwrap();
    let ended = Candidate { ended: true, ..candidate(family.mark(place), u64::MAX) };
    assert!(family.judge(&ended) == Verdict::Wait, "a leader may bear the mark before it is known");
    let init = Pid::from_raw(1);
    family.table().groups.get_mut(&place.serial).unwrap().leader = init;
    assert!(family.judge(&ended) == Verdict::Reap);
}

#[test]
fn without_a_mark_an_orphan_ends_with_the_last_request_that_may_have_started_it() {
    let family = family(Strangers::End);
    let unmarked = [None, Some(u64::MAX), Some(family.first_mark.unwrap() + 1), Some(7)];
    for mark in unmarked {
        let running = family.join().unwrap();
        let begun = family.table().groups[&running.serial].born;
        assert!(family.judge(&candidate(mark, begun - 1)) == Verdict::End);
        // One that is being started has no mark yet, and is not old enough.
        assert!(family.judge(&candidate(mark, begun)) == Verdict::Wait);
        family.leave(running);
        assert!(family.judge(&candidate(mark, begun)) == Verdict::End);
    }
}

#[test]
fn leaders_and_strangers_are_spared() {
    let family = family(Strangers::Spare);
    assert!(family.judge(&candidate(None, 0)) == Verdict::Spare);
    let place = family.join().unwrap();
    let leader = candidate(None, 0);
    family.table().groups.get_mut(&place.serial).unwrap().leader = Some(leader.pid);
    assert!(family.judge(&leader) == Verdict::Spare);
    family.abandon(place, leader.pid, Instant::now());
    assert!(family.judge(&leader) == Verdict::Bury);
}

#[test]
fn what_an_engines_client_leaves_in_a_session_of_its_own_is_spared() {
    let family = family(Strangers::End);
    let client = candidate(family.first_mark, 0);
    assert!(family.judge(&client) == Verdict::End, "it left nothing to itself: age tells");
    let daemon = Candidate { session: own_session() + 1, ..client };
    assert!(family.judge(&daemon) == Verdict::Spare);
    assert!(family.judge(&Candidate { ended: true, ..daemon }) == Verdict::Reap);
    let higher = family.first_mark.map(|first| first + 1);
    assert!(family.judge(&Candidate { session: 0, ..candidate(higher, 0) }) == Verdict::End, "no client's mark");
}

#[test]
fn a_client_that_is_left_to_itself_is_killed_only_when_its_time_is_over() {
    let family = family(Strangers::End);
    let (place, client) = (family.join().unwrap(), candidate(family.first_mark, 0));
    family.abandon(place, client.pid, Instant::now() + Duration::from_mins(1));
    assert!(family.judge(&client) == Verdict::Wait);
    family.abandon(place, client.pid, Instant::now());
    assert!(family.judge(&client) == Verdict::Bury);
}

#[test]
fn a_group_is_over_when_nothing_of_it_is_left_whatever_others_leave() {
    let done = |last, idle, haunted: &[u64]| Done { last, idle, haunted: haunted.iter().copied().collect() };
    let (next, place) = (5, Place { serial: 7, born: 0 });
    for (done, is_over) in [
        (done(4, 4, &[]), false),
        (done(5, 5, &[]), true),
        (done(7, 4, &[]), false),
        (done(8, 4, &[]), true),
        (done(8, 4, &[6]), true),
        (done(8, 4, &[7]), false),
        (done(800, 4, &[6, 7]), false),
        (Done::for_ever(), true),
    ] {
        assert_eq!(done.is_over(next, place), is_over, "{done:?}");
    }
}

#[test]
fn what_others_leave_behind_holds_no_group_up() {
    let family = family(Strangers::End);
    let [one, other] = [(); 2].map(|()| family.join().unwrap());
    let (own, others) = (family.mark(one), family.mark(other));
    assert!(family.may_be_of(one, own, || None));
    assert!(!family.may_be_of(one, others, || Some(u64::MAX)), "another request's");
    assert!(!family.may_be_of(one, family.first_mark, || Some(u64::MAX)), "an engine's");
    for (born, may_be) in [(one.born - 1, false), (one.born, true)] {
        assert_eq!(family.may_be_of(one, None, || Some(born)), may_be, "without a mark its age tells");
    }
}

#[test]
fn what_a_group_was_confined_to_is_kept_until_nothing_is_left_of_it() {
    let family = family(Strangers::Spare);
    let (place, kept) = (family.join().unwrap(), Arc::new(()));
    family.leave(place);
    family.keep(place, Arc::clone(&kept));
    for (last, haunted, holders) in
        [(1, vec![], 2), (3, vec![place.serial], 2), (4, vec![place.serial], 2), (5, vec![], 1)]
    {
        family.done.send_replace(Done { last, idle: 0, haunted: haunted.into_iter().collect() });
        family.release();
        assert_eq!(Arc::strong_count(&kept), holders, "after look {last}");
    }
}

#[test]
fn what_was_killed_and_has_not_ended_is_told_of_by_its_group() {
    let family = family(Strangers::End);
    let place = family.join().unwrap();
    family.leave(place);
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_child(&child);
    let pinned = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let mark = family.first_mark.map(|first| first - place.serial);
    let orphan = Candidate { pid, pinned, ..candidate(mark, 0) };
    let mut look = Look::default();
    family.bury(&orphan, &mut look);
    assert_eq!((look.dying + look.buried, look.haunted.contains(&place.serial)), (1, look.dying == 1));
    // It may have been reaped already.
    let _ = child.wait();
}

#[test]
fn nothing_can_be_started_once_everything_is_being_ended() {
    let family = family(Strangers::Spare);
    family.table().closed = true;
    assert!(family.join().is_none());
}
