//! Whom the kernel ends when memory runs out: a server rather than the bridge, with which every request would end.
//! Source: `proc_pid_oom_score_adj(5)`.

use std::fs;

use rustix::process::Pid;

/// What the bridge's own value is lowered to.
const OF_BRIDGE: i16 = -500;

/// How much more than the bridge a server has at least, where the bridge's own cannot be lowered.
const DISTANCE: i16 = 100;

/// The most that there is.
pub const MOST: i16 = 1000;

/// The value of this process, which what it starts begins with.
#[must_use]
pub fn own() -> i16 {
    let written = fs::read_to_string("/proc/self/oom_score_adj").ok();
    written.and_then(|written| written.trim().parse().ok()).unwrap_or_default()
}

/// Lowers the value of this process, if it may: to do so takes `CAP_SYS_RESOURCE`, to raise it again takes nothing.
pub fn protect() {
    if own() > OF_BRIDGE {
        set_own(OF_BRIDGE);
    }
}

/// Sets the value of this process, if it may.
pub(super) fn set_own(value: i16) {
    let _ = fs::write("/proc/self/oom_score_adj", value.to_string());
}

/// Sets the value of a process that was just started. What it starts has the same.
pub(super) fn set(process: Pid, value: i16) {
    // It may have ended already, or be of a program that nobody may look into.
    let _ = fs::write(format!("/proc/{}/oom_score_adj", process.as_raw_pid()), value.to_string());
}

/// The value of a process for which this is configured, started by one with the value `own`.
#[must_use]
pub fn of_server(configured: u16, own: i16) -> i16 {
    let configured = i16::try_from(configured).unwrap_or(MOST);
    let least = if configured > 0 { own.saturating_add(DISTANCE) } else { own };
    configured.max(least).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ended_before_the_bridge_whatever_the_bridges_own_value_is() {
        for (configured, own, expected) in
            [(500, -500, 500), (500, 0, 500), (500, 450, 550), (500, 950, 1000), (1, 0, 100), (0, -500, 0), (0, 7, 7)]
        {
            assert_eq!(of_server(configured, own), expected, "{configured} {own}");
        }
    }
}
