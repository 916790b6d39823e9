//! The harness itself: what the other tests rely on.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use support::http::Events;
use support::{Redis, procs};

#[test]
fn an_event_stream_is_read_as_a_browser_reads_it() {
    let stream = b": hello\r\ndata: a\r\ndata:b\r\n\r\nid: 7\nevent: x\ndata: {\"k\":1}\n\nevent: without data\n\ndata: \xe2\x80\xa8\r\r";
    for size in 1..=stream.len() {
        let mut events = Events::default();
        stream.chunks(size).for_each(|piece| events.push(piece));
        events.push(b": end\n");
        let data: Vec<_> = std::iter::from_fn(|| events.pop()).map(|event| event.data).collect();
        assert_eq!(data, [b"a\nb".to_vec(), b"{\"k\":1}".to_vec(), "\u{2028}".as_bytes().to_vec()], "pieces of {size}");
        assert_eq!(events.comments(), 2);
    }
}

#[test]
fn a_marked_process_is_counted_until_it_has_ended_and_a_zombie_until_it_is_reaped() {
    let marker = format!("m{}", support::random_hex(8));
    let mut child = Command::new(support::server("hostile"))
        .args(["stubborn", "family=yes", &format!("marker={marker}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    // It answers once its grandchildren have settled.
    child.stdin.as_mut().expect("piped").write_all(b"{\"id\":1,\"method\":\"ping\"}\n").expect("it reads");
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut String::new()).expect("it answers");
    assert_eq!(procs::with_marker(&marker).len(), 4, "one server and three grandchildren");
    for pid in procs::with_marker(&marker) {
        procs::kill(pid, Signal::TERM);
    }
    assert_eq!(procs::with_marker(&marker).len(), 4, "none of them minds SIGTERM");
    for pid in procs::with_marker(&marker) {
        procs::kill(pid, Signal::KILL);
    }
    let zombie = || procs::zombies(std::process::id()).iter().any(|zombie| zombie.pid == child.id()).then_some(());
    procs::wait_for(Duration::from_mins(1), zombie).expect("it is a zombie until we wait for it");
    procs::wait_for(Duration::from_mins(1), || procs::with_marker(&marker).is_empty().then_some(())).expect("all gone");
    child.wait().expect("our child");
    assert!(procs::Process::read(child.id()).is_none());
}

#[test]
fn a_redis_of_ones_own_answers_and_is_gone_afterwards() {
    let redis = Redis::start();
    let pid = redis.pid();
    assert!(redis.url().starts_with("redis://127.0.0.1:"));
    assert!(!redis.stored_bytes().is_empty());
    drop(redis);
    assert!(procs::Process::read(pid).is_none());
}
