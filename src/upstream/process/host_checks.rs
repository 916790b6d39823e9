//! What this host guarantees for the processes of requests (`tollbridge doctor`, and the log at the start), in sentences
//! for people.

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

use super::cgroup::{Cgroups, Limits};
use super::instance::resources::InstanceResources;
use super::oom;
use crate::config::{Config, Confinement, Plan, Server};

/// Something that holds, or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How well.
    pub verdict: Verdict,
    /// What.
    pub text: String,
}

/// How well something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As well as it can.
    Holds,
    /// Less well than on another host.
    Weak,
    /// It was asked for, and does not.
    Missing,
    /// It was asked for, and without it nothing is to be started.
    Impossible,
}

/// Everything that there is to know about the guarantees on this host, for these servers.
#[must_use]
pub fn findings(config: &Config, resources: &InstanceResources) -> Vec<Finding> {
    let limits = resources.cgroup.as_deref().map(|instance| Cgroups::of_instance(instance).limits()).ok();
    let programs: Vec<_> = config.servers.values().filter_map(|server| program(server)).collect();
    let mut findings = vec![trees(resources), directories(resources), out_of_memory(oom::own())];
    findings.extend(resource_limits(&programs, limits));
    findings.extend(users(&programs, may_change_user()));
    findings
}

/// A server's name, and what it is confined to.
type Program<'a> = (&'a str, Confinement);

fn program(server: &Server) -> Option<Program<'_>> {
    match &server.plan {
        Plan::Stdio(plan) => Some((server.name.as_str(), plan.confinement)),
        // A container is confined by its engine.
        Plan::Container(_) | Plan::Http(_) => None,
    }
}

