//! Where the worker's time goes: its system calls per request, counted by strace.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client::Client;
use crate::setting::Setting;
use crate::{Arguments, TEXT};

/// Calls that are counted.
const CALLS: u32 = 500;
/// How long strace may take to attach to the worker.
const ATTACH: Duration = Duration::from_secs(1);

/// A table of system calls per request, made by one modern client.
pub(crate) fn count(arguments: &Arguments) -> Result<String, String> {
    let setting = Setting::start(&arguments.tollbridge, &arguments.tiny, &arguments.redis, None)?;
    let mut client = Client::modern(&setting)?;
    for _ in 0..20 {
        client.call(TEXT)?; // warm
    }
    let mut strace = attach(setting.worker())?;
    std::thread::sleep(ATTACH);
    for _ in 0..CALLS {
        client.call(TEXT)?;
    }
    let _ = Command::new("kill").args(["-INT", &strace.id().to_string()]).status();
    let mut counted = String::new();
    if let Some(mut stderr) = strace.stderr.take() {
        stderr.read_to_string(&mut counted).map_err(|error| error.to_string())?;
    }
    let _ = strace.wait();
    Ok(table(&counted))
}

/// strace on every thread of the worker, not on what it starts.
fn attach(worker: u32) -> Result<Child, String> {
    let mut command = Command::new("strace");
    command.arg("-c").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let threads = std::fs::read_dir(format!("/proc/{worker}/task")).map_err(|error| error.to_string())?;
    for thread in threads.flatten() {
        command.arg("-p").arg(thread.file_name());
    }
    command.spawn().map_err(|error| format!("strace: {error}"))
}

/// From `% time, seconds, usecs/call, calls, [errors,] syscall` to calls per request.
fn table(counted: &str) -> String {
    let rows = counted.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let calls: f64 = fields.get(3)?.parse().ok()?;
        let name =
            fields.last().filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c)))?;
        Some((calls / f64::from(CALLS), (*name).to_owned()))
    });
    let mut rows: Vec<_> = rows.filter(|(per_call, _)| *per_call >= 0.05).collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let lines: Vec<_> = rows.iter().map(|(per_call, name)| format!("{per_call:>8.2}  {name}")).collect();
    format!("system calls of the worker per request, modern client, one at a time\n{}", lines.join("\n"))
}
