//! A server that does not want to end: it ignores EOF and SIGTERM, and leaves processes where a group kill misses them.
//!
//! `escaper MARKER ROLE [HELD …]`: as `stubborn` or `polite` (which exits with 7 on EOF) it waits for a line on stdin,
//! then starts every HELD; MARKER is how a test finds its own. Every HELD ends up as a process whose second argument
//! is its name, so that a test sees when it is in place.
#![expect(clippy::unwrap_used, reason = "only a test sees it fail")]
#![expect(clippy::zombie_processes, reason = "leaving them is what it is for")]
#![expect(clippy::print_stdout, reason = "a server answers on stdout")]

use std::io::{BufRead, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use tollbridge::sys::Signals;

fn main() {
    Signals::of(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]).block_only();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [marker, role, held @ ..] = &args[..] else { panic!("escaper MARKER ROLE [HELD …]") };
    match role.as_str() {
        "stubborn" | "polite" => {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).unwrap();
            for held in held {
                start(marker, held);
            }
            println!("started");
            if role == "polite" {
                std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
                std::process::exit(7);
            }
        }
        "leave" => {
            rustix::process::setsid().unwrap();
            let name = held[0].as_str();
            assert!(name != "left", "{}", itself(marker, name).exec());
            itself(marker, name).spawn().unwrap();
            return;
        }
        "leapfrog" => {
            rustix::process::setsid().unwrap();
            let leaps: u32 = held.first().map_or(10_000, |leaps| leaps.parse().unwrap());
            if leaps > 0 {
                itself(marker, role).arg((leaps - 1).to_string()).spawn().unwrap();
            }
            return;
        }
        _ => {}
    }
    // Far longer than any test, but not for ever if one fails.
    std::thread::sleep(Duration::from_secs(100));
}

/// Starts what will be held: `inside` the group, `left` it by setsid, a `daemon`, a `bare` daemon with no environment
/// and no file of ours, or a `leapfrog`: a daemon that goes on as its own child, again and again.
fn start(marker: &str, held: &str) {
    let started = match held {
        "inside" | "leapfrog" => itself(marker, held).spawn(),
        "left" | "daemon" => itself(marker, "leave").arg(held).spawn(),
        "bare" => {
            let mut command = itself(marker, "leave");
            command.arg(held).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        }
        other => panic!("no way to hold {other}"),
    };
    let mut started = started.unwrap();
    if matches!(held, "daemon" | "bare") {
        started.wait().unwrap();
    }
}

fn itself(marker: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([marker, role]);
    command
}
