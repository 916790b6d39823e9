//! What a started process has otherwise than this one: its limits, whom the kernel ends when memory runs out, and who goes
//! first when the processors are wanted by many.

use rustix::process::{Pid, Resource, Rlimit, getpriority_process, getrlimit, prlimit, setpriority_process, setrlimit};

use crate::config::Confinement;
use crate::upstream::process::confinement::ActiveConfinement;
use crate::upstream::process::oom;

/// What this process has that its children must not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The limit on open files that children get back, if ours was raised.
    pub(super) files: Option<Rlimit>,
    /// Our own `oom_score_adj`, which children begin with.
    oom_score_adj: i16,
    /// Our own nice value, which children begin with.
    nice: i32,
}

impl Limits {
    /// Raises this process's own limit on open files as far as it may.
    pub(super) fn raise() -> Self {
        let before = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: before.maximum, maximum: before.maximum };
        let files = (raised != before && setrlimit(Resource::Nofile, raised).is_ok()).then_some(before);
        Self { files, oom_score_adj: oom::own(), nice: getpriority_process(None).unwrap_or(0) }
    }

    /// The `oom_score_adj` of a child, if it is not ours.
    pub(super) fn oom_score_adj(&self, confinement: &Confinement) -> Option<i16> {
        let value = oom::of_server(confinement.oom_score_adj, self.oom_score_adj);
        (value != self.oom_score_adj).then_some(value)
    }

    /// The nice value of a child, if it is not ours. The system takes the highest there is for any above it.
    pub(super) fn nice(&self, confinement: &Confinement) -> Option<i32> {
        (confinement.nice > 0).then(|| self.nice + i32::from(confinement.nice))
    }

    /// Limits a process that runs already, but takes longer to its first instruction than we do to get here. (One that
    /// becomes another user limits itself.)
    pub(super) fn put_on(&self, leader: Pid, confined: &ActiveConfinement, confinement: &Confinement) {
        let data = confined.by_process.data.map(|data| Rlimit { current: Some(data), maximum: Some(data) });
        for (resource, limit) in [(Resource::Nofile, self.files), (Resource::Data, data)] {
            if let Some(limit) = limit {
                let _ = prlimit(Some(leader), resource, limit);
            }
        }
        if let Some(value) = self.oom_score_adj(confinement) {
            oom::set(leader, value);
        }
        if let Some(nice) = self.nice(confinement) {
            let _ = setpriority_process(Some(leader), nice);
        }
    }
}
