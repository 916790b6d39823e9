//! What it costs to read a message, by its shape: 4 MiB of each, as a client sends them and as a server does.
//!
//! Prints a table and one line with the target; exits 1 if a byte of any shape costs more than it says.
//! `messages [--quick]`

mod shapes;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tollbridge::mcp::message::{FromServer, Message};

/// How long a message is.
const SIZE: u32 = 4 << 20;
/// What a byte of a client's message may cost, whatever its shape, in nanoseconds: it is gone through once, which takes up
/// to about 2, and twice that beside somebody who keeps the processor busy.
const MOST: f64 = 5.0;

#[expect(clippy::print_stdout, reason = "a program whose answer is its output")]
fn main() -> ExitCode {
    let rounds = if std::env::args().any(|argument| argument == "--quick") { 5 } else { 30 };
    let mut times = Vec::new();
    for (shape, arguments) in shapes::shapes(SIZE as usize) {
        let client = Bytes::from(request(&arguments));
        let server = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{arguments}}}"#);
        let from_client = fastest(rounds, || assert!(Message::parse(client.clone()).is_ok(), "{shape} is a message"));
        let from_server = fastest(rounds, || assert!(FromServer::parse(&server).is_some(), "{shape} is a message"));
        println!("{shape:<24} {:>8.2} ms {:>8.2} ms", milliseconds(from_client), milliseconds(from_server));
        times.push(from_client);
    }
    let worst = milliseconds(*times.iter().max().expect("a shape")) * 1e6 / f64::from(SIZE);
    println!("reading a message: {worst:.1} ns per byte of the worst shape; target {MOST:.0}");
    if worst <= MOST { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn request(arguments: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments}}}}}"#)
}

/// The fastest of some rounds: what it takes when nothing else is going on.
fn fastest(rounds: usize, mut work: impl FnMut()) -> Duration {
    let once = |_| {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    (0..rounds).map(once).min().expect("a round")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
