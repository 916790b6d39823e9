//! What spares are worth (`tollbridge doctor --spares`): one of each server is started, watched and ended.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::spare::{LOOK, Quiet};
use super::{AT_ONCE, Starter};
use crate::config::{Config, Hold, Server};
use crate::sys;
use crate::telemetry::encode_for_log;
use crate::upstream::process::host_checks::{Finding, Verdict};
use crate::upstream::started::Started;
use crate::upstream::stdio::started::UnaskedOutput;

/// For how long one is watched that has come to rest: one that leaves when nobody talks to it has left by then.
const WATCHED: Duration = Duration::from_secs(5);

/// How much is shown of what a gate says, characters.
const PLACE: usize = 200;

/// How far a spare came.
enum Course {
    /// It came to rest after this time, with so much of the processor's, and stayed. What its gate said, if it has one.
    Rests { after: Duration, used: Duration, said: Option<String> },
    /// It ended after this time, closed its stdout or wrote too much.
    Ends { after: Duration },
    /// It still works when it should have started.
    Works,
}

/// What a spare is worth to each server that has them, as far as one shows it.
pub async fn findings(config: &Config, starter: &Starter) -> Vec<Finding> {
    let mut findings = Vec::new();
    let with_spares = config.servers.values().filter_map(|server| Some((server, server.spares.as_ref()?)));
    for (server, spares) in with_spares {
        if let Err(error) = starter.prepare(server).await {
            findings.push(Finding { verdict: Verdict::Missing, text: format!("spares of {}: {error}", server.name) });
            continue;
        }
        let (verdict, text) = match starter.start_early(server) {
            None => (Verdict::Missing, "it cannot be started before a request".to_owned()),
            Some(Err(error)) => (Verdict::Missing, error.to_string()),
            Some(Ok(mut spare)) => {
                let course = watch(&mut spare, server).await;
                spare.close(AT_ONCE).await;
                describe(&course, spares.hold)
            }
        };
        findings.push(Finding { verdict, text: format!("spares of {}: {text}", server.name) });
    }
    findings
}

async fn watch(spare: &mut Started, server: &Server) -> Course {
    let (began, mut output, mut quiet, mut rests) = (Instant::now(), UnaskedOutput::default(), Quiet::default(), None);
    loop {
        if timeout(LOOK, poll_fn(|task| spare.poll_useless(task, &mut output))).await.is_ok() {
            return Course::Ends { after: began.elapsed() };
        }
        let (used, after) = (spare.processor_time(), began.elapsed());
        if rests.is_none() && quiet.look(used) {
            // It has been at rest since before the first of these looks.
            rests = Some((after.saturating_sub(Quiet::TIME), used));
        }
        match rests {
            Some((after, used)) if began.elapsed() >= after + WATCHED => {
                let ticks = u32::try_from(sys::ticks_per_second()).unwrap_or(u32::MAX);
                let used = Duration::from_secs(used) / ticks.max(1);
                return Course::Rests { after, used, said: spare.said_by_gate() };
            }
            None if after >= server.process.start_timeout => return Course::Works,
            Some(_) | None => {}
        }
    }
}

fn describe(course: &Course, hold: Hold) -> (Verdict, String) {
    match (course, hold) {
        (Course::Rests { .. }, Hold::Start) => (
            Verdict::Holds,
            "each waits before its program's first instruction: what takes its time after that is still the request's"
                .to_owned(),
        ),
        (Course::Rests { said: Some(said), .. }, _) if said.is_empty() => {
            let runtime = if hold == Hold::Node { "Node.js" } else { "Python" };
            let text = format!(
                "its program does not wait for what is its user's, and gets nothing of it: it is not one on {runtime}, or is told to \
                 ignore its environment; write `\"hold\": \"start\"`"
            );
            (Verdict::Missing, text)
        }
        (Course::Rests { after, used, said }, _) => {
            let place = said.as_deref().and_then(|said| said.lines().find_map(|line| line.strip_prefix("waits at ")));
            let waits = match place {
                Some(place) => format!("at {}", encode_for_log(&place.chars().take(PLACE).collect::<String>())),
                None => "for its client's first message".to_owned(),
            };
            let copies = place.is_some_and(|place| place.starts_with("a copy ")) && hold == Hold::Python;
            let hint = if copies { "; see `environmentCopies`" } else { "" };
            let (after, used) = (after.as_secs_f64(), used.as_secs_f64());
            let text = format!(
                "each waits {waits}, with {after:.1} s of its start done ({used:.1} s of processor time){hint}"
            );
            (Verdict::Holds, text)
        }
        (Course::Ends { after }, _) => (
            Verdict::Missing,
            format!(
                "one ended after {:.1} s, or closed its stdout or wrote too much: they are of no use to this server",
                after.as_secs_f64()
            ),
        ),
        (Course::Works, _) => {
            (Verdict::Weak, "one still used the processor after `startTimeout`: it does not come to rest".to_owned())
        }
    }
}
