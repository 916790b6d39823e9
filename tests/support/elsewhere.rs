//! A server that listens by itself on a port that it is told, kept running as a service manager does: it is started again
//! whenever it has ended.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::free_address;
use super::procs;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_mins(2);

/// Ends with its last process when dropped.
pub struct Elsewhere {
    address: SocketAddr,
    running: Running,
    keeper: Option<JoinHandle<()>>,
}

/// The process, or nothing once it is not to be started any more.
type Running = Arc<Mutex<Option<Child>>>;

impl Elsewhere {
    /// Starts a program that is told its port after its own arguments, and these after that, and waits until it listens.
    /// Each time that it listens again it is said so.
    pub fn start(program: &[PathBuf], arguments: &[PathBuf], listens_again: impl Fn() + Send + 'static) -> Self {
        let address = free_address();
        let (program, arguments) = (program.to_vec(), arguments.to_vec());
        let spawn = move || {
            let mut command = Command::new(&program[0]);
            command.args(&program[1..]).arg(address.port().to_string()).args(&arguments);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("it can be started")
        };
        let running: Running = Arc::new(Mutex::new(Some(spawn())));
        procs::wait_for(PATIENCE, || TcpStream::connect(address).ok()).expect("it listens");
        let keeper = std::thread::spawn({
            let running = Arc::clone(&running);
            move || {
                while started_again(&running, &spawn) {
                    let listens = || (!is_running(&running) || TcpStream::connect(address).is_ok()).then_some(());
                    procs::wait_for(PATIENCE, listens);
                    listens_again();
                }
            }
        });
        Self { address, running, keeper: Some(keeper) }
    }

    /// Where it serves MCP.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }
}

fn process(running: &Running) -> std::sync::MutexGuard<'_, Option<Child>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_running(running: &Running) -> bool {
    process(running).as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
}

/// Waits for its end and starts it again; `false` once it is not to be.
fn started_again(running: &Running, spawn: impl Fn() -> Child) -> bool {
    while is_running(running) {
        std::thread::sleep(procs::LOOK);
    }
    let mut process = process(running);
    let is_kept = process.is_some();
    if is_kept {
        *process = Some(spawn());
    }
    is_kept
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Some(mut child) = process(&self.running).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}
