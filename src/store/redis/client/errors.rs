//! What the errors of Redis and of the way to it mean, without their words.

use std::error::Error;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreError;

/// The kind of an error, without the words of it.
pub(super) fn classify(error: &RedisError) -> StoreError {
    if error.is_timeout() {
        return StoreError::Timeout;
    }
    match error.kind() {
        ErrorKind::Io if is_tls(error) => StoreError::Tls,
        ErrorKind::Io => StoreError::Unreachable,
        ErrorKind::AuthenticationFailed => StoreError::Login,
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::ExecAbort) | ErrorKind::Extension => {
            let errors = error.clone().into_server_errors();
            refusal(errors.as_deref().and_then(<[_]>::first).map_or("ERR", |(_, error)| error.code()))
        }
        ErrorKind::Server(_) => refusal(error.code().unwrap_or("ERR")),
        _ => StoreError::Shape,
    }
}

/// Whether TLS ended the connection rather than the network.
fn is_tls(error: &RedisError) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let Some(cause) = cause else { return false };
    let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some()
        || cause.is::<rustls::pki_types::InvalidDnsNameError>()
}

fn refusal(code: &str) -> StoreError {
    match code {
        "WRONGTYPE" => StoreError::Shape,
        "WRONGPASS" => StoreError::Login,
        // Codes are one word in capitals; anything else is not a code and may be anything.
        code if code.len() <= 16 && code.bytes().all(|b| b.is_ascii_uppercase()) => StoreError::Refused(code.into()),
        _ => StoreError::Refused("ERR".into()),
    }
}
