//! What `tollbridge token set` is given: secrets on stdin, where nobody sees them, the rest in arguments.

use std::io::{self, Read};

use zeroize::Zeroizing;

use super::prompt;
use crate::cli::Stop;
use crate::config::{TokenField, TokenSetup};
use crate::secret::Credential;
use crate::tokens::MAX_TOKEN;

/// Values by the names of fields.
pub(super) type Given = Vec<(String, Zeroizing<Vec<u8>>)>;

/// The values of `named` (`NAME=VALUE`), and those of the secret fields that `setup` asks for from stdin: one is all of it,
/// of several each is a line, in the order of the configuration. At a terminal each is asked for and typed unseen;
/// `whose` ends the question.
pub(super) fn read(setup: &TokenSetup, named: &[String], whose: &str) -> Result<Given, Stop> {
    let mut given = Given::new();
    for argument in named {
        let (name, value) = argument.split_once('=').ok_or_else(|| Stop::usage("--field takes NAME=VALUE"))?;
        if setup.fields.iter().any(|field| *field.name == *name && field.is_secret) {
            return Err(Stop::usage(format!("`{name}` is a secret: give it on stdin, where nobody sees it")));
        }
        given.push((name.to_owned(), Zeroizing::new(value.as_bytes().to_vec())));
    }
    let secret: Vec<&TokenField> = setup.fields.iter().filter(|field| field.is_secret).collect();
    let values = secrets(&secret, whose).map_err(|error| Stop::failed(format!("no token read: {error}")))?;
    given.extend(secret.iter().map(|field| field.name.to_string()).zip(values));
    Ok(given)
}

fn secrets(fields: &[&TokenField], whose: &str) -> io::Result<Vec<Zeroizing<Vec<u8>>>> {
    let stdin = io::stdin();
    if rustix::termios::isatty(&stdin) {
        let ask = |field: &&TokenField| prompt::read_unseen(&stdin, &format!("{} {whose}: ", called(field)));
        return fields.iter().map(ask).collect();
    }
    // One more than a value and its line end may have, so that a longer one is seen to be longer.
    let limit = fields.len() * (MAX_TOKEN + 3);
    let mut input = Zeroizing::new(Vec::with_capacity(limit));
    stdin.lock().take(limit as u64).read_to_end(&mut input)?;
    let input = input.strip_suffix(b"\n").unwrap_or(&input);
    let lines = match fields {
        [_] => vec![input],
        _ => input.split(|byte| *byte == b'\n').collect(),
    };
    if lines.len() > fields.len() {
        return Err(io::Error::other("there are more lines than secret fields: a value is one line"));
    }
    let line = |line: &[u8]| Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
    Ok(lines.into_iter().map(line).collect())
}

/// What a field is called in a question.
fn called(field: &TokenField) -> &str {
    match &field.label {
        Some(label) => label,
        None if *field.name == *Credential::TOKEN => "Token",
        None => &field.name,
    }
}
