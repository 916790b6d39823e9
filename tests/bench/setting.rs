//! What is measured against: a release bridge with everything real, a Redis of its own, one user with a token.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::figures::{Cpu, Memory, kilobytes};

/// How long a program may take to answer or to end.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct Setting {
    _directory: Directory,
    redis: Child,
    bridge: Child,
    pub(crate) address: SocketAddr,
    pub(crate) bearer: String,
}

impl Setting {
    pub(crate) fn start(tollbridge: &Path, tiny: &Path, redis: &Path, image: Option<&str>) -> Result<Self, String> {
        let home = Directory(std::env::temp_dir().join(format!("tollbridge-bench-{}", std::process::id())));
        let directory = &home.0;
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let port = free_port()?;
        let mut command = Command::new(redis);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()]);
        let redis = quiet(&mut command).spawn().map_err(|error| format!("redis-server: {error}"))?;
        let redis = Guard(Some(redis));
        wait_until("redis-server answers", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
        let bearer = random_hex()?;
        let config = directory.join("tollbridge.json");
        let service = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
        let ports = [port, service.local_addr().map_err(|error| error.to_string())?.port()];
        write(&config, &configuration(directory, tiny, ports, &sha256(&bearer)?, image))?;
        let config = config.to_string_lossy().into_owned();
        run(tollbridge, &["keygen", "--out", &directory.join("k1.key").to_string_lossy()], "")?;
        let save = ["token", "set", "--config", &config, "--user", "alice", "--server", "tiny"];
        run(tollbridge, &save, &random_hex()?)?;
        sign_in(tollbridge, &config, &service)?;
        if image.is_some() {
            let save = ["token", "set", "--config", &config, "--user", "alice", "--server", "image"];
            run(tollbridge, &save, &random_hex()?)?;
        }
        let (bridge, address) = serve(tollbridge, &config, directory)?;
        Ok(Self { _directory: home, redis: redis.keep(), bridge, address, bearer })
    }

    /// Processor time of the bridge: its worker, and the servers that one has waited for.
    pub(crate) fn cpu(&self) -> Cpu {
        Cpu::of(&self.worker().to_string())
    }

    pub(crate) fn memory(&self) -> Memory {
        let worker = self.worker();
        let supervisor = Some(self.bridge.id()).filter(|&supervisor| supervisor != worker);
        let resident = |pid| kilobytes(pid, "status", "VmRSS:").unwrap_or(0.0);
        // The proportional size, which a process that hides its memory shows to root alone.
        let shared_once = |pid| kilobytes(pid, "smaps_rollup", "Pss:").unwrap_or_else(|| resident(pid));
        Memory {
            worker: resident(worker),
            supervisor: supervisor.map_or(0.0, resident),
            peak: kilobytes(worker, "status", "VmHWM:").unwrap_or(0.0),
            together: shared_once(worker) + supervisor.map_or(0.0, shared_once),
        }
    }

    /// The supervisor's child that serves.
    pub(crate) fn worker(&self) -> u32 {
        let supervisor = self.bridge.id();
        let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"));
        let children = children.unwrap_or_default();
        let worker = children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &u32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split(|&byte| byte == 0).any(|argument| argument == b"--worker")
        });
        worker.unwrap_or(supervisor)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let pid = self.bridge.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let ended = wait_until("the bridge ends", || matches!(self.bridge.try_wait(), Ok(Some(_))));
        if ended.is_err() {
            let _ = self.bridge.kill();
            let _ = self.bridge.wait();
        }
        let _ = self.redis.kill();
        let _ = self.redis.wait();
    }
}

/// A directory that is removed in the end.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A child that does not outlive a setting that could not be completed.
struct Guard(Option<Child>);

