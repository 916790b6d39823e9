//! Asks for a secret at a terminal without showing it.

use std::io::{self, Read, Stdin, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::tokens::MAX_TOKEN;

const BACKSPACE: [u8; 2] = [0x7f, 0x08];
const END_OF_TEXT: u8 = 0x04;
const CLEAR_LINE: u8 = 0x15;

/// Asks `question` and reads a line that is not shown.
///
/// Character by character, because a terminal cuts the lines that it edits itself at 4 KiB, and tokens are longer.
pub(super) fn read_unseen(terminal: &Stdin, question: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut screen = io::stderr();
    write!(screen, "{question}")?;
    screen.flush()?;
    let _silence = Silence::begin(terminal)?;
    let line = read_line(&mut terminal.lock());
    writeln!(screen)?;
    line
}

/// Reads up to the end of a line, with backspace and ^U at work as everywhere.
fn read_line(input: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_TOKEN + 2));
    let mut byte = [0];
    while line.len() <= MAX_TOKEN && input.read(&mut byte)? == 1 {
        match byte[0] {
            b'\n' | b'\r' | END_OF_TEXT => break,
            CLEAR_LINE => line.clear(),
            // A character may have several bytes; those after its first begin with 10.
            erase if BACKSPACE.contains(&erase) => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            other => line.push(other),
        }
    }
    Ok(line)
}

/// A terminal that shows nothing, until this is dropped.
struct Silence<'a> {
    terminal: &'a Stdin,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn begin(terminal: &'a Stdin) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _gone = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str) -> String {
        String::from_utf8(read_line(&mut keys.as_bytes()).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_line_ends_where_it_is_sent_and_can_be_corrected() {
        assert_eq!(typed("token\nrest"), "token");
        assert_eq!(typed("token\x04"), "token");
        assert_eq!(typed("tokem\x7fn\u{e9}\x7f\x08n"), "token");
        assert_eq!(typed("oops\x15token"), "token");
        assert_eq!(typed("\x7f\x7ftoken"), "token");
        assert_eq!(typed(&"x".repeat(20_000)).len(), MAX_TOKEN + 1);
    }
}
