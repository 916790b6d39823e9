//! What a service manager hears of the bridge, and what it hands to it. Source: `sd_notify(3)`, `sd_listen_fds(3)`.

use std::ffi::{OsString, c_int};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

/// The variable that names the socket of the service manager.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The variable that says how many microseconds may pass between two signs of life.
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";

/// The variable that says which process is waited for, if it is not whichever speaks.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The variable that says how many sockets are handed over.
const LISTEN_FDS: &str = "LISTEN_FDS";

/// The variable that says to which process they are.
const LISTEN_PID: &str = "LISTEN_PID";

/// The first socket that is handed over.
pub const FIRST_SOCKET: c_int = 3;

/// How long a service manager may be busy before it is told no more.
const MANAGER_READS: Duration = Duration::from_secs(1);

/// What a service manager is told. Of several that wait for the supervisor, the system hands over the one that is named
/// first here: reading anew comes before being ready. Source: signal(7), "Real-time signals".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The configuration is being read anew.
    Reloading,
    /// Requests are served, with the configuration as it is now.
    Ready,
    /// The bridge is to stop.
    Stopping,
    /// The bridge lives.
    Alive,
}

impl Notice {
    const ALL: [Self; 4] = [Self::Reloading, Self::Ready, Self::Stopping, Self::Alive];

    /// The number of the signal by which the worker says it to its supervisor, which is the one that is heard.
    #[must_use]
    pub fn signal(self) -> c_int {
        libc::SIGRTMIN() + 1 + self as c_int
    }

    /// The numbers of all such signals.
    #[must_use]
    pub fn signals() -> [c_int; 4] {
        Self::ALL.map(Self::signal)
    }

    /// What the signal of this number says.
    #[must_use]
    pub fn of_signal(number: c_int) -> Option<Self> {
        Self::ALL.into_iter().find(|notice| notice.signal() == number)
    }

    fn text(self) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            Self::Reloading => {
                let now = clock_gettime(ClockId::Monotonic);
                format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1_000)
            }
            Self::Stopping => "STOPPING=1".to_owned(),
            Self::Alive => "WATCHDOG=1".to_owned(),
        }
    }
}

/// What the service manager that started the bridge has said, if one did.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    /// Where it listens.
    socket: Option<OsString>,
    /// How long may pass between two signs of life, if it waits for them.
    watchdog: Option<Duration>,
    /// Of which process, if it says.
    watched: Option<u32>,
    /// How many sockets it hands over.
    pub sockets: u32,
    /// To which process.
    handed_to: Option<u32>,
}

impl ServiceManager {
    /// As these environment variables say.
    #[must_use]
    pub fn of(read: impl Fn(&str) -> Option<OsString>) -> Self {
        let number = |name| read(name)?.to_str()?.parse::<u64>().ok();
        let small = |name| number(name).and_then(|number| u32::try_from(number).ok());
        let socket = read(NOTIFY_SOCKET).filter(|name| !name.is_empty());
        let watchdog = number(WATCHDOG_USEC).filter(|&micros| micros > 0 && socket.is_some());
        Self {
            socket,
            watchdog: watchdog.map(Duration::from_micros),
            watched: small(WATCHDOG_PID),
            sockets: small(LISTEN_FDS).unwrap_or_default(),
            handed_to: small(LISTEN_PID),
        }
    }

    /// Whether it wants to be told.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// How long may pass between two signs of life of this process, if they are waited for.
    #[must_use]
    pub fn watches(&self, pid: Pid) -> Option<Duration> {
        self.watchdog.filter(|_| self.watched.is_none_or(|watched| is(pid, watched)))
    }

    /// Whether it has handed over sockets to this process, the first of which is [`FIRST_SOCKET`].
    #[must_use]
    pub fn hands_over_to(&self, pid: Pid) -> bool {
        self.sockets > 0 && self.handed_to.is_some_and(|to| is(pid, to))
    }

    /// Tells it something. It need not hear it.
    pub fn tell(&self, notice: Notice) {
        if let Err(error) = self.send(notice) {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }

    fn send(&self, notice: Notice) -> io::Result<()> {
        let Some(name) = &self.socket else { return Ok(()) };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(MANAGER_READS))?;
        socket.send_to_addr(notice.text().as_bytes(), &address).map(drop)
    }
}

fn is(pid: Pid, number: u32) -> bool {
    u32::try_from(pid.as_raw_pid()) == Ok(number)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use rustix::process::getpid;

    use super::*;

    #[test]
    fn what_is_said_by_a_signal_is_told_to_the_socket_of_either_kind() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        let at = |name: &OsStr| ServiceManager::of(|asked| (asked == NOTIFY_SOCKET).then(|| name.to_owned()));
        let by_path = at(path.as_os_str());
        for (notice, text) in
            Notice::ALL.into_iter().zip(["RELOADING=1\nMONOTONIC_USEC=", "READY=1", "STOPPING=1", "WATCHDOG=1"])
        {
            assert_eq!(Notice::of_signal(notice.signal()), Some(notice));
            by_path.tell(notice);
            let mut buffer = [0; 128];
            let length = heard.recv(&mut buffer).unwrap();
            assert!(buffer[..length].starts_with(text.as_bytes()), "{notice:?}");
        }
        let name = format!("tollbridge-test-{}", std::process::id());
        let heard = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        at(OsStr::new(&format!("@{name}"))).tell(Notice::Ready);
        let mut buffer = [0; 128];
        assert_eq!(heard.recv(&mut buffer).unwrap(), 7);
        assert!(!at(OsStr::new("")).is_there());
    }

    #[test]
    fn sockets_are_for_the_process_that_is_named_and_signs_of_life_for_who_is_there() {
        let of = |said: &[(&str, &str)]| {
            let find = |name: &str| said.iter().find(|(known, _)| *known == name);
            ServiceManager::of(|name| find(name).map(|(_, value)| OsString::from(value)))
        };
        let (own, other) = (getpid(), Pid::INIT);
        let pid = own.as_raw_pid().to_string();
        assert!(of(&[(LISTEN_FDS, "1"), (LISTEN_PID, &pid)]).hands_over_to(own));
        for said in [
            &[(LISTEN_FDS, "1"), (LISTEN_PID, "1")][..],
            &[(LISTEN_FDS, "0"), (LISTEN_PID, &pid)],
            &[(LISTEN_FDS, "-1"), (LISTEN_PID, &pid)],
            &[(LISTEN_FDS, "one"), (LISTEN_PID, &pid)],
            &[(LISTEN_FDS, "1")],
            &[(LISTEN_PID, &pid)],
        ] {
            assert!(!of(said).hands_over_to(own), "{said:?}");
        }
        assert!(of(&[(LISTEN_FDS, "2"), (LISTEN_PID, "1")]).hands_over_to(other));
        let watched = [(NOTIFY_SOCKET, "/there"), (WATCHDOG_USEC, "3000000")];
        assert_eq!(of(&watched).watches(own), Some(Duration::from_secs(3)));
        assert_eq!(of(&watched[1..]).watches(own), None);
        assert_eq!(of(&[(NOTIFY_SOCKET, "/there"), (WATCHDOG_USEC, "0")]).watches(own), None);
        let of_another = of(&[watched[0], watched[1], (WATCHDOG_PID, "1")]);
        assert_eq!((of_another.watches(own), of_another.watches(other)), (None, Some(Duration::from_secs(3))));
    }
}
