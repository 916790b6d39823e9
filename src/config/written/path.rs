//! Where in the file a value stands: `mcpServers.notion.args[1]`.

use std::fmt;

/// A JSON path from the root of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::config) struct Path(Vec<Step>);

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Step {
    /// Into an object.
    Key(String),
    /// Into an array.
    Index(usize),
}

impl Path {
    /// The root of the file.
    pub(in crate::config) fn root() -> Self {
        Self::default()
    }

    /// The field `name` of the object here.
    pub(in crate::config) fn key(&self, name: &str) -> Self {
        self.step(Step::Key(name.to_owned()))
    }

    /// The element `index` of the array here.
    pub(in crate::config) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// One step further.
    pub(in crate::config) fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// `self`, then `rest`.
    pub(in crate::config) fn join(&self, rest: &Self) -> Self {
        Self(self.0.iter().chain(&rest.0).cloned().collect())
    }

    /// The path one step back; the root's is the root.
    pub(in crate::config) fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    /// The last step.
    pub(in crate::config) fn last(&self) -> Option<&Step> {
        self.0.last()
    }

    /// The steps from the root.
    pub(in crate::config) fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl From<&serde_path_to_error::Path> for Path {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        let steps = path.iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { variant } => Some(Step::Key(variant.clone())),
            Segment::Unknown => None,
        });
        Self(steps.collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if place == 0 { "" } else { "." };
                    let bare = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-$".contains(c));
                    if bare { write!(f, "{dot}{key}")? } else { write!(f, "{dot}{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_people_write_it() {
        let at = Path::root().key("mcpServers").key("my server").key("args").index(1).key("$env");
        assert_eq!(at.to_string(), "mcpServers.\"my server\".args[1].$env");
        assert_eq!(at.parent().parent().to_string(), "mcpServers.\"my server\".args");
    }
}
