//! How requests end.

/// How a request that was let in ended: the log field and the metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server's answer, a result or an error, went out.
    Answered,
    /// The client went away before the answer.
    ClientLeft,
    /// A deadline passed before the answer.
    DeadlinePassed,
    /// The bridge was stopped before the answer.
    Stopped,
    /// The server went away, or talked nonsense, before the answer.
    UpstreamLeft,
}

impl End {
    /// Every one.
    pub(super) const ALL: [Self; 5] =
        [Self::Answered, Self::ClientLeft, Self::DeadlinePassed, Self::Stopped, Self::UpstreamLeft];

    /// The end as a label and as a log field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::ClientLeft => "client_left",
            Self::DeadlinePassed => "deadline_passed",
            Self::Stopped => "stopped",
            Self::UpstreamLeft => "upstream_left",
        }
    }
}
