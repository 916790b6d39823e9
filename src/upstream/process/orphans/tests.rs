use rustix::process::{PidfdFlags, pidfd_open};

use super::*;

fn tracker(untagged: UntaggedChildren) -> ProcessTracker {
    ProcessTracker::new(untagged, ProcessCounts::default()).unwrap()
}

/// A candidate that is really this process: only the fields are judged.
fn candidate(tag: Option<u64>, born: u64) -> Candidate {
    let pid = rustix::process::getpid();
    Candidate {
        pid,
        pinned: pidfd_open(pid, PidfdFlags::empty()).unwrap(),
        ended: false,
        tag,
        session: own_session(),
        born,
    }
}

#[test]
fn a_mark_tells_whose_an_orphan_is() {
    let tracker = tracker(UntaggedChildren::End);
    let [ended, running] = [(); 2].map(|()| tracker.register().unwrap());
    let [of_ended, of_running] = [ended, running].map(|group_id| tracker.tag(group_id));
    tracker.unregister(ended);
    let begun = tracker.table().groups[&running.serial].born;
    for born in [begun, u64::MAX] {
        assert!(tracker.judge(&candidate(of_ended, born)) == Verdict::End);
        assert!(tracker.judge(&candidate(of_running, born)) == Verdict::Wait);
        // A lower tag, which any process can take, is of no request that runs.
        assert!(tracker.judge(&candidate(of_running.map(|tag| tag - 1), born)) == Verdict::End);
    }
}

#[test]
fn a_mark_of_a_request_that_began_later_spares_nobody() {
    let tracker = tracker(UntaggedChildren::End);
    let running = tracker.register().unwrap();
    let begun = tracker.table().groups[&running.serial].born;
    assert!(tracker.judge(&candidate(tracker.tag(running), begun - 1)) == Verdict::End);
}

#[test]
fn an_orphan_that_has_ended_is_reaped_once_it_is_surely_not_the_leader() {
    let tracker = tracker(UntaggedChildren::End);
    let group_id = tracker.register().unwrap();
    let ended = Candidate { ended: true, ..candidate(tracker.tag(group_id), u64::MAX) };
    assert!(tracker.judge(&ended) == Verdict::Wait, "a leader may bear the tag before it is known");
    let init = Pid::from_raw(1);
    tracker.table().groups.get_mut(&group_id.serial).unwrap().leader = init;
    assert!(tracker.judge(&ended) == Verdict::Reap);
}

#[test]
fn without_a_mark_an_orphan_ends_with_the_last_request_that_may_have_started_it() {
    let tracker = tracker(UntaggedChildren::End);
    let unmarked = [None, Some(u64::MAX), Some(tracker.first_tag.unwrap() + 1), Some(7)];
    for tag in unmarked {
        let running = tracker.register().unwrap();
        let begun = tracker.table().groups[&running.serial].born;
        assert!(tracker.judge(&candidate(tag, begun - 1)) == Verdict::End);
        // One that is being started has no tag yet, and is not old enough.
        assert!(tracker.judge(&candidate(tag, begun)) == Verdict::Wait);
        tracker.unregister(running);
        assert!(tracker.judge(&candidate(tag, begun)) == Verdict::End);
    }
}

#[test]
fn without_a_mark_an_orphan_that_has_ended_is_reaped_once_it_is_surely_no_leader() {
    let tracker = tracker(UntaggedChildren::End);
    let group_id = tracker.register().unwrap();
    let ended = Candidate { ended: true, ..candidate(None, group_id.born) };
    assert!(tracker.judge(&ended) == Verdict::Wait, "a leader has no tag at first");
    tracker.table().groups.get_mut(&group_id.serial).unwrap().leader = Pid::from_raw(1);
    assert!(tracker.judge(&ended) == Verdict::Reap);
}

#[test]
fn without_a_mark_an_orphan_does_not_outlive_its_request_because_a_spare_waits() {
    let tracker = tracker(UntaggedChildren::End);
    let spare = tracker.register().unwrap();
    let tagged = spare.born + 2;
    tracker.table().groups.get_mut(&spare.serial).unwrap().tagged = Some(tagged);
    let judge = |born| tracker.judge(&candidate(None, born));
    assert!(judge(tagged + 1) == Verdict::Wait, "it serves a request, and may have done what takes a tag away");
    tracker.set_spare(spare, true);
    assert!(judge(tagged + 1) == Verdict::End);
    assert!(judge(tagged) == Verdict::Wait, "it may be the spare's own");
    tracker.table().groups.get_mut(&spare.serial).unwrap().tagged = None;
    assert!(judge(tagged + 1) == Verdict::Wait, "none of its processes has a tag");
}

