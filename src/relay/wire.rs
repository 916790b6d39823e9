//! What nodes say to each other, sealed to the channel it is said on: Redis sees whom it is for and how long it is,
//! and cannot say anything itself.

use crate::keyring::{Keyring, Place, Purpose};
use crate::relay::{NodeId, NotDelivered};

/// The first part of every place. A node that speaks another version does not open it, and gives no receipt.
const VERSION: &str = "relay/1";

/// One thing said, by whom, and which of all that this node said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Who says it.
    pub(super) from: NodeId,
    /// Greater in every frame of this node.
    pub(super) number: u64,
    /// What is said.
    pub(super) body: Body<'a>,
}

/// What can be said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// A message or a part of it; wants a receipt.
    Part(Part<'a>),
    /// Is this exchange still there? Wants a receipt.
    Probe {
        /// The exchange.
        exchange: u64,
    },
    /// What became of an earlier frame of the node that is told.
    Receipt {
        /// That frame's number.
        of: u64,
        /// What became of it.
        verdict: Result<(), NotDelivered>,
    },
    /// A short message for everyone who has joined a topic; wants no receipt.
    Topic {
        /// The topic.
        topic: &'a str,
        /// The message.
        payload: &'a [u8],
    },
}

/// A message or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// Which exchange it is for.
    pub(super) exchange: u64,
    /// Which of the sender's messages: the same in all its parts.
    pub(super) message: u64,
    /// How long the message is.
    pub(super) total: usize,
    /// Where in the message this part begins.
    pub(super) offset: usize,
    /// The part.
    pub(super) bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame as it is published on `channel`.
    pub(super) fn seal(&self, keyring: &Keyring, channel: &str) -> Vec<u8> {
        keyring.seal(place(&[VERSION, channel]), &self.write())
    }

    fn write(&self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(64 + self.body.payload().len());
        plain.extend(self.from.0);
        plain.extend(self.number.to_be_bytes());
        match self.body {
            Body::Part(Part { exchange, message, total, offset, bytes }) => {
                plain.push(b'm');
                plain.extend([exchange, message, total as u64, offset as u64].map(u64::to_be_bytes).as_flattened());
                plain.extend(bytes);
            }
            Body::Probe { exchange } => {
                plain.push(b'p');
                plain.extend(exchange.to_be_bytes());
            }
            Body::Receipt { of, verdict } => {
                plain.push(b'r');
                plain.extend(of.to_be_bytes());
                plain.push(verdict_byte(verdict));
            }
            Body::Topic { topic, payload } => {
                plain.push(b't');
                plain.extend((topic.len() as u64).to_be_bytes());
                plain.extend(topic.as_bytes());
                plain.extend(payload);
            }
        }
        plain
    }

    /// The frame that `plain` is, if it is one.
    pub(super) fn parse(plain: &'a [u8]) -> Option<Self> {
        let (from, rest) = plain.split_first_chunk()?;
        let (number, rest) = number(rest)?;
        let (&kind, rest) = rest.split_first()?;
        let (first, rest) = self::number(rest)?;
        let body = match kind {
            b'm' => {
                let (message, rest) = self::number(rest)?;
                let (total, rest) = self::number(rest)?;
                let (offset, bytes) = self::number(rest)?;
                let (total, offset) = (usize::try_from(total).ok()?, usize::try_from(offset).ok()?);
                Body::Part(Part { exchange: first, message, total, offset, bytes })
            }
            b'p' => Body::Probe { exchange: first },
            b'r' => Body::Receipt { of: first, verdict: verdict(*rest.first()?)? },
            b't' => {
                let (topic, payload) = rest.split_at_checked(usize::try_from(first).ok()?)?;
                Body::Topic { topic: str::from_utf8(topic).ok()?, payload }
            }
            _ => return None,
        };
        Some(Self { from: NodeId(*from), number, body })
    }
}

impl Body<'_> {
    fn payload(&self) -> &[u8] {
        match self {
            Self::Part(part) => part.bytes,
            Self::Topic { payload, .. } => payload,
            Self::Probe { .. } | Self::Receipt { .. } => &[],
        }
    }
}

/// The plain bytes of what was published on `channel`, if one of us sealed it for that channel.
pub(super) fn open(keyring: &Keyring, channel: &str, sealed: &[u8]) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    keyring.open(place(&[VERSION, channel]), sealed).ok()
}

fn place<'a>(parts: &'a [&'a str; 2]) -> Place<'a> {
    Place { purpose: Purpose::Route, parts }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// Every verdict at the byte that stands for it.
const VERDICTS: [Result<(), NotDelivered>; 5] =
    [Ok(()), Err(NotDelivered::Gone), Err(NotDelivered::Full), Err(NotDelivered::TooLarge), Err(NotDelivered::Failed)];

fn verdict_byte(verdict: Result<(), NotDelivered>) -> u8 {
    let at = VERDICTS.iter().position(|known| *known == verdict);
    at.and_then(|at| u8::try_from(at).ok()).expect("every verdict is in the list")
}

fn verdict(byte: u8) -> Option<Result<(), NotDelivered>> {
    VERDICTS.get(usize::from(byte)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([7; 16]);

    fn bodies() -> Vec<Body<'static>> {
        let part = Part { exchange: 1, message: 2, total: 300, offset: 4, bytes: b"bytes" };
        let receipts = VERDICTS.map(|verdict| Body::Receipt { of: 9, verdict });
        let topic = Body::Topic { topic: "a topic", payload: b"said" };
        let mut bodies = vec![Body::Part(part), Body::Probe { exchange: 5 }, topic];
        bodies.extend(receipts);
        bodies
    }

    #[test]
    fn every_frame_is_read_as_it_was_written_and_no_beginning_of_one_is_another() {
        for body in bodies() {
            let frame = Frame { from: NODE, number: 3, body };
            let plain = frame.write();
            assert_eq!(
                Frame::parse(&plain),
                Some(Frame { from: NODE, number: 3, body: Frame::parse(&plain).unwrap().body })
            );
            assert_eq!(Frame::parse(&plain), Some(frame));
            assert_eq!(Frame::parse(&plain[..30]), None);
        }
    }

    #[test]
    fn a_frame_opens_on_its_own_channel_with_our_keys_alone() {
        let ours = Keyring::ephemeral();
        let frame = Frame { from: NODE, number: 3, body: Body::Probe { exchange: 5 } };
        let sealed = frame.seal(&ours, "a");
        assert!(open(&ours, "a", &sealed).is_some_and(|plain| Frame::parse(&plain) == Some(frame)));
        assert!(open(&ours, "b", &sealed).is_none());
        assert!(open(&Keyring::ephemeral(), "a", &sealed).is_none());
    }
}
