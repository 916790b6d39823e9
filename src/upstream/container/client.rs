//! The client of a container engine, called for anything but `run`: bounded in time and in what it may say.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use super::{INSTANCE_LABEL, Instance};
use crate::config::{Confinement, Engine, StdioLaunch};
use crate::secret::Secret;
use crate::upstream::process::SpawnError;
use crate::upstream::process::group::{Exit, Graces, Spawner};

/// How long a question may take; an engine that takes longer hangs.
const QUESTION: Duration = Duration::from_secs(5);
/// How long it may take to remove what one call names.
const REMOVAL: Duration = Duration::from_secs(15);
/// How long a client that has answered, or was killed, may take to be gone.
const LAST: Duration = Duration::from_secs(5);
/// The most that an answer may be, bytes.
pub(super) const ANSWER: u64 = 1 << 20;
/// The most containers in one call: it takes some fifty of them at a time.
pub(super) const AT_ONCE: usize = 128;
/// Has a list say the name of each container, and nothing else.
pub(super) const NAMES: &str = "--format={{.Names}}";

/// The names in such a list. One without a name is gone: where two have removed a container at once, as `--rm` and we
/// may, dockerd can list what is left of its record until it is started anew, and knows no such container otherwise.
pub(super) fn named(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|name| !name.is_empty())
}

/// Why the engine did not do as told.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("its client cannot be started: {0}")]
    Spawn(#[from] SpawnError),
    #[error("it does not answer in time")]
    TimedOut,
    #[error("its client failed")]
    Failed,
}

/// One engine's client.
pub(super) struct Client {
    engine: Arc<Engine>,
    spawner: Spawner,
}

impl Client {
    pub(super) fn new(engine: Arc<Engine>, spawner: Spawner) -> Self {
        Self { engine, spawner }
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The names of this instance's containers.
    pub(super) async fn own(&self) -> Result<Vec<String>, CallError> {
        let filter = format!("--filter=label={INSTANCE_LABEL}={}", Instance::own());
        let answer = self.call(&["ps", "--all", &filter, NAMES], QUESTION).await?;
        Ok(named(&answer.said).map(str::to_owned).collect())
    }

    /// The ids of all containers of all instances, each with the label that says of which.
    pub(super) async fn labelled(&self) -> Result<Vec<(String, String)>, CallError> {
        let filter = format!("--filter=label={INSTANCE_LABEL}");
        let ids = self.call(&["ps", "--all", "--quiet", "--no-trunc", &filter], QUESTION).await?.said;
        let ids: Vec<&str> = ids.lines().collect();
        let format = format!("--format={{{{.Id}}}} {{{{index .Config.Labels \"{INSTANCE_LABEL}\"}}}}");
        let mut labelled = Vec::new();
        for ids in ids.chunks(AT_ONCE) {
            let arguments = [&["container", "inspect", &format], ids].concat();
            // It fails if one is gone by now, and tells the others all the same.
            let answer = self.ask(&arguments, QUESTION).await?;
            let pairs = answer.said.lines().filter_map(|line| line.split_once(' '));
            labelled.extend(pairs.map(|(id, label)| (id.to_owned(), label.to_owned())));
        }
        Ok(labelled)
    }

    /// What the engine knows of an image: JSON, a list of one, which is what both engines say if they are asked for no format.
    pub(super) async fn image(&self, name: &str) -> Result<String, CallError> {
        Ok(self.call(&["image", "inspect", name], QUESTION).await?.said)
    }

    /// Removes containers by force, with the volumes that are theirs alone. One that is gone already is no failure.
    pub(super) async fn remove(&self, containers: &[String]) -> Result<(), CallError> {
        for some in containers.chunks(AT_ONCE) {
            let mut arguments = vec!["rm", "--force", "--volumes"];
            arguments.extend(some.iter().map(String::as_str));
            self.ask(&arguments, REMOVAL).await?;
        }
        Ok(())
    }

    async fn call(&self, arguments: &[&str], limit: Duration) -> Result<Answer, CallError> {
        let answer = self.ask(arguments, limit).await?;
        if answer.exit == Exit::Code(0) { Ok(answer) } else { Err(CallError::Failed) }
    }

    async fn ask(&self, arguments: &[&str], limit: Duration) -> Result<Answer, CallError> {
        let launch = StdioLaunch {
            program: self.engine.program.clone(),
            args: self
                .engine
                .args
                .iter()
                .map(String::as_str)
                .chain(arguments.iter().copied())
                .map(Into::into)
                .collect(),
            env: self.engine.env.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone()))).collect(),
            token_files: Vec::new(),
            cwd: None,
            confinement: Confinement::default(),
        };
        let (mut group, pipes) = self.spawner.spawn(&launch)?;
        drop(pipes.stdin);
        let answer = timeout(limit, async {
            let (said, _) = tokio::join!(read(pipes.stdout), read(pipes.stderr));
            Answer { said, exit: group.exited().await }
        });
        let answer = answer.await.map_err(|_| CallError::TimedOut);
        // Dropped at the end of its time, it is left to the sweep.
        let _ = timeout(LAST, group.close(Graces { eof: Duration::ZERO, term: Duration::ZERO })).await;
        answer
    }
}

struct Answer {
    said: String,
    exit: Exit,
}

async fn read(pipe: impl AsyncRead + Unpin) -> String {
    let mut said = Vec::new();
    let mut pipe = pipe.take(ANSWER);
    let _ = pipe.read_to_end(&mut said).await;
    // What is too much is let go, so that the client can end.
    let _ = tokio::io::copy(&mut pipe.into_inner(), &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_a_name_is_gone() {
        assert_eq!(
            named("tollbridge-1-a\n\ntollbridge-1-b\n").collect::<Vec<_>>(),
            ["tollbridge-1-a", "tollbridge-1-b"]
        );
        assert_eq!(named("\n").count(), 0);
    }
}
