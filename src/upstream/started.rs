//! A server that has been started here and is in no conversation yet.

use std::task::{Context, Poll};

use super::container::{Containers, StartedContainer};
use super::process::group::{Graces, Spawner};
use super::stdio::StdioServer;
use super::stdio::started::{StartedProgram, UnaskedOutput};
use super::{Upstream, UpstreamError};
use crate::config::{ContainerLaunch, ContainerPlan, Late, ProcessLimits, StdioLaunch};
use crate::memory::Share;

/// A started program or container. It belongs to nobody until it is bound, which consumes it: it serves once.
pub enum Started {
    /// A program.
    Program(StartedProgram),
    /// A container.
    Container(StartedContainer),
}

impl Started {
    /// Starts a program.
    ///
    /// # Errors
    /// If the system does not start it.
    pub fn program(spawner: &Spawner, launch: StdioLaunch) -> Result<Self, UpstreamError> {
        StartedProgram::start(spawner, launch).map(Self::Program)
    }

    /// Starts a program so that it waits before its first instruction.
    ///
    /// # Errors
    /// If the system does not start what waits in its place.
    pub fn held_program(spawner: &Spawner, launch: StdioLaunch) -> Result<Self, UpstreamError> {
        StartedProgram::start_held(spawner, launch).map(Self::Program)
    }

    /// Starts a program whose runtime waits, as its `launch` says.
    ///
    /// # Errors
    /// If the system does not start it.
    pub fn gated_program(spawner: &Spawner, launch: StdioLaunch) -> Result<Self, UpstreamError> {
        StartedProgram::start_gated(spawner, launch).map(Self::Program)
    }

    /// Starts a container so that it waits before the first instruction of its program; nothing if it is not known what that
    /// is.
    ///
    /// # Errors
    /// As [`Started::container`].
    pub fn held_container(
        containers: &Containers,
        plan: &ContainerPlan,
        launch: ContainerLaunch,
    ) -> Option<Result<Self, UpstreamError>> {
        Some(containers.start_held(plan, launch)?.map(Self::Container))
    }

    /// Starts a container.
    ///
    /// # Errors
    /// If the system does not start the engine's client. What the engine says comes later, as the end of the server.
    pub fn container(containers: &Containers, launch: ContainerLaunch) -> Result<Self, UpstreamError> {
        containers.start(launch).map(Self::Container)
    }

    /// Opens the conversation of one request, and gives `late` to a server that waits for it. What is secret in that must
    /// not be seen in its log lines; what is read and queued is a part of `share`.
    #[must_use]
    pub fn bind(self, limits: &ProcessLimits, late: Late, share: &Share) -> Upstream {
        match self {
            Self::Program(program) => Upstream::Stdio(Box::new(StdioServer::of(program, limits, late, share))),
            Self::Container(container) => Upstream::Container(Box::new(container.bind(limits, late, share))),
        }
    }

    /// Says whether it is a spare, or serves a request.
    pub fn set_spare(&mut self, is_spare: bool) {
        self.process().set_spare(is_spare);
    }

    /// Whether it has ended, by a look at this moment; of a container, its client.
    pub fn is_over(&mut self) -> bool {
        self.process().is_over()
    }

    /// What its gate has said of how far it came, if it has one.
    pub fn said_by_gate(&mut self) -> Option<String> {
        self.process().said_by_gate()
    }

    /// The processor time that its processes here have used, in clock ticks.
    pub fn processor_time(&mut self) -> u64 {
        self.process().processor_time()
    }

    /// Takes in what it writes. Ready when it cannot be of use any more. One task is woken: the one that asked last.
    pub fn poll_useless(&mut self, task: &mut Context<'_>, output: &mut UnaskedOutput) -> Poll<()> {
        self.process().poll_useless(task, output)
    }

    fn process(&mut self) -> &mut StartedProgram {
        match self {
            Self::Program(program) => program,
            Self::Container(container) => &mut container.client,
        }
    }

    /// Ends it and waits until nothing of it is left.
    pub async fn close(self, graces: Graces) {
        match self {
            Self::Program(program) => drop(program.close(graces).await),
            Self::Container(container) => Box::pin(container.close(graces)).await,
        }
    }
}
