//! A bridge reduced to what the supervisor is about.
//!
//! `supervised MARKER supervisor HELD …` starts `supervised MARKER worker HELD …`, which starts a stubborn `escaper`
//! with what it holds and a shell that waits, says `ready`, and ends with 5 upon SIGTERM, with SIGABRT upon SIGUSR1, and
//! with everything it started when its supervisor is gone.
#![expect(clippy::unwrap_used, reason = "only a test sees it fail")]
#![expect(clippy::print_stdout, reason = "this is what the test waits for")]

use std::ffi::OsString;
use std::process::ExitCode;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tollbridge::config::{Confinement, StdioLaunch};
use tollbridge::lifecycle::Lifecycle;
use tollbridge::metrics::ProcessCounts;
use tollbridge::service_manager::ServiceManager;
use tollbridge::supervisor;
use tollbridge::upstream::process::confinement::Confiner;
use tollbridge::upstream::process::group::Spawner;
use tollbridge::upstream::process::orphans::UntaggedChildren;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [marker, role, held @ ..] = &args[..] else { panic!("supervised MARKER ROLE [HELD …]") };
    if role == "supervisor" {
        let worker = [marker, "worker"].into_iter().chain(held.iter().map(String::as_str));
        return supervisor::run(worker.map(OsString::from), &ServiceManager::default());
    }
    supervisor::harden();
    tokio::runtime::Runtime::new().unwrap().block_on(work(marker, held))
}

async fn work(marker: &str, held: &[String]) -> ExitCode {
    let mut term = signal(SignalKind::terminate()).unwrap();
    let mut abort = signal(SignalKind::user_defined1()).unwrap();
    let orphaned = supervisor::orphaned();
    let spawner =
        Spawner::new(&Lifecycle::default(), UntaggedChildren::End, Confiner::default(), ProcessCounts::default())
            .unwrap();

    let escaper = std::env::current_exe().unwrap().with_file_name("escaper");
    let args = [marker, "stubborn"].into_iter().chain(held.iter().map(String::as_str)).map(OsString::from).collect();
    let escaper = StdioLaunch {
        program: escaper,
        args,
        env: Vec::new(),
        cwd: None,
        token_files: Vec::new(),
        confinement: Confinement::default(),
    };
    let (_escaper, mut pipes) = spawner.spawn(&escaper).unwrap();
    pipes.stdin.write_all(b"go\n").await.unwrap();
    BufReader::new(&mut pipes.stdout).read_line(&mut String::new()).await.unwrap();

    let args = ["-c", "echo up; read line", marker, "shell"].map(OsString::from).to_vec();
    let shell = StdioLaunch {
        program: "/bin/sh".into(),
        args,
        env: Vec::new(),
        cwd: None,
        token_files: Vec::new(),
        confinement: Confinement::default(),
    };
    let (_shell, mut pipes) = spawner.spawn(&shell).unwrap();
    pipes.stdout.read_exact(&mut [0; 3]).await.unwrap();

    println!("ready");
    tokio::select! {
        () = orphaned => {
            assert!(spawner.kill_everything());
            ExitCode::FAILURE
        }
        _ = term.recv() => std::process::exit(5),
        _ = abort.recv() => std::process::abort(),
    }
}