impl Guard {
    fn keep(mut self) -> Child {
        self.0.take().expect("kept once")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn configuration(
    directory: &Path,
    tiny: &Path,
    [redis_port, service]: [u16; 2],
    sha256: &str,
    image: Option<&str>,
) -> String {
    let (key, tiny) = (directory.join("k1.key"), tiny.display());
    let key = key.display();
    let image = image.map_or_else(String::new, |image| {
        format!(
            r#",
    "image": {{
      "image": "{image}",
      "env": {{ "TINY_TOKEN": {{ "$userToken": "<<token>>" }} }},
      "requiresUserToken": true
    }}"#
        )
    });
    format!(
        r#"{{
  "listen": "127.0.0.1:0",
  "publicUrl": "http://127.0.0.1:7777",
  "allowedHosts": ["127.0.0.1"],
  "identity": [{{ "kind": "bearer", "tokens": [{{ "user": "alice", "sha256": "{sha256}" }}] }}],
  "tokenStore": {{ "kind": "redis", "url": "redis://127.0.0.1:{redis_port}", "keys": [{{ "id": "k1", "file": "{key}" }}] }},
  "limits": {{ "perUser": 256, "perServer": 256, "total": 256 }},
  "mcpServers": {{
    "tiny": {{
      "command": "{tiny}",
      "env": {{ "TINY_TOKEN": {{ "$userToken": "<<token>>" }} }},
      "requiresUserToken": true,
      "line": "16MiB"
    }},
    "signed-in": {{
      "command": "{tiny}",
      "env": {{ "TINY_TOKEN": {{ "$userToken": "<<token>>" }} }},
      "oauth": {{
        "authorizationEndpoint": "http://127.0.0.1:{service}/authorize",
        "tokenEndpoint": "http://127.0.0.1:{service}/token",
        "clientId": "bench",
        "allowHosts": ["127.0.0.1"]
      }}
    }}{image}
  }}
}}
"#
    )
}

/// Starts the bridge, its log in a file, and waits until it says where it listens.
fn serve(tollbridge: &Path, config: &str, directory: &Path) -> Result<(Child, SocketAddr), String> {
    let log = std::fs::File::create(directory.join("log")).map_err(|error| error.to_string())?;
    let mut command = Command::new(tollbridge);
    command.args(["serve", "--config", config]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut bridge = command.spawn().map_err(|error| format!("{}: {error}", tollbridge.display()))?;
    let mut first = String::new();
    if let Some(stdout) = bridge.stdout.take() {
        let _ = BufReader::new(stdout).read_line(&mut first);
    }
    let Some(address) = first.trim().strip_prefix("listening on http://").and_then(|text| text.parse().ok()) else {
        let _ = bridge.kill();
        let _ = bridge.wait();
        let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
        return Err(format!("the bridge does not listen: {first:?}\n{log}"));
    };
    Ok((bridge, address))
}

/// Signs alice in at a service that gives a token to whoever asks once.
fn sign_in(tollbridge: &Path, config: &str, service: &TcpListener) -> Result<(), String> {
    let mut command = Command::new(tollbridge);
    command.args(["login", "signed-in", "--paste", "--user", "alice", "--config", config]);
    let login = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut login = login.map_err(|error| format!("login: {error}"))?;
    let lines = BufReader::new(login.stderr.take().ok_or("login: no stderr")?).lines();
    let mut urls = lines.map_while(Result::ok).filter_map(|line| Some(line.split_once("state=")?.1.to_owned()));
    let state = urls.find_map(|rest| rest.split('&').next().map(str::to_owned)).ok_or("login: no state")?;
    let mut stdin = login.stdin.take().ok_or("login: no stdin")?;
    writeln!(stdin, "http://127.0.0.1:7777/oauth/callback/signed-in?code=c&state={state}")
        .map_err(|e| e.to_string())?;
    let (mut asked, _) = service.accept().map_err(|error| error.to_string())?;
    asked.set_read_timeout(Some(DEADLINE)).map_err(|error| error.to_string())?;
    let mut request = Vec::new();
    while !String::from_utf8_lossy(&request).contains("code_verifier=") {
        let mut piece = [0; 4096];
        match asked.read(&mut piece) {
            Ok(length) if length > 0 => request.extend_from_slice(&piece[..length]),
            _ => return Err("login: no question".to_owned()),
        }
    }
    let answer = format!(r#"{{"access_token":"{}","token_type":"Bearer","expires_in":86400}}"#, random_hex()?);
    write!(
        asked,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    )
    .map_err(|error| error.to_string())?;
    let status = login.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("login: {status}")) }
}

fn run(program: &Path, arguments: &[&str], input: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("{} {arguments:?}: {status}", program.display())) }
}

fn sha256(text: &str) -> Result<String, String> {
    let mut command = Command::new("sha256sum");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split(' ').next().filter(|hex| hex.len() == 64).map(str::to_owned).ok_or("sha256sum: no sum".to_owned())
}

fn random_hex() -> Result<String, String> {
    let mut random = [0; 32];
    let file = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    file.map_err(|error| format!("/dev/urandom: {error}"))?;
    Ok(random.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|n| char::from_digit(n.into(), 16)).collect())
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        if Instant::now() > deadline {
            return Err(format!("waited in vain until {what}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
