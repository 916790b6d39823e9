//! How a server comes to a request: a fresh one is started, or one is taken that was started before and has been asked
//! nothing.

use std::time::Duration;

use rustix::io::Errno;
use tokio::time::Instant;

use crate::audit::{Event, EventKind};
use crate::bridge::Bridge;
use crate::bridge::error::BridgeError;
use crate::config::{Inputs, Launch, Server};
use crate::memory::Share;
use crate::telemetry::encode_for_log;
use crate::upstream::spares::Turn;
use crate::upstream::started::Started;
use crate::upstream::{Upstream, UpstreamError};

/// Whether a spare may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spare {
    /// If one waits.
    Welcome,
    /// No: one has just turned out to be dead.
    Unwanted,
}

/// How long the room of a spare that has ended is waited for, and how often it is looked for.
const MAKING_ROOM: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Whether a server could not be started for want of something that a spare has.
fn wants_room(launched: &Result<Upstream, BridgeError>) -> bool {
    matches!(launched, Err(BridgeError::Upstream(UpstreamError::Spawn(error))) if error.is_want_of_room())
}

impl Bridge {
    /// A server for one request, filled with `inputs`, owned, killed if dropped: the only way by which a token goes into
    /// one. What it says and is told is a part of `share`. The second is there if the server has spares.
    pub(super) async fn start_server(
        &self,
        server: &Server,
        inputs: &Inputs,
        share: &Share,
        choice: Spare,
    ) -> Result<(Upstream, Option<Turn>), BridgeError> {
        // First, so that a request which is refused takes none.
        let late = server.late(inputs)?;
        let (taken, turn) = match choice {
            Spare::Welcome => self.spares.take(&server.name),
            Spare::Unwanted => self.spares.pass(&server.name).map(|turn| (None, turn)),
        }
        .unzip();
        let upstream = match taken.flatten() {
            Some(started) => started.bind(&server.process, late, share),
            None => self.launch_in_room(server, inputs, share, choice).await?,
        };
        if inputs.credential.is_some() {
            let (user, server) = (Some(&inputs.user), Some(&server.name));
            self.audit.note(&Event { user, server, ..Event::of(EventKind::TokenReleased) });
        }
        Ok((upstream, turn))
    }

    /// Requests come first: one that cannot be served for want of room gets that of a spare.
    async fn launch_in_room(
        &self,
        server: &Server,
        inputs: &Inputs,
        share: &Share,
        choice: Spare,
    ) -> Result<Upstream, BridgeError> {
        // As its spares are, if they are known to work: so nobody else is shown the token.
        // One whose runtime waits always is, so that it is the same with and without spares.
        let has_gate = server.spares.is_some_and(|spares| spares.hold.is_gate());
        let as_spare = has_gate || choice == Spare::Welcome && self.spares.are_proven(&server.name);
        let launch = || self.launch(server, inputs, share, as_spare);
        let mut launched = launch();
        if wants_room(&launched) && self.spares.make_room(server).await {
            launched = launch();
            // A user is free when the directory that was theirs is gone, which is removed in the background.
            let until = Instant::now() + MAKING_ROOM;
            while wants_room(&launched) && Instant::now() < until {
                tokio::time::sleep(LOOK).await;
                launched = launch();
            }
        }
        if let Err(BridgeError::Upstream(error @ UpstreamError::Spawn(_))) = &launched {
            self.spawn_failed(server, error);
        }
        launched
    }

    fn launch(&self, server: &Server, inputs: &Inputs, share: &Share, as_spare: bool) -> Result<Upstream, BridgeError> {
        let late = server.late(inputs)?;
        let early = as_spare.then(|| self.starter.start_early(server)).flatten();
        if let Some(started) = early {
            return Ok(started?.bind(&server.process, late, share));
        }
        let started = match server.fill(inputs)? {
            Launch::Stdio(program) => Started::program(&self.starter.spawner, program)?,
            Launch::Container(container) => Started::container(&self.starter.containers, container)?,
            Launch::Http(call) => {
                let opened = self.http.open(&server.name, &call, server.process.line, share)?;
                return Ok(Upstream::Http(Box::new(opened)));
            }
        };
        Ok(started.bind(&server.process, late, share))
    }

    /// Counts a server that could not be started, and says which and why.
    pub(super) fn spawn_failed(&self, server: &Server, error: &UpstreamError) {
        self.metrics.spawn_failures.inc();
        let errno = match error {
            UpstreamError::Spawn(error) => error.errno().map(Errno::raw_os_error),
            _ => None,
        };
        let program = server.plan.program().unwrap_or_default();
        tracing::warn!(server = %server.name, program = %encode_for_log(&program), errno, "{error}");
    }
}
