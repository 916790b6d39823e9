//! The load driver of `scripts/bench`: what the bridge adds to a fresh process per call.
//!
//! One run compares, in interleaved slices of a second or so, the same `tools/call` made by this process itself
//! (`posix_spawn`, handshake, call, EOF, reap) and through a bridge with a Redis store, a bearer identity and a user
//! token, by modern and by legacy clients on keep-alive connections. Standard library only and blocking threads, so
//! that the driver costs next to nothing beside what it measures and is built in seconds.
//!
//! `bridge --tollbridge PROGRAM --tiny PROGRAM [--quick | --try] [--redis PROGRAM] [--image NAME] [--syscalls]`

mod client;
mod direct;
mod figures;
mod report;
mod setting;
mod shapes;
mod syscalls;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use client::Client;
use direct::Direct;
use figures::{Cpu, Figures};
use report::Report;
use setting::Setting;

/// The concurrencies that are compared.
const CONCURRENCIES: [usize; 3] = [1, 8, 32];
/// The concurrencies at which a child is compared with a container.
const IMAGE_CONCURRENCIES: [usize; 2] = [1, 8];
/// The text that every call has to bring back.
const TEXT: &str = "hello";
/// The size of a large result.
const LARGE: usize = 10_000_000;
/// The length of messages that are compared by their shape.
const LONG: usize = 4 << 20;
/// Progress notifications per call whose latency is measured.
const PROGRESS_STEPS: usize = 50;

/// How a call is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Modern,
    Legacy,
    /// As `Modern`, and the token was given by a service.
    SignedIn,
    /// As `Modern`, and the server is in a container.
    Image,
}

/// How long everything takes.
struct Plan {
    rounds: usize,
    slice: Duration,
    large: usize,
    progress: usize,
    shapes: usize,
}

struct Arguments {
    tollbridge: PathBuf,
    tiny: PathBuf,
    redis: PathBuf,
    image: Option<String>,
    plan: Plan,
    syscalls: bool,
    /// Whether a target that is missed is a failure.
    judged: bool,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program whose answer is its output")]
fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!(
            "usage: bridge --tollbridge PROGRAM --tiny PROGRAM [--quick | --try] [--redis PROGRAM] [--image NAME] [--syscalls]"
        );
        return ExitCode::from(2);
    };
    if arguments.syscalls {
        return match syscalls::count(&arguments) {
            Ok(table) => {
                println!("{table}");
                ExitCode::SUCCESS
            }
            Err(problem) => {
                eprintln!("bench: {problem}");
                ExitCode::FAILURE
            }
        };
    }
    match measure(&arguments) {
        Ok(report) => {
            println!("{report}");
            if !arguments.judged || report.targets_missed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Option<Arguments> {
    let mut given = std::env::args().skip(1);
    let (mut tollbridge, mut tiny, mut redis) = (None, None, PathBuf::from("redis-server"));
    let (mut quick, mut judged, mut syscalls, mut image) = (false, true, false, None);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--tollbridge" => tollbridge = given.next().map(PathBuf::from),
            "--tiny" => tiny = given.next().map(PathBuf::from),
            "--redis" => redis = PathBuf::from(given.next()?),
            "--image" => image = Some(given.next()?),
            "--quick" => quick = true,
            "--try" => (quick, judged) = (true, false),
            "--syscalls" => syscalls = true,
            "--bench" => {} // what `cargo bench` adds
            _ => return None,
        }
    }
    let plan = if quick {
        Plan { rounds: 2, slice: Duration::from_millis(500), large: 5, progress: 3, shapes: 5 }
    } else {
        Plan { rounds: 6, slice: Duration::from_millis(1500), large: 20, progress: 20, shapes: 20 }
    };
    let absolute = |path: Option<PathBuf>| path.and_then(|path| std::path::absolute(path).ok());
    Some(Arguments { tollbridge: absolute(tollbridge)?, tiny: absolute(tiny)?, redis, image, plan, syscalls, judged })
}

/// Everything in one run.
fn measure(arguments: &Arguments) -> Result<Report, String> {
    let plan = &arguments.plan;
    let setting = Setting::start(&arguments.tollbridge, &arguments.tiny, &arguments.redis, arguments.image.as_deref())?;
    let direct = Direct::new(&arguments.tiny);
    let mut report = Report { idle: setting.memory(), ..Report::default() };
    for way in [Way::Direct, Way::Modern, Way::Legacy] {
        slice(&setting, &direct, way, 4, plan.slice.min(Duration::from_millis(300)))?; // warm
    }
    for concurrency in CONCURRENCIES {
        let mut rows = [Figures::default(), Figures::default(), Figures::default()];
        for round in 0..plan.rounds {
            let mut order = [(0, Way::Direct), (1, Way::Modern), (2, Way::Legacy)];
            order.rotate_left(round % 3);
            for (row, way) in order {
                rows[row].add(slice(&setting, &direct, way, concurrency, plan.slice)?);
            }
        }
        let [direct, modern, legacy] = rows;
        report.rates.push((concurrency, direct, modern, legacy));
    }
    for round in 0..2 * plan.rounds {
        let mut order = [Way::Modern, Way::SignedIn];
        order.rotate_left(round % 2);
        for way in order {
            let row = if way == Way::SignedIn { &mut report.signed_in } else { &mut report.pasted };
            row.add(slice(&setting, &direct, way, 1, plan.slice)?);
        }
    }
    report.loaded = setting.memory();
    for _ in 0..plan.large {
        report.large_direct.push(large_direct(&direct)?);
        report.large_json.push(large(&setting, false)?);
        report.large_stream.push(large(&setting, true)?);
    }
    report.after_large = setting.memory();
    for _ in 0..plan.progress {
        report.progress_direct.extend(direct.progress(PROGRESS_STEPS)?);
        report.progress.extend(Client::modern(&setting)?.progress(PROGRESS_STEPS)?);
    }
    report.shapes = shapes(&setting, plan)?;
    if arguments.image.is_some() {
        report.images = images(&setting, &direct, plan)?;
    }
    Ok(report)
}

