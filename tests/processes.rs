//! What servers leave behind, and that nothing of it stays.

mod processes {
    pub mod marked;
}

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use processes::marked::Marked;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::runtime::Runtime;
use tollbridge::config::StdioLaunch;
use tollbridge::lifecycle::Lifecycle;
use tollbridge::secret::Secret;
use tollbridge::upstream::group::{Exit, Graces, Group, Pipes, SpawnError, Spawner};
use tollbridge::upstream::orphans::Strangers;

/// Children belong to a process, so all tests here share one spawner, and the runtime that it sweeps in.
static SHARED: LazyLock<(Runtime, Spawner)> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let spawner = runtime.block_on(async { Spawner::new(&Lifecycle::default(), Strangers::Spare).unwrap() });
    (runtime, spawner)
});

const ALL: [&str; 4] = ["inside", "left", "daemon", "bare"];
const PATIENT: Graces = Graces { eof: Duration::from_secs(30), term: Duration::from_secs(30) };
const HASTY: Graces = Graces { eof: Duration::from_millis(10), term: Duration::from_millis(10) };

fn run(test: impl Future<Output = ()>) {
    SHARED.0.block_on(test);
}

fn launch(program: impl Into<PathBuf>, args: &[&str], env: &[(&str, &str)]) -> StdioLaunch {
    StdioLaunch {
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned()))).collect(),
        cwd: None,
    }
}

/// A server with everything in place that it holds.
async fn escaper(marked: &Marked, role: &str, held: &[&str]) -> (Group, Pipes) {
    let args = [&[marked.marker(), role], held].concat();
    let (group, mut pipes) = SHARED.1.spawn(&launch(processes::marked::example("escaper"), &args, &[])).unwrap();
    pipes.stdin.write_all(b"go\n").await.unwrap();
    let mut line = String::new();
    BufReader::new(&mut pipes.stdout).read_line(&mut line).await.unwrap();
    assert_eq!(line, "started\n");
    marked.wait_for(&[&[role], held].concat());
    (group, pipes)
}

#[test]
fn closing_a_group_leaves_nothing_of_a_server_that_ignores_everything() {
    run(async {
        let marked = Marked::new();
        let (group, pipes) = escaper(&marked, "stubborn", &ALL).await;
        drop(pipes);
        assert_eq!(group.close(HASTY).await, Exit::Signal(libc::SIGKILL));
        marked.wait_until_gone();
    });
}

#[test]
fn closing_a_group_leaves_nothing_of_a_server_that_ends_at_eof() {
    run(async {
        let marked = Marked::new();
        let (group, pipes) = escaper(&marked, "polite", &ALL).await;
        drop(pipes);
        assert_eq!(group.close(PATIENT).await, Exit::Code(7));
        marked.wait_until_gone();
    });
}

#[test]
fn dropping_a_group_leaves_nothing() {
    run(async {
        let marked = Marked::new();
        drop(escaper(&marked, "stubborn", &ALL).await);
        marked.wait_until_gone();
    });
}
