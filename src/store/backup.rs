//! A backup of the tokens: what is stored, sealed as it is stored, one JSON object per line. The first line says what it
//! is, the last one how much there was, so that one that was cut short is seen to be.
//!
//! Names and records are the same in every kind of store, so a backup of one may be restored into another.

use std::io::{self, BufRead, Read as _};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::notes::Noted;
use super::{Proofs, StoreError, TokenStore, Write, record};
use crate::config::ServerName;

/// The form of the lines.
const VERSION: u32 = 1;
/// The longest line, bytes: sixteen tokens, sealed, as Base64, with room to spare.
const MAX_LINE: u64 = 1 << 20;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Line {
    /// What follows is a backup of this form.
    TollbridgeTokens(u32),
    /// A key that wrote what follows: its id and its proof.
    Key(String, Sealed),
    /// A token.
    Token(Token),
    /// So many tokens were before this line.
    End(usize),
}

/// A stored token: what lies where.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    /// The keyed hash of whose it is.
    name: String,
    /// Whose it is, sealed to the name.
    owner: Sealed,
    /// For which server.
    server: String,
    /// The sealed record.
    record: Sealed,
}

/// Sealed bytes, in Base64.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Sealed(Vec<u8>);

/// What became of the tokens of a backup that was restored.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// They are stored now as they were.
    pub restored: usize,
    /// The store has the same.
    pub unchanged: usize,
    /// The store has a newer one, or one that cannot be read, which was kept.
    pub kept: usize,
    /// They cannot be read, so nobody knows whose they are or how old.
    pub unreadable: usize,
}

/// Why a backup was not made, or not wholly restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backup cannot be read or written.
    #[error("the backup: {0}")]
    Io(#[from] io::Error),
    /// What was read is no backup, or damaged, at this line.
    #[error(
        "line {0} is not one of a backup that this version of tollbridge made; what is before it has been restored"
    )]
    Line(usize),
    /// The backup ends early.
    #[error("the backup is incomplete: its end is missing; what there is has been restored")]
    CutShort,
    /// A key that sealed the backup is not there.
    #[error("the backup was sealed with the key {0:?}, which is not in the key ring, or is another key there")]
    Key(String),
}

impl TokenStore {
    /// Writes every token to `out`, sealed as it is stored; how many there were, and how many records have no owner and
    /// are left out.
    ///
    /// # Errors
    /// The store failed, or `out` did.
    pub async fn export(&self, out: &mut impl io::Write) -> Result<(usize, usize), BackupError> {
        let rows = self.rows(None).await?;
        // Read last: they hold the key of every record above.
        let proofs = self.proofs(Ok).await?;
        let (mut tokens, mut left_out) = (0, 0);
        write(out, &Line::TollbridgeTokens(VERSION))?;
        for (id, proof) in proofs {
            write(out, &Line::Key(id, Sealed(proof)))?;
        }
        for row in rows {
            let Some(owner) = row.owner else {
                left_out += row.records.len();
                continue;
            };
            for (server, record) in row.records {
                let token =
                    Token { name: row.name.clone(), owner: Sealed(owner.clone()), server, record: Sealed(record) };
                write(out, &Line::Token(token))?;
                tokens += 1;
            }
        }
        write(out, &Line::End(tokens))?;
        out.flush()?;
        Ok((tokens, left_out))
    }

    /// Saves every token of the backup `lines` that the store does not have, or has an older one of.
    ///
    /// # Errors
    /// As [`BackupError`] says. What was restored before stays, so it can be done again.
    pub async fn restore(&self, mut lines: impl BufRead) -> Result<Restored, BackupError> {
        let (mut done, mut proofs) = (Restored::default(), vec![record::prove(&self.keyring)]);
        for number in 1.. {
            match read(&mut lines, number)?.ok_or(BackupError::CutShort)? {
                Line::TollbridgeTokens(VERSION) if number == 1 => {}
                _ if number == 1 => return Err(BackupError::Line(1)),
                Line::Key(id, Sealed(proof)) => {
                    let proof = [(id.clone(), proof)];
                    record::verify(&self.keyring, &proof).map_err(|_| BackupError::Key(id))?;
                    proofs.extend(proof);
                }
                Line::Token(token) => self.restore_one(token, &proofs, &mut done).await?,
                Line::End(tokens) if tokens == done.total() => return Ok(done),
                Line::End(_) | Line::TollbridgeTokens(_) => return Err(BackupError::Line(number)),
            }
        }
        Err(BackupError::CutShort)
    }

    async fn restore_one(&self, token: Token, proofs: &Proofs, done: &mut Restored) -> Result<(), StoreError> {
        let Token { name, owner: Sealed(owner), server, record: Sealed(record) } = token;
        let known = record::open_owner(&self.keyring, &name, &owner).ok().zip(ServerName::parse(&server));
        let opened = known.and_then(|(user, server)| {
            let saved_at = record::open(&self.keyring, &user, &server, &record).ok()?.saved_at;
            Some((user, server, saved_at))
        });
        let Some((user, server, saved_at)) = opened else {
            done.unreadable += 1;
            return Ok(());
        };
        let names = self.names(&user);
        let there = self.found(&names, &server, |found| Ok(found.record)).await?;
        if there.as_ref() == Some(&record) {
            done.unchanged += 1;
            return Ok(());
        }
        let newer = |there: &Vec<u8>| {
            record::open(&self.keyring, &user, &server, there).is_ok_and(|there| there.saved_at < saved_at)
        };
        if there.as_ref().is_some_and(|there| !newer(there)) {
            done.kept += 1;
            return Ok(());
        }
        let owner = record::seal_owner(&self.keyring, &user, names.active());
        // Whoever saves one meanwhile saves a newer one.
        let notes = Noted::default().seal(&self.keyring, names.active(), &server);
        let write = Write { owner, record, notes, proofs: proofs.clone(), there };
        if self.put(&names, &server, write).await? {
            done.restored += 1;
        } else {
            done.kept += 1;
        }
        Ok(())
    }
}

impl Restored {
    fn total(&self) -> usize {
        self.restored + self.unchanged + self.kept + self.unreadable
    }
}

impl TryFrom<String> for Sealed {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        BASE64_STANDARD.decode(text).map(Self)
    }
}

impl From<Sealed> for String {
    fn from(sealed: Sealed) -> Self {
        BASE64_STANDARD.encode(sealed.0)
    }
}

fn write(out: &mut impl io::Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// The next line, if there is one.
fn read(lines: &mut impl BufRead, number: usize) -> Result<Option<Line>, BackupError> {
    let mut line = Vec::new();
    lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    // One that was cut short has no end.
    let whole = line.ends_with(b"\n").then_some(&line);
    whole.and_then(|line| serde_json::from_slice(line).ok()).map(Some).ok_or(BackupError::Line(number))
}