/// What long messages cost by their shape, the shapes by turns: the least milliseconds from a request's first byte to its
/// refusal, and those of the bridge's processor time for a call.
fn shapes(setting: &Setting, plan: &Plan) -> Result<Vec<(&'static str, f64, f64)>, String> {
    let shapes = shapes::shapes(LONG - 1024);
    let (mut client, mut least) = (Client::modern(setting)?, vec![f64::INFINITY; shapes.len()]);
    for _ in 0..plan.shapes {
        for (least, (_, arguments)) in least.iter_mut().zip(&shapes) {
            *least = least.min(client.refused(arguments)?.as_secs_f64() * 1e3);
        }
    }
    let mut measured = Vec::new();
    for ((shape, arguments), least) in shapes.iter().zip(least) {
        let before = setting.cpu();
        for _ in 0..plan.shapes {
            client.call_with(arguments)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a mean")]
        let per_call = (setting.cpu() - before).own * 1e3 / plan.shapes as f64;
        measured.push((*shape, least, per_call));
    }
    Ok(measured)
}

/// The same calls through the bridge, with the server as a child and in a container.
fn images(setting: &Setting, direct: &Direct, plan: &Plan) -> Result<Vec<(usize, Figures, Figures)>, String> {
    let mut compared = Vec::new();
    for concurrency in IMAGE_CONCURRENCIES {
        let (mut child, mut image) = (Figures::default(), Figures::default());
        for _ in 0..plan.rounds {
            child.add(slice(setting, direct, Way::Modern, concurrency, plan.slice)?);
            image.add(slice(setting, direct, Way::Image, concurrency, 3 * plan.slice)?);
        }
        compared.push((concurrency, child, image));
    }
    Ok(compared)
}

/// Calls made one way, `concurrency` at a time, for a while.
fn slice(setting: &Setting, direct: &Direct, way: Way, concurrency: usize, time: Duration) -> Result<Figures, String> {
    let ready = Barrier::new(concurrency + 1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..concurrency)
            .map(|_| {
                scope.spawn(|| {
                    let client = match way {
                        Way::Direct => Ok(None),
                        Way::Modern => Client::modern(setting).map(Some),
                        Way::SignedIn => Client::signed_in(setting).map(Some),
                        Way::Image => Client::of_image(setting).map(Some),
                        Way::Legacy => Client::legacy(setting).map(Some),
                    };
                    ready.wait();
                    let mut client = client?;
                    until(Instant::now() + time, || match &mut client {
                        None => direct.call(TEXT),
                        Some(client) => client.call(TEXT),
                    })
                })
            })
            .collect();
        let before = (Cpu::of_this_process(), setting.cpu());
        ready.wait();
        let start = Instant::now();
        let mut figures = Figures::default();
        for worker in workers {
            figures.latencies.extend(worker.join().map_err(|_| "a client panicked".to_owned())??);
        }
        figures.seconds = start.elapsed().as_secs_f64();
        figures.driver = Cpu::of_this_process() - before.0;
        figures.bridge = setting.cpu() - before.1;
        Ok(figures)
    })
}

/// The time of each call until the deadline; the first that fails ends it.
fn until(deadline: Instant, mut call: impl FnMut() -> Result<(), String>) -> Result<Vec<Duration>, String> {
    let mut latencies = Vec::with_capacity(1 << 14);
    let mut start = Instant::now();
    while start < deadline {
        call()?;
        let end = Instant::now();
        latencies.push(end - start);
        start = end;
    }
    Ok(latencies)
}

/// Megabytes a second of a large result read from the process itself.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn large_direct(direct: &Direct) -> Result<f64, String> {
    let start = Instant::now();
    let bytes = direct.large(LARGE)?;
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// Megabytes a second of a large result through the bridge, as JSON or as an event after a progress event.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn large(setting: &Setting, stream: bool) -> Result<f64, String> {
    let mut client = Client::modern(setting)?;
    let start = Instant::now();
    let bytes = client.large(LARGE, stream)?;
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
}
