//! The body of a request, read within its limits: bytes, time, and memory that is counted before it is taken.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::config;
use crate::memory::{Full, Share};

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// It is over the limit.
    TooLong,
    /// It did not come in time, or broke off.
    Lost,
    /// There is no memory for it.
    NoMemory(Full),
}

/// The whole body, if it has no more than `most` bytes and keeps coming. It is a part of `share` for as long as there is
/// something of it: what is announced is taken at once, else what comes.
///
/// # Errors
/// [`BodyFault`] says which limit it went over.
pub async fn read_body(
    mut body: Incoming,
    most: usize,
    limits: &config::Limits,
    share: &Share,
) -> Result<Bytes, BodyFault> {
    let announced = body.size_hint().lower();
    if announced > most as u64 {
        return Err(BodyFault::TooLong);
    }
    let mut held = share.take(usize::try_from(announced).unwrap_or(usize::MAX)).map_err(BodyFault::NoMemory)?;
    let until = Instant::now() + limits.body_timeout;
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    loop {
        let patience = until.min(Instant::now() + limits.body_idle);
        let frame = timeout_at(patience, body.frame()).await.map_err(|_| BodyFault::Lost)?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|_| BodyFault::Lost)?.into_data() else { continue };
        let length = first.len() + rest.len() + data.len();
        if length > most {
            return Err(BodyFault::TooLong);
        }
        held.grow(length.saturating_sub(held.bytes())).map_err(BodyFault::NoMemory)?;
        if length == data.len() {
            first = data;
        } else {
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&data);
        }
    }
    let whole = if rest.is_empty() { first } else { rest.freeze() };
    Ok(held.keep(whole, ()))
}
