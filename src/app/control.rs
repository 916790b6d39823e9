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

/// How long a command may take to be said, and its answer to be taken.
const SAYING: Duration = Duration::from_secs(2);

/// How long doing it may take, with the checks of a configuration.
const DOING: Duration = Duration::from_secs(20);

/// How long the listener rests after an error.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Answers commands until the hard stop.
pub(super) fn serve(reloader: &Arc<Reloader>, health: &Arc<Admin>) {
    let listener = match listen() {
        Ok(listener) => listener,
        // It serves all the same. Names are taken by nobody but who means to, since process ids are not.
        Err(error) => {
            return tracing::error!(
                %error,
                "another process may have taken the name of this one: `tollbridge reload` and `tollbridge health` do not \
                 reach it; SIGHUP does"
            );
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
            let _ = converse(stream, &reloader, &health).await;
        });
    }
}

async fn converse(mut stream: UnixStream, reloader: &Reloader, health: &Admin) -> io::Result<()> {
    let line = timeout(SAYING, request(&mut stream)).await??;
    let late = |_| Some(Answer::no("it takes too long"));
    let answer = timeout(DOING, answer(&line, reloader, health)).await.unwrap_or_else(late);
    timeout(SAYING, stream.write_all(&serde_json::to_vec(&answer)?)).await?
}

async fn request(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < MAX_REQUEST {
        if stream.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    Ok(line)
}

async fn answer(line: &[u8], reloader: &Reloader, health: &Admin) -> Option<Answer> {
    let Some((request, file)) = Request::parse(line.strip_suffix(b"\n").unwrap_or(line)) else {
        return Some(Answer::no("this version does not know the command"));
    };
    if let Some(file) = file {
        match reloader.reads(file).await {
            Some(true) => {}
            Some(false) => return None,
            None => return Some(Answer::no("the directory of its configuration file cannot be read now")),
        }
    }
    Some(match request {
        Request::Reload => reloader.reload().await,
        Request::Diff => reloader.compare().await,
        Request::Health if health.is_ready().await => Answer::yes("ready"),
        Request::Health => Answer::no("not ready"),
    })
}
