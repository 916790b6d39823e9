//! What commands on the same host tell this bridge, and what it answers.

use std::io;
use std::os::unix::net::UnixListener as BlockingListener;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::reload::Reloader;
use crate::admin::Admin;
use crate::control::{self, Answer, MAX_REQUEST, Request};
use crate::lifecycle::Lifecycle;

/// How many commands are answered at once.
const AT_ONCE: usize = 8;

/// How long one may take, with the checks of a configuration.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the listener rests after an error.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Answers commands until the hard stop.
pub(super) fn serve(reloader: &Arc<Reloader>, health: &Arc<Admin>) {
    let listener = match listen() {
        Ok(listener) => listener,
        // It serves all the same; a signal does what a command would.
        Err(error) => {
            return tracing::warn!(%error, "`tollbridge reload` and `tollbridge health` do not reach this process");
        }
    };
    let (reloader, health) = (Arc::clone(reloader), Arc::clone(health));
    let lifecycle = reloader.node.lifecycle.clone();
    lifecycle.clone().accompany(accept(listener, reloader, health, lifecycle));
}

fn listen() -> io::Result<UnixListener> {
    let listener = BlockingListener::bind_addr(&control::address(std::process::id())?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn accept(listener: UnixListener, reloader: Arc<Reloader>, health: Arc<Admin>, lifecycle: Lifecycle) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let turn = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_REST).await;
            continue;
        };
        // Others could not send it a signal, either.
        if !stream.peer_cred().is_ok_and(|peer| [0, geteuid().as_raw()].contains(&peer.uid())) {
            continue;
        }
        let (reloader, health) = (Arc::clone(&reloader), Arc::clone(&health));
        lifecycle.accompany(async move {
            let _turn = turn;
            // Whoever has left does not want to know.
            let _ = timeout(PATIENCE, answer(stream, &reloader, &health)).await;
        });
    }
}

async fn answer(mut stream: UnixStream, reloader: &Reloader, health: &Admin) -> io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < MAX_REQUEST {
        if stream.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    let say = |is_good, text: &str| Some(Answer { is_good, text: text.to_owned() });
    let answer = match Request::parse(line.strip_suffix(b"\n").unwrap_or(&line)) {
        Some((_, Some(file))) if file != control::file_id(reloader.file()) => None,
        Some((Request::Reload, _)) => Some(reloader.reload().await),
        Some((Request::Diff, _)) => Some(reloader.compare().await),
        Some((Request::Health, _)) if health.is_ready().await => say(true, "ready"),
        Some((Request::Health, _)) => say(false, "not ready"),
        None => say(false, "this version does not know the command"),
    };
    stream.write_all(&serde_json::to_vec(&answer)?).await
}
