//! Root keys: 32 random bytes, from a private file, a text or the system.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

/// Bytes in a root key.
pub const ROOT_KEY_LEN: usize = 32;

/// A key file is not read beyond this, bytes.
const MAX_FILE: u64 = 1024;

/// The bits of a file's mode that let others at it.
const OTHERS: u32 = 0o077;

/// Random bytes have more distinct values than this among 32: one key in 10^22 does not.
const MIN_DISTINCT: usize = 12;

/// Keys that were printed somewhere and pass for random, as hex.
const EXAMPLES: [&str; 2] = [
    "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", // NIST SP 800-38A
    "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0", // RFC 8439, A.5
];

/// The bytes that the keys of a ring are derived from. Zeroed on drop, never shown.
pub struct RootKey(Zeroizing<[u8; ROOT_KEY_LEN]>);

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// The id is malformed.
    #[error("its id must be 1 to 32 of A-Z a-z 0-9 _ -")]
    Id,
    /// The id occurs twice.
    #[error("another key has the same id")]
    Duplicate,
    /// There is no such file.
    #[error("its key file does not exist; `tollbridge keygen --out FILE` makes one")]
    Missing,
    /// The file cannot be read.
    #[error("its key file cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    /// The path names a directory, a pipe or a device.
    #[error("its key file is not a regular file")]
    NotRegular,
    /// Somebody else could change the file.
    #[error("its key file must belong to the user who runs tollbridge, or to root")]
    Owner,
    /// Others may read or write the file.
    #[error("its key file is open to others (mode {0:04o}); run chmod 600 on it")]
    Mode(u32),
    /// Not 32 bytes in a form that we read.
    #[error("it is not 32 bytes, written as 43 characters of base64url, 64 of hex, or raw")]
    Form,
    /// Repeated bytes, a counter or typed text.
    #[error("it is not random; `tollbridge keygen` makes one that is")]
    Weak,
    /// Known to everybody.
    #[error("it is an example that was published; `tollbridge keygen` makes one of your own")]
    Example,
}

impl RootKey {
    /// A new key from the system's random bytes.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new([0; ROOT_KEY_LEN]);
        aws_lc_rs::rand::fill(&mut *bytes).expect("the system gives random bytes");
        Self(bytes)
    }

    /// The key that the file at `path` holds, as text or raw.
    ///
    /// # Errors
    /// The file is missing, not regular, not ours or root's, or open to others; or its content is no key.
    pub fn from_file(path: &Path) -> Result<Self, KeyProblem> {
        // Not blocking: a pipe would keep us waiting before we could see that it is one.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(unreadable)?);
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(KeyProblem::NotRegular);
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() && metadata.uid() != 0 {
            return Err(KeyProblem::Owner);
        }
        if metadata.mode() & OTHERS != 0 {
            return Err(KeyProblem::Mode(metadata.mode() & 0o7777));
        }
        let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_FILE).expect("1024 fits")));
        file.take(MAX_FILE).read_to_end(&mut content).map_err(unreadable)?;
        Self::from_content(&content)
    }

    /// The key that `text` spells in base64url or hex.
    ///
    /// # Errors
    /// It is not 32 bytes, or not random.
    pub fn from_text(text: &str) -> Result<Self, KeyProblem> {
        let text = text.trim();
        let mut bytes = Zeroizing::new([0; ROOT_KEY_LEN]);
        if text.len() == 2 * ROOT_KEY_LEN {
            decode_hex(text.as_bytes(), &mut bytes).ok_or(KeyProblem::Form)?;
        } else {
            let decoded = URL_SAFE_PAD_INDIFFERENT
                .decode(text)
                .or_else(|_| STANDARD_PAD_INDIFFERENT.decode(text))
                .map_err(|_| KeyProblem::Form)?;
            let decoded = Zeroizing::new(decoded);
            *bytes = decoded.as_slice().try_into().map_err(|_| KeyProblem::Form)?;
        }
        Self::strong(bytes)
    }

    /// The key as one line of base64url: the form in which key files hold it. A secret.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*self.0))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &*self.0
    }

    fn from_content(content: &[u8]) -> Result<Self, KeyProblem> {
        match str::from_utf8(content) {
            Ok(text) if text.chars().all(|c| !c.is_control() || matches!(c, '\r' | '\n')) => Self::from_text(text),
            _ => Self::strong(Zeroizing::new(content.try_into().map_err(|_| KeyProblem::Form)?)),
        }
    }

    fn strong(bytes: Zeroizing<[u8; ROOT_KEY_LEN]>) -> Result<Self, KeyProblem> {
        let mut example = [0; ROOT_KEY_LEN];
        let published = |hex: &&str| decode_hex(hex.as_bytes(), &mut example).is_some() && example == *bytes;
        if EXAMPLES.iter().any(published) {
            return Err(KeyProblem::Example);
        }
        if is_weak(&bytes) { Err(KeyProblem::Weak) } else { Ok(Self(bytes)) }
    }

    #[cfg(test)]
    pub(super) fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(…)")
    }
}

