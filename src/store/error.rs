//! What can go wrong with a store: kinds, without a word of what a server or a file said.

use std::io;
use std::path::PathBuf;

use crate::keyring::{KeyError, OpenError};

/// Why the store gave no answer, or none that can be used. Holds no URL, password or content of a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No connection, or it was lost.
    #[error("the token store cannot be reached")]
    Unreachable,
    /// No answer in time, or too many questions at once.
    #[error("the token store did not answer in time")]
    Timeout,
    /// The way to the store is not safe: TLS failed.
    #[error("the token store's certificate is not trusted, or the TLS handshake failed")]
    Tls,
    /// The store wants another user or password.
    #[error("the token store refused the login")]
    Login,
    /// The store said no, with this code of its own (`READONLY`, `LOADING`, `OOM`, …).
    #[error("the token store refused the command ({0}{hint})", hint = hint(.0))]
    Refused(Box<str>),
    /// The answer is not of the kind that was asked for.
    #[error("the token store gave an answer that does not fit the command")]
    Shape,
    /// The record does not open.
    #[error("the stored record cannot be opened: {0}")]
    Sealed(OpenError),
    /// The record is of a newer version and is left as it is.
    #[error("the stored record was written by a newer version; delete it before saving another")]
    Newer,
    /// The record does not open though every key is there, and is left as it is.
    #[error("the stored record is damaged; delete it before saving another")]
    Damaged,
    /// The store throws records away when memory is short; this is its `maxmemory-policy`.
    #[error("the token store may evict tokens (maxmemory-policy {0}); set maxmemory-policy noeviction")]
    Evicts(Box<str>),
    /// The Redis is a replica: what was deleted elsewhere may still be there.
    #[error("the token store is a replica, which may hold what was deleted; give the address of its master")]
    Replica,
    /// The Redis is a node of a cluster.
    #[error("the token store is a node of a Redis Cluster, which is not supported; give the address of a single Redis")]
    Cluster,
    /// What answers is a Sentinel.
    #[error("the address is a Sentinel's, which stores nothing; give the address of the master that it watches")]
    Sentinel,
    /// The database file is damaged.
    #[error("the token database is damaged")]
    Corrupt,
    /// The database file cannot be read or written, for this reason.
    #[error("the token database failed ({0})")]
    Database(&'static str),
}

impl StoreError {
    /// The kind as a word: for log fields and metric labels, a closed set.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Refused(_) => "refused",
            Self::Shape => "shape",
            Self::Sealed(OpenError::Format) => "unknown_format",
            Self::Sealed(OpenError::UnknownKey) => "unknown_key",
            Self::Sealed(OpenError::Tampered) => "tampered",
            Self::Newer => "newer",
            Self::Damaged => "damaged",
            Self::Evicts(_) => "evicts",
            Self::Replica => "replica",
            Self::Cluster => "cluster",
            Self::Sentinel => "sentinel",
            Self::Corrupt => "corrupt",
            Self::Database(_) => "database",
        }
    }

    /// Whether the store answers but is none to trust with tokens.
    #[must_use]
    pub fn is_misfit(&self) -> bool {
        matches!(self, Self::Evicts(_) | Self::Replica | Self::Cluster | Self::Sentinel)
    }

    /// Whether the store answered, with a record that does not open.
    #[must_use]
    pub fn is_of_record(&self) -> bool {
        matches!(self, Self::Sealed(_) | Self::Newer | Self::Damaged)
    }

    /// Whether this may be another question's answer, so that nothing from the same connection can be trusted.
    pub(super) fn is_desync(&self) -> bool {
        match self {
            Self::Shape | Self::Damaged | Self::Sealed(OpenError::Format | OpenError::Tampered) => true,
            Self::Unreachable
            | Self::Timeout
            | Self::Tls
            | Self::Login
            | Self::Refused(_)
            | Self::Sealed(OpenError::UnknownKey)
            | Self::Newer
            | Self::Evicts(_)
            | Self::Replica
            | Self::Cluster
            | Self::Sentinel
            | Self::Corrupt
            | Self::Database(_) => false,
        }
    }
}

/// What to do about a refusal with this code.
fn hint(code: &str) -> &'static str {
    match code {
        "OOM" => ": it is full; raise maxmemory",
        "READONLY" => ": it is a replica; give the address of its master",
        "MISCONF" => ": it cannot save to its disk, and takes no writes until it can",
        "NOREPLICAS" => ": too few replicas follow it for min-replicas-to-write",
        "LOADING" => ": it is still reading its data",
        "NOAUTH" => ": it wants a password",
        "NOPERM" => ": its ACL keeps a command or a key from this user",
        _ => "",
    }
}

/// Why a store cannot be opened at all. Holds paths, no URL.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The key ring is no good.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The URL is not one that Redis is reached by.
    #[error("the token store's URL must be redis://, rediss:// or redis+unix://, without a fragment: {0}")]
    Url(&'static str),
    /// The directory or the database can be reached by others.
    #[error("{}: {problem}", path.display())]
    Exposed {
        /// What can be reached.
        path: PathBuf,
        /// How, and what to do about it.
        problem: &'static str,
    },
    /// The directory or the database cannot be read or written.
    #[error("{}: {kind}", path.display())]
    Io {
        /// What cannot be read or written.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// The database is damaged or no database; it is left as it is.
    #[error("{}: this is no intact token database ({problem}); it is left as it is: restore it, or move it away", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was seen.
        problem: &'static str,
    },
    /// The database was made by a newer version.
    #[error("{}: made by a newer version of tollbridge", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
    },
}

/// Why a bridge cannot use the configured store now.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be opened.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// It does not answer, or is none to trust with tokens.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SetupError {
    /// Whether the configuration must be mended, rather than something on the machine.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Key(_) | Self::Url(_))
    }
}

/// What an operator should know of the store when the bridge starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// The store could not be asked how it treats records.
    #[error("whether the token store may evict tokens is not known yet: {0}")]
    NotChecked(StoreError),
    /// A restart of the store loses what it holds.
    #[error("the token store keeps nothing across its own restart; turn on appendonly or save")]
    NotPersistent,
    /// Whether a restart of the store loses what it holds cannot be told.
    #[error("whether the token store keeps tokens across its own restart could not be checked")]
    PersistenceUnknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::STORE_FAILURES;

    #[test]
    fn every_kind_is_counted() {
        use OpenError::{Format, Tampered, UnknownKey};
        use StoreError::{
            Cluster, Corrupt, Damaged, Database, Evicts, Login, Newer, Refused, Replica, Sealed, Sentinel, Shape,
            Timeout, Tls, Unreachable,
        };
        let (refused, evicts) = (Refused("OOM".into()), Evicts("allkeys-lru".into()));
        let sealed = [Format, UnknownKey, Tampered].map(Sealed);
        let first = [Unreachable, Timeout, Tls, Login, refused, Shape];
        let last = [Newer, Damaged, evicts, Replica, Cluster, Sentinel, Corrupt, Database("full")];
        let kinds: Vec<_> = first.iter().chain(&sealed).chain(&last).map(StoreError::kind).chain(["other"]).collect();
        assert_eq!(kinds, STORE_FAILURES);
    }
}