/// The names of those of which it is true.
fn names(programs: &[Program<'_>], is: impl Fn(&Confinement) -> bool) -> Option<String> {
    let names: Vec<_> = programs.iter().filter(|(_, confinement)| is(confinement)).map(|&(name, _)| name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn trees(resources: &InstanceResources) -> Finding {
    match &resources.cgroup {
        Ok(_) => Finding {
            verdict: Verdict::Holds,
            text:
                "process trees: each request has a control group, which its server joins before it starts and which is \
                   killed as one; a server that runs as another user (`runAs`) cannot leave it; a process of any other server that leaves it is \
                   recognised by a tag that it inherits, and is ended moments after its request"
                    .into(),
        },
        Err(why) => Finding {
            verdict: Verdict::Weak,
            text: format!(
                "process trees: each request has a process group; a process that leaves it is recognised by a tag that it \
                 inherits, and is ended moments after its request (no control groups: {why})"
            ),
        },
    }
}

fn directories(resources: &InstanceResources) -> Finding {
    match &resources.directory {
        Ok(path) => Finding {
            verdict: Verdict::Holds,
            text: format!(
                "directories: those of requests are made in {}, watched for their size, and removed after them",
                path.display()
            ),
        },
        Err(why) => Finding {
            verdict: Verdict::Missing,
            text: format!("directories: requests get none of their own, because none can be made ({why})"),
        },
    }
}

/// `own` is the bridge's.
fn out_of_memory(own: i16) -> Finding {
    let text = format!(
        "out of memory: the kernel ends servers (`oomScoreAdj`) before the bridge, whose oom_score_adj is {own}"
    );
    if own < 0 {
        return Finding { verdict: Verdict::Holds, text };
    }
    let mend = "but may end a large bridge before a small server: the bridge may not lower it; give it \
                CAP_SYS_RESOURCE, or `OOMScoreAdjust=-500` in its unit";
    Finding { verdict: Verdict::Weak, text: format!("{text}, {mend}") }
}

/// Whether a server is to be limited in something.
type Wanted = fn(&Confinement) -> bool;

fn resource_limits(programs: &[Program<'_>], limits: Option<Limits>) -> Vec<Finding> {
    let limits = limits.unwrap_or_default();
    let mut findings = Vec::new();
    let mut say = |names: Option<String>, verdict, name, text: &str| {
        findings.extend(names.map(|names| Finding { verdict, text: format!("`{name}` of {names}: {text}") }));
    };
    let wants: [(_, _, Wanted); 3] = [
        ("memory", limits.memory, |c| c.memory.is_some()),
        ("cpus", limits.cpus, |c| c.cpus.is_some()),
        ("pids", limits.pids, |c| c.pids.is_some()),
    ];
    for (name, _, wanted) in wants.into_iter().filter(|(_, has, _)| *has) {
        let kept = "kept by the control group of each request";
        say(names(programs, |c| wanted(c) && c.run_as.is_some()), Verdict::Holds, name, kept);
        let text = format!("{kept}; the server is the bridge's own user, who may lift it: set `runAs`");
        say(names(programs, |c| wanted(c) && c.run_as.is_none()), Verdict::Weak, name, &text);
    }
    if !limits.memory {
        let text = "limits the data of each process by itself, not of a request's together (RLIMIT_DATA)";
        say(names(programs, |c| c.memory.is_some()), Verdict::Weak, "memory", text);
    }
    if !limits.cpus {
        let text = "not kept here: only a control group can";
        say(names(programs, |c| c.cpus.is_some()), Verdict::Missing, "cpus", text);
    }
    if limits.pids {
        return findings;
    }
    let own = |c: &Confinement| c.run_as.is_some_and(|users| users.first != users.last);
    let shared = |c: &Confinement| c.run_as.is_some() && !own(c);
    let exact = names(programs, |c| c.pids.is_some() && own(c));
    say(exact, Verdict::Holds, "pids", "kept by the user that each request has for itself (RLIMIT_NPROC)");
    let together = names(programs, |c| c.pids.is_some() && shared(c));
    let text = "counts every process of that user, of all requests together (RLIMIT_NPROC): set a range in `runAs`";
    say(together, Verdict::Weak, "pids", text);
    let none = names(programs, |c| c.pids.is_some() && c.run_as.is_none());
    let text = "not kept here: without control groups only `runAs` can";
    say(none, Verdict::Missing, "pids", text);
    findings
}

fn users(programs: &[Program<'_>], may_change: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(names) = names(programs, |c| c.run_as.is_some()) {
        findings.push(if may_change {
            Finding {
                verdict: Verdict::Holds,
                text: format!("users: {names} run as others, with no privilege and no way to gain any"),
            }
        } else {
            let text = format!(
                "users: {names} are to run as others (`runAs`), for which the bridge must be root or have CAP_SETUID, \
                 CAP_SETGID, CAP_KILL and CAP_CHOWN"
            );
            Finding { verdict: Verdict::Impossible, text }
        });
    }
    if let Some(names) = names(programs, |c| c.run_as.is_none()) {
        let what = if geteuid().is_root() {
            "run as root, who may read and change everything on this host: set `runAs`"
        } else {
            "run as the bridge's own user: its memory and environment are closed to them, its files are not"
        };
        findings.push(Finding { verdict: Verdict::Weak, text: format!("users: {names} {what}") });
    }
    findings
}

/// Whether this process may start others as another user, and end them.
fn may_change_user() -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL | CapabilitySet::CHOWN;
    capabilities(None).is_ok_and(|own| own.effective.contains(needed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunAs;

    const EVERYTHING: Limits = Limits { memory: true, pids: true, cpus: true };

    fn asking(run_as: Option<RunAs>) -> [Program<'static>; 1] {
        let (memory, cpus, pids) = (Some(1 << 30), Some(1.0), Some(10));
        [("s", Confinement { memory, cpus, pids, run_as, private_directory: None, oom_score_adj: 500, nice: 5 })]
    }

    fn verdicts(findings: &[Finding]) -> Vec<Verdict> {
        findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn a_control_group_keeps_every_limit() {
        use Verdict::{Holds, Weak};
        let other = Some(RunAs { first: 9, last: 9, gid: None });
        assert_eq!(verdicts(&resource_limits(&asking(other), Some(EVERYTHING))), [Holds, Holds, Holds]);
        assert_eq!(
            verdicts(&resource_limits(&asking(None), Some(EVERYTHING))),
            [Weak, Weak, Weak],
            "who may lift them"
        );
        assert!(
            resource_limits(&[("s", Confinement::default())], Some(EVERYTHING)).is_empty(),
            "nothing was asked for"
        );
    }

    #[test]
    fn without_one_it_is_said_which_limits_are_not_kept() {
        use Verdict::{Holds, Missing, Weak};
        let (one, many) = (RunAs { first: 9, last: 9, gid: None }, RunAs { first: 9, last: 99, gid: None });
        assert_eq!(verdicts(&resource_limits(&asking(None), None)), [Weak, Missing, Missing]);
        assert_eq!(verdicts(&resource_limits(&asking(Some(one)), None)), [Weak, Missing, Weak]);
        assert_eq!(verdicts(&resource_limits(&asking(Some(many)), Some(Limits::default()))), [Weak, Missing, Holds]);
    }

    #[test]
    fn a_bridge_that_may_not_go_below_the_others_says_so() {
        assert_eq!(out_of_memory(-500).verdict, Verdict::Holds);
        assert_eq!(out_of_memory(0).verdict, Verdict::Weak);
        assert!(out_of_memory(0).text.contains("OOMScoreAdjust"));
    }

    #[test]
    fn another_user_cannot_be_had_without_privilege() {
        let other = Some(RunAs { first: 9, last: 9, gid: None });
        assert_eq!(verdicts(&users(&asking(other), true)), [Verdict::Holds]);
        assert_eq!(verdicts(&users(&asking(other), false)), [Verdict::Impossible]);
        assert_eq!(verdicts(&users(&asking(None), true)), [Verdict::Weak]);
    }
}