/// Whether `bytes` are repeated, counted or typed. Random bytes are none of it.
fn is_weak(bytes: &[u8; ROOT_KEY_LEN]) -> bool {
    let mut seen = [false; 256];
    for byte in bytes {
        seen[usize::from(*byte)] = true;
    }
    let few = seen.iter().filter(|seen| **seen).count() < MIN_DISTINCT;
    let repeated = (1..=ROOT_KEY_LEN / 2).any(|period| bytes.iter().zip(&bytes[period..]).all(|(a, b)| a == b));
    let step = bytes[1].wrapping_sub(bytes[0]);
    let counted = bytes.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
    let typed = bytes.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    few || repeated || counted || typed
}

fn decode_hex(text: &[u8], bytes: &mut [u8; ROOT_KEY_LEN]) -> Option<()> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

fn unreadable(error: impl Into<io::Error>) -> KeyProblem {
    match error.into().kind() {
        io::ErrorKind::NotFound => KeyProblem::Missing,
        kind => KeyProblem::Unreadable(kind),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k1.key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn base64_hex_and_raw_files_hold_the_same_key() {
        let key = RootKey::random();
        let hex = key.bytes().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let padded = base64::prelude::BASE64_STANDARD.encode(key.bytes());
        let text = key.to_text().to_string();
        for content in [key.bytes(), text.as_bytes(), format!("{text}\n").as_bytes(), hex.as_bytes(), padded.as_bytes()]
        {
            let (_directory, path) = file(content, 0o600);
            assert_eq!(RootKey::from_file(&path).unwrap().bytes(), key.bytes());
        }
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let (_directory, path) = file(RootKey::random().to_text().as_bytes(), mode);
            assert_eq!(RootKey::from_file(&path).unwrap_err(), KeyProblem::Mode(mode));
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(RootKey::from_file(directory.path()).unwrap_err(), KeyProblem::NotRegular);
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(RootKey::from_file(&pipe).unwrap_err(), KeyProblem::NotRegular);
        assert_eq!(RootKey::from_file(&directory.path().join("none")).unwrap_err(), KeyProblem::Missing);
    }

    #[test]
    fn short_long_and_mistyped_keys_are_refused() {
        for text in ["", "hunter2", "0123456789abcdef0123456789abcdef", &"zz".repeat(32), &"A".repeat(44)] {
            assert_eq!(RootKey::from_text(text).unwrap_err(), KeyProblem::Form, "{text}");
        }
        let (_directory, path) = file(b"a passphrase of 32 characters !!", 0o600);
        assert_eq!(RootKey::from_file(&path).unwrap_err(), KeyProblem::Form);
    }

    #[test]
    fn keys_that_are_not_random_are_refused() {
        let counted: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let half: [u8; 16] = RootKey::random().bytes()[..16].try_into().unwrap();
        let twice = [half, half].concat();
        let weak: [&[u8]; 5] = [&[0; 32], &counted, &twice, b"correct horse battery staple yes", &[7; 32]];
        for bytes in weak {
            let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            assert_eq!(RootKey::from_text(&text).unwrap_err(), KeyProblem::Weak, "{text}");
        }
        assert_eq!(RootKey::from_text(EXAMPLES[0]).unwrap_err(), KeyProblem::Example);
    }
}
