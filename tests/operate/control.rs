//! The socket by which commands reach a bridge, with others at it who mean no good, and files that cannot be read.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, mkfifoat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use rustix::process::Signal;
use tollbridge::control;

use super::reload::{ALICE, command, config, status};
use crate::support::home::TOLLBRIDGE;
use crate::support::unprivileged::Unprivileged;
use crate::support::{Client, Home, free_address, procs};

/// How long a command may take here that nothing holds up.
const SOON: Duration = Duration::from_secs(25);

/// Becomes the program that its arguments say, and keeps the name by which commands would reach that.
const NAME_TAKER: &str = "
import os, socket, sys
taken = socket.socket(socket.AF_UNIX)
taken.bind(f'\\0tollbridge-control/{os.getpid()}')
os.set_inheritable(taken.fileno(), True)
os.execv(sys.argv[1], sys.argv[1:])
";

#[tokio::test]
async fn who_listens_as_a_bridge_does_and_has_no_room_holds_nobody_up() {
    let home = Home::without_key();
    let _bridge = home.serve(config(&home, free_address(), &[("alice", ALICE)]));
    let stream = || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    let name =
        SocketAddrUnix::new_abstract_name(format!("tollbridge-control/{}", std::process::id()).as_bytes()).unwrap();
    let squatter = stream();
    bind(&squatter, &name).unwrap();
    listen(&squatter, 0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let next = stream();
        if connect(&next, &name).is_err() {
            break;
        }
        waiting.push(next);
    }
    std::thread::scope(|threads| {
        let reload = threads.spawn(|| command(&home, &["reload"]));
        let ended = procs::wait_for(SOON, || reload.is_finished().then_some(()));
        drop((squatter, waiting));
        let (code, said) = reload.join().unwrap();
        assert!(ended.is_some(), "it waited for the squatter");
        assert!(code == 0 && said.contains("reloaded"), "{said}");
    });
}

#[tokio::test]
async fn clients_of_the_socket_that_say_nothing_or_take_nothing_keep_nobody_out() {
    let home = Home::without_key();
    let bridge = home.serve(config(&home, free_address(), &[("alice", ALICE)]));
    let address = control::address(bridge.worker()).unwrap();
    let mut held: Vec<_> = (0..24).map(|_| UnixStream::connect_addr(&address).unwrap()).collect();
    for slow in held.iter_mut().step_by(2) {
        slow.write_all(b"heal").unwrap();
    }
    let begun = Instant::now();
    let (code, said) = command(&home, &["health"]);
    assert!(code == 0 && begun.elapsed() < SOON, "{said} after {:?}", begun.elapsed());
    assert!(procs::descriptors(bridge.worker()) < 200);
}

#[tokio::test]
async fn a_name_that_another_process_has_taken_is_said_in_the_log() {
    let home = Home::without_key();
    home.write(config(&home, free_address(), &[("alice", ALICE)]));
    let mut program = Command::new("python3");
    program.args(["-c", NAME_TAKER, TOLLBRIDGE]);
    let bridge = crate::support::Bridge::start_as(&home, &mut program, &["--worker"]);
    let log = bridge.log_with("may have taken the name");
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains("taken the name")), "{log}");
    let (code, said) = command(&home, &["health"]);
    assert!(code == 1 && said.contains("no bridge that was started with"), "{said}");
    bridge.signal(Signal::HUP);
    assert!(bridge.log_with("reloaded config").contains("reloaded config"), "a signal reaches it");
}

#[tokio::test]
async fn root_believes_bridges_of_root_and_of_whom_the_file_or_its_store_belongs_to() {
    let Some(home) = Unprivileged::new() else { return };
    let configured = config(&home.0, free_address(), &[("alice", ALICE)]);
    let bridge = home.serve(configured.clone(), "");
    let worker = bridge.worker();
    let is_told = |(code, said): (i32, String)| code == 0 && said.contains(&format!("process {worker}: "));
    assert!(is_told(command(&home.0, &["reload"])), "the file is that user's");

    std::os::unix::fs::chown(home.0.config(), Some(0), Some(0)).unwrap();
    let (code, said) = command(&home.0, &["reload"]);
    let may_be = format!("process {worker} of user {} may be one", crate::support::unprivileged::USER);
    assert!(code == 1 && said.contains(&may_be), "{said}");

    let mut configured = configured;
    configured["tokenStore"] = home.0.embedded();
    home.0.write(configured);
    let (code, said) = command(&home.0, &["reload"]);
    assert!(code == 2 && said.contains(&format!("process {worker}: ")), "the store is that user's: {said}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_to_its_end_holds_up_neither_requests_nor_the_next_file_nor_the_end() {
    let home = Home::without_key();
    let config = config(&home, free_address(), &[("alice", ALICE)]);
    let mut bridge = home.serve(config.clone());
    std::fs::remove_file(home.config()).unwrap();
    // Nobody ever writes to it.
    mkfifoat(rustix::fs::CWD, home.config(), Mode::from_raw_mode(0o600)).unwrap();
    bridge.signal(Signal::HUP);
    let mut alice = Client::modern(&bridge, "whoami", Some(ALICE));
    assert_eq!(status(&mut alice).await, 200);
    assert_eq!(command(&home, &["health"]).0, 0, "it is ready meanwhile");
    let said = "could not be read and checked in 15s";
    assert!(bridge.log_with(said).contains(said), "{}", bridge.log());

    std::fs::remove_file(home.config()).unwrap();
    std::os::unix::fs::symlink("/dev/zero", home.config()).unwrap();
    let (code, text) = command(&home, &["reload"]);
    assert!(code == 2 && text.contains("is longer than 16 MiB"), "{text}");
    std::fs::remove_file(home.config()).unwrap();
    home.write(config);
    let (code, text) = command(&home, &["reload"]);
    assert!(code == 0 && text.contains("reloaded: nothing changed"), "{text}");
    assert_eq!(status(&mut alice).await, 200);
    assert!(bridge.stop().success());
}
