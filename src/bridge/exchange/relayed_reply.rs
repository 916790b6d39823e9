//! The answer of a parked call, on its way to the exchange that has the client, perhaps on another node.

use bytes::{Buf as _, Bytes};
use http::StatusCode;

/// What a parked call says to whoever has called again. On its way it is one byte that says what it is, and what
/// follows as it is: an answer may be as long as a server's longest line.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::bridge) enum RelayedReply {
    /// One event.
    Event(Bytes),
    /// The final message, with its status and after how many seconds to try again.
    Final(StatusCode, Option<u64>, Bytes),
}

impl RelayedReply {
    pub(in crate::bridge) fn write(&self) -> Bytes {
        let (kind, status, retry_after, text) = match self {
            Self::Event(text) => return [&b"e"[..], text].concat().into(),
            Self::Final(status, retry_after, text) => (b"l", status.as_u16(), retry_after.unwrap_or(0), text),
        };
        [&kind[..], &status.to_be_bytes(), &retry_after.to_be_bytes(), text].concat().into()
    }

    /// What `bytes` say; `None` if a node of another version wrote them.
    pub(in crate::bridge) fn read(mut bytes: Bytes) -> Option<Self> {
        match bytes.try_get_u8().ok()? {
            b'e' => Some(Self::Event(bytes)),
            b'l' => {
                let status = StatusCode::from_u16(bytes.try_get_u16().ok()?).ok()?;
                let retry_after = Some(bytes.try_get_u64().ok()?).filter(|seconds| *seconds > 0);
                Some(Self::Final(status, retry_after, bytes))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_as_it_was_written_and_grows_by_a_few_bytes_whatever_it_holds() {
        let text = Bytes::from("\"\\".repeat(1000));
        let [status, retry] = [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE];
        for reply in [
            RelayedReply::Event(text.clone()),
            RelayedReply::Final(status, None, text.clone()),
            RelayedReply::Final(retry, Some(5), Bytes::new()),
        ] {
            let written = reply.write();
            assert!(written.len() <= text.len() + 11);
            assert_eq!(RelayedReply::read(written), Some(reply));
        }
        for bytes in [&b""[..], b"l", b"l\0\xc8\0", b"l\0\0\0\0\0\0\0\0\0\0", b"{}"] {
            assert_eq!(RelayedReply::read(bytes.into()), None, "{bytes:?}");
        }
    }
}
