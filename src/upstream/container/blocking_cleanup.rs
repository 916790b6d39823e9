//! Removes the containers of one instance when its worker no longer can: for the supervisor, and for a worker that has
//! lost its supervisor. It blocks: one thread, no runtime, nothing but the engine's client.

use std::io::{self, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionbio;
use rustix::process::Pid;

use super::INSTANCE_LABEL;
use super::client::{ANSWER, AT_ONCE, NAMES, named};
use crate::config::Engine;
use crate::upstream::process::orphans;

/// How long one call of a client may take.
const CALL: Duration = Duration::from_secs(5);
/// How long a client that was killed may take to be gone.
const KILLED: Duration = Duration::from_secs(1);
/// How often to check whether a call has ended.
const POLL: Duration = Duration::from_millis(5);
/// The pause between two rounds.
const ROUND: Duration = Duration::from_millis(150);
/// How long an engine may not answer before it is given up.
const SILENCE: Duration = Duration::from_secs(10);

/// An engine whose containers are not known to be gone.
struct UnclearedEngine<'a> {
    engine: &'a Engine,
    /// How many more empty lists are needed.
    lists: u32,
    /// When it last answered.
    answered: Instant,
}

/// Removes every container of this instance, and returns whether none is left: `lists` lists in a row were empty, and no client is left that could make one. Gives up at the deadline, or when no engine answers any more. An
/// engine that hangs does not keep the others from being cleared.
#[must_use]
pub fn remove_all(
    engines: &[Engine],
    instance: &str,
    lists: u32,
    deadline: Instant,
    mut clients_left: impl FnMut() -> bool,
) -> bool {
    let answered = Instant::now();
    let mut engines_left: Vec<_> = engines.iter().map(|engine| UnclearedEngine { engine, lists, answered }).collect();
    loop {
        let may_grow = clients_left();
        for engine_left in &mut engines_left {
            let Some(found) = remove_some(engine_left.engine, instance, deadline) else { continue };
            engine_left.answered = Instant::now();
            if found > 0 {
                engine_left.lists = lists;
            } else if !may_grow {
                engine_left.lists -= 1;
            }
        }
        engines_left.retain(|engine_left| engine_left.lists > 0);
        let is_silent = engines_left.iter().all(|engine_left| engine_left.answered.elapsed() > SILENCE);
        if is_silent || Instant::now() >= deadline {
            return engines_left.is_empty();
        }
        sleep(ROUND);
    }
}

/// Removes what there is, and tells how many that was; `None` if the engine does not say.
fn remove_some(engine: &Engine, instance: &str, deadline: Instant) -> Option<usize> {
    let filter = format!("--filter=label={INSTANCE_LABEL}={instance}");
    let list = call(engine, &["ps", "--all", &filter, NAMES], deadline)?;
    let names: Vec<&str> = named(&list).collect();
    for some in names.chunks(AT_ONCE) {
        // What could not be removed is there at the next list.
        let _ = call(engine, &[&["rm", "--force", "--volumes"], some].concat(), deadline);
    }
    Some(names.len())
}

/// What the client says to these arguments, if it succeeds in time.
pub(super) fn call(engine: &Engine, arguments: &[&str], deadline: Instant) -> Option<String> {
    let deadline = deadline.min(Instant::now() + CALL);
    let mut command = Command::new(&engine.program);
    command.args(&engine.args).args(arguments).env_clear();
    command.envs(engine.env.iter().map(|(name, value)| (name, value)));
    let mut client = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    orphans::tag_client(Pid::from_child(&client));
    let mut stdout = client.stdout.take()?;
    ioctl_fionbio(&stdout, true).ok()?;
    let mut said = Vec::new();
    let mut has_ended = |client: &mut Child| {
        let ended = client.try_wait();
        // All that it wrote is there once it has ended; whoever else holds the pipe open is not waited for.
        let _ = stdout.by_ref().take(ANSWER).read_to_end(&mut said);
        ended
    };
    let status = ended_by(deadline, || has_ended(&mut client));
    if status.is_none() {
        let _ = client.kill();
        // What does not end even so is the system's to end.
        ended_by(Instant::now() + KILLED, || has_ended(&mut client));
    }
    status.filter(ExitStatus::success).and_then(|_| String::from_utf8(said).ok())
}

/// How a process ended, if it does by then.
fn ended_by(deadline: Instant, mut ended: impl FnMut() -> io::Result<Option<ExitStatus>>) -> Option<ExitStatus> {
    loop {
        let is_late = Instant::now() >= deadline;
        match ended() {
            Ok(None) if !is_late => sleep(POLL),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
}
