//! What is wrong with a configuration file, all of it at once, without a single value of it.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Where in the file, as a JSON path (`mcpServers.notion.env.TOKEN`); empty for the file as a whole.
    pub path: String,
    /// The line and the column of it, both from 1; `None` for the file as a whole.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
    /// All of this with an excerpt of the file, its values blotted out.
    pub(super) rendered: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rendered)
    }
}

/// Everything that is wrong, in the order of the file. Never empty.
#[derive(Debug)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems, sorted by where they stand.
    pub(in crate::config) fn new(mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.position);
        Self(list)
    }

    /// A problem with the file as a whole.
    pub(in crate::config) fn of_file(message: String, help: &str) -> Self {
        let rendered = format!("error: {message}\n  = help: {help}");
        Self(vec![Problem { path: String::new(), position: None, message, help: help.to_owned(), rendered }])
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Every problem with its excerpt, then their number on a line of its own.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self {
            writeln!(f, "{problem}\n")?;
        }
        write!(f, "{} problem{}", self.len(), if self.len() == 1 { "" } else { "s" })
    }
}

impl std::error::Error for Problems {}