#[test]
fn leaders_and_strangers_are_spared() {
    let tracker = tracker(UntaggedChildren::Spare);
    assert!(tracker.judge(&candidate(None, 0)) == Verdict::Spare);
    let group_id = tracker.register().unwrap();
    let leader = candidate(None, 0);
    tracker.table().groups.get_mut(&group_id.serial).unwrap().leader = Some(leader.pid);
    assert!(tracker.judge(&leader) == Verdict::Spare);
    tracker.abandon(group_id, leader.pid, Instant::now());
    assert!(tracker.judge(&leader) == Verdict::EndLeader);
}

#[test]
fn what_an_engines_client_leaves_in_a_session_of_its_own_is_spared() {
    let tracker = tracker(UntaggedChildren::End);
    let client = candidate(tracker.first_tag, 0);
    assert!(tracker.judge(&client) == Verdict::End, "it left nothing to itself: age tells");
    let daemon = Candidate { session: own_session() + 1, ..client };
    assert!(tracker.judge(&daemon) == Verdict::Spare);
    assert!(tracker.judge(&Candidate { ended: true, ..daemon }) == Verdict::Reap);
    let higher = tracker.first_tag.map(|first| first + 1);
    assert!(tracker.judge(&Candidate { session: 0, ..candidate(higher, 0) }) == Verdict::End, "no client's tag");
}

#[test]
fn a_client_that_is_left_to_itself_is_killed_only_when_its_time_is_over() {
    let tracker = tracker(UntaggedChildren::End);
    let (group_id, client) = (tracker.register().unwrap(), candidate(tracker.first_tag, 0));
    tracker.abandon(group_id, client.pid, Instant::now() + Duration::from_mins(1));
    assert!(tracker.judge(&client) == Verdict::Wait);
    tracker.abandon(group_id, client.pid, Instant::now());
    assert!(tracker.judge(&client) == Verdict::EndLeader);
}

#[test]
fn a_group_is_over_when_nothing_of_it_is_left_whatever_others_leave() {
    let done = |last, idle, survivors: &[u64]| Done { last, idle, survivors: survivors.iter().copied().collect() };
    let (next, group_id) = (5, GroupId { serial: 7, born: 0 });
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
        assert_eq!(done.is_over(next, group_id), is_over, "{done:?}");
    }
}

#[test]
fn what_others_leave_behind_holds_no_group_up() {
    let tracker = tracker(UntaggedChildren::End);
    let [one, other] = [(); 2].map(|()| tracker.register().unwrap());
    let (own, others) = (tracker.tag(one), tracker.tag(other));
    assert!(tracker.may_be_of(one, own, || None));
    assert!(!tracker.may_be_of(one, others, || Some(u64::MAX)), "another request's");
    assert!(!tracker.may_be_of(one, tracker.first_tag, || Some(u64::MAX)), "an engine's");
    for (born, may_be) in [(one.born - 1, false), (one.born, true)] {
        assert_eq!(tracker.may_be_of(one, None, || Some(born)), may_be, "without a tag its age tells");
    }
}

#[test]
fn what_a_group_was_confined_to_is_kept_until_nothing_is_left_of_it() {
    let tracker = tracker(UntaggedChildren::Spare);
    let (group_id, held) = (tracker.register().unwrap(), Arc::new(()));
    tracker.unregister(group_id);
    tracker.hold_until_gone(group_id, Arc::clone(&held));
    for (last, survivors, holders) in
        [(1, vec![], 2), (3, vec![group_id.serial], 2), (4, vec![group_id.serial], 2), (5, vec![], 1)]
    {
        tracker.done.send_replace(Done { last, idle: 0, survivors: survivors.into_iter().collect() });
        tracker.release();
        assert_eq!(Arc::strong_count(&held), holders, "after pass {last}");
    }
}

#[test]
fn what_was_killed_and_has_not_ended_is_told_of_by_its_group() {
    let tracker = tracker(UntaggedChildren::End);
    let group_id = tracker.register().unwrap();
    tracker.unregister(group_id);
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_child(&child);
    let pinned = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let tag = tracker.first_tag.map(|first| first - group_id.serial);
    let orphan = Candidate { pid, pinned, ..candidate(tag, 0) };
    let mut pass = Pass::default();
    tracker.kill_and_reap(&orphan, &mut pass);
    assert_eq!((pass.dying + pass.reaped, pass.survivors.contains(&group_id.serial)), (1, pass.dying == 1));
    // It may have been reaped already.
    let _ = child.wait();
}

#[test]
fn nothing_can_be_started_once_everything_is_being_ended() {
    let tracker = tracker(UntaggedChildren::Spare);
    tracker.table().closed = true;
    assert!(tracker.register().is_none());
}
