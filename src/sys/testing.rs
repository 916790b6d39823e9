//! A place in which the kernel really has no memory for another process.

use std::ffi::CStr;

use rustix::io::Errno;
use rustix::process::{WaitOptions, waitpid};

use super::{CStrings, Program, Signals, can_clone, spawn};

/// Acts in a thread whose children would be of a pid namespace that has lost its first process, which the kernel answers
/// with `ENOMEM`. The thread's descriptors are its own, so that they can be counted. Does nothing unless we are root.
pub(crate) fn where_nothing_can_be_started(act: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: both change this thread alone, and no memory. It shares no descriptor with others that they use.
            if unsafe { libc::unshare(libc::CLONE_NEWPID | libc::CLONE_FILES) } == -1 {
                return;
            }
            let first = start(None).expect("the first process of the namespace");
            waitpid(Some(first), WaitOptions::empty()).expect("it is our child");
            act();
        });
    });
}

/// How many descriptors this thread has open.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/thread-self/fd").expect("this is Linux").count()
}

fn start(cgroup: Option<&std::fs::File>) -> Result<rustix::process::Pid, Errno> {
    let strings = |text: &[u8]| {
        let mut strings = CStrings::with_capacity(1, text.len());
        strings.push(&[text]).expect("no NUL");
        strings
    };
    let path: &CStr = c"/bin/true";
    let (args, env, defaults) = (strings(b"true"), strings(b"A=b"), Signals::none());
    let program = Program { path, args: &args, env: &env, cwd: None, files: &[], defaults: &defaults };
    spawn(&program, cgroup.map(std::os::fd::AsFd::as_fd))
}

#[test]
fn what_the_kernel_says_is_what_is_answered() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("this is Linux");
    let of_groups = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    where_nothing_can_be_started(|| {
        let group = of_groups.filter(|_| can_clone()).map(|path| std::fs::File::open(path).expect("root may"));
        let before = descriptors();
        for _ in 0..3 {
            assert_eq!(start(None), Err(Errno::NOMEM));
            if group.is_some() {
                assert_eq!(start(group.as_ref()), Err(Errno::NOMEM));
            }
        }
        assert_eq!(descriptors(), before);
    });
}
