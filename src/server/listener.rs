//! Where connections come from: a TCP port or a unix socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{AddressFamily, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::auth::PeerAddr;
use crate::config::Listen;

/// What the kernel may hold for a client that does not read, in bytes.
const SEND_BUFFER: usize = 256 * 1024;

/// How many connections may wait to be accepted where the port is shared, as many as elsewhere.
const BACKLOG: u32 = 1024;

/// A bound address.
pub enum Listener {
    /// TCP, and the stall that its connections inherit.
    Tcp(TcpListener, Duration),
    /// A unix socket, whose file is removed with it if it was made for it.
    Unix(UnixListener, Option<SocketFile>),
}

/// A connection.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// The file of a unix socket; removed on drop.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds the address. A peer that takes or acknowledges no byte for as long as `stall` is cut by the system, whatever
    /// room there is for what is sent to it. With `reuse_port` others may have bound the address in the same way, and share
    /// the connections.
    ///
    /// # Errors
    /// If the system refuses it.
    pub async fn bind(listen: &Listen, stall: Duration, reuse_port: bool) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) if reuse_port => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                socket.set_reuseaddr(true)?;
                socket.set_reuseport(true)?;
                socket.bind(*address)?;
                Self::tcp(socket.listen(BACKLOG)?, stall)
            }
            Listen::Tcp(address) => Self::tcp(TcpListener::bind(address).await?, stall),
            Listen::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                Ok(Self::Unix(listener, Some(SocketFile(path.clone()))))
            }
        }
    }

    /// A socket that somebody else has bound, on which it listens already. Its file, if it has one, is not removed.
    ///
    /// # Errors
    /// It is no socket that connections come from.
    pub fn of(socket: OwnedFd, stall: Duration) -> io::Result<Self> {
        if !sockopt::socket_acceptconn(&socket)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket that was handed over does not listen"));
        }
        rustix::io::ioctl_fionbio(&socket, true)?;
        match sockopt::socket_domain(&socket)? {
            AddressFamily::UNIX => Ok(Self::Unix(UnixListener::from_std(socket.into())?, None)),
            _ => Self::tcp(TcpListener::from_std(socket.into())?, stall),
        }
    }

    /// Where somebody else has bound this socket.
    ///
    /// # Errors
    /// It is not bound to an IP address and a port, or to a path.
    pub fn address_of(socket: &OwnedFd) -> io::Result<Listen> {
        let copy = socket.try_clone()?;
        if sockopt::socket_domain(socket)? != AddressFamily::UNIX {
            return std::net::TcpListener::from(copy).local_addr().map(Listen::Tcp);
        }
        let address = std::os::unix::net::UnixListener::from(copy).local_addr()?;
        let path = address.as_pathname().map(|path| Listen::Unix(path.to_owned()));
        path.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the socket that was handed over has no path"))
    }

    fn tcp(listener: TcpListener, stall: Duration) -> io::Result<Self> {
        prepare(&listener, stall)?;
        Ok(Self::Tcp(listener, stall))
    }

    /// What to tell a person who wants to connect.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Tcp(listener, _) => {
                listener.local_addr().map_or_else(|_| "http://?".into(), |a| format!("http://{a}"))
            }
            Self::Unix(listener, _) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(|| "unix:?".into(), |path| format!("unix:{}", path.display()))
            }
        }
    }

    /// The next connection. Its peer is cut by the system after the stall that `stall` says by then.
    ///
    /// # Errors
    /// As the system says; the listener can go on.
    pub async fn accept(&mut self, stall: impl Fn() -> Duration) -> io::Result<(Stream, PeerAddr)> {
        match self {
            Self::Tcp(listener, inherited) => {
                let (stream, peer) = listener.accept().await?;
                let stall = stall();
                if stall != *inherited {
                    prepare(listener, stall)?;
                    prepare(&stream, stall)?;
                    *inherited = stall;
                }
                Ok((Stream::Tcp(stream), PeerAddr::Tcp(peer)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), PeerAddr::Unix))
            }
        }
    }
}

/// Sets what every connection inherits from its listener (Linux). Without anything to send, a peer is asked whether it
/// is there when half of `stall` is over.
fn prepare(listener: impl AsFd, stall: Duration) -> io::Result<()> {
    let ask = Duration::from_secs((stall / 2).as_secs().clamp(1, 32_767));
    sockopt::set_tcp_nodelay(&listener, true)?;
    sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER)?;
    sockopt::set_socket_keepalive(&listener, true)?;
    sockopt::set_tcp_keepidle(&listener, ask)?;
    sockopt::set_tcp_keepintvl(&listener, ask)?;
    sockopt::set_tcp_user_timeout(&listener, u32::try_from(stall.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// A socket file that a dead process left behind is in the way; anything else at that path is not ours to remove.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

impl Stream {
    /// Sends what fits at once, if anything does.
    pub(super) fn try_write(&self, bytes: &[u8]) {
        let _sent = match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        };
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_has_vanished_is_given_up_after_the_stall_whether_or_not_something_is_sent_to_it() {
        let stall = Duration::from_secs(30);
        let mut listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), stall, false).await.unwrap();
        let address = listener.describe().strip_prefix("http://").unwrap().to_owned();
        // The stall becomes another one meanwhile.
        for stall in [30, 30, 8, 8, 60] {
            let _peer = std::net::TcpStream::connect(&address).unwrap();
            let (stream, _) = listener.accept(|| Duration::from_secs(stall)).await.unwrap();
            assert_eq!(sockopt::tcp_user_timeout(&stream), Ok(1000 * u32::try_from(stall).unwrap()));
            assert_eq!(sockopt::socket_keepalive(&stream), Ok(true));
            assert_eq!(sockopt::tcp_keepidle(&stream), Ok(Duration::from_secs(stall / 2)));
            assert_eq!(sockopt::tcp_keepintvl(&stream), Ok(Duration::from_secs(stall / 2)));
            assert_eq!(sockopt::tcp_nodelay(&stream), Ok(true));
            assert_eq!(sockopt::socket_send_buffer_size(&stream), Ok(2 * SEND_BUFFER), "the system doubles it");
        }
    }

    #[tokio::test]
    async fn a_socket_of_somebody_else_is_served_if_it_listens_and_its_file_stays() {
        let stall = Duration::from_secs(30);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let bound = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let bound = OwnedFd::from(bound);
        assert_eq!(Listener::address_of(&bound).unwrap(), Listen::Unix(path.clone()));
        let mut listener = Listener::of(bound, stall).unwrap();
        assert_eq!(listener.describe(), format!("unix:{}", path.display()));
        let _peer = std::os::unix::net::UnixStream::connect(&path).unwrap();
        listener.accept(|| stall).await.unwrap();
        drop(listener);
        assert!(path.exists());
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(Listener::of(silent.into(), stall).err().unwrap().kind(), io::ErrorKind::InvalidInput);
    }
}
