//! Fields with a closed choice of words: the same as written and as meant.

/// Which container engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "engine")]
pub enum EngineKind {
    /// Docker, and what speaks its language.
    #[default]
    Docker,
    /// Podman.
    Podman,
}

impl EngineKind {
    /// The name of its client.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// For how long a server runs behind the HTTP+SSE of 2024-11-05.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "sse")]
pub enum SseServers {
    /// For a request, as elsewhere.
    #[default]
    Request,
    /// For as long as the stream is open: for a server of an older era whose state its client comes back to.
    Session,
}

/// Where spares wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "hold")]
pub enum Hold {
    /// For their client's first message: only where nothing of the server is the user's.
    Ready,
    /// Before their program's first instruction: what is the user's is told to them then.
    Start,
    /// Where a program on Node.js first reads a variable that is the user's, or waits for its first message.
    Node,
    /// The same for a program on Python.
    Python,
}

impl Hold {
    /// Whether it is the program's runtime that waits.
    #[must_use]
    pub fn is_gate(self) -> bool {
        matches!(self, Self::Node | Self::Python)
    }
}

/// What a library gets that copies all variables while it is imported, in a spare on Python.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "environmentCopies")]
pub enum EnvironmentCopies {
    /// All of them: the spare waits there for its request.
    #[default]
    Wait,
    /// Those that are not the user's.
    Without,
}

/// When a stream on which a client listens has a server of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "listening")]
pub enum Listening {
    /// For as long as its client is subscribed to a resource. What the servers of calls say of changed lists goes out on
    /// it at any time.
    #[default]
    Subscribed,
    /// Always: for a server that watches something outside of itself and announces changed lists unasked.
    Always,
}

/// What becomes of the questions that a server of an older era asks in the middle of a call, when the client is of the
/// era that answers by calling again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "questions")]
pub enum Questions {
    /// The server waits, for `parkLease` at most, until the client calls again. What it did before is done once.
    #[default]
    Park,
    /// The server is ended, and the call begins anew with the answers. Right where doing it twice is harmless.
    Replay,
    /// The server is told that the client cannot be asked.
    Refuse,
}

/// What becomes of the requests of a user who has saved no token for a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "withoutToken")]
pub enum WithoutToken {
    /// The bridge answers the handshake and the lists in the server's place, so that the client connects; calls lead to the
    /// page where a token is saved.
    #[default]
    Connect,
    /// The server answers the handshake and the lists, started without what a user has saved; calls lead to the page.
    Start,
    /// Every request is refused, with the link to the page.
    Error,
}

/// What becomes of the tasks of a server that do not outlive its processes: calls that are answered with a handle, by which
/// their client asks for the result later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "tasks")]
pub enum TaskKeeping {
    /// They are taken out of what it offers.
    Off,
    /// The process that began one is held until its end, and found by whoever asks about it.
    Hold,
}

/// The protocol era to speak with a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "protocol")]
pub enum Protocol {
    /// What it turns out to speak.
    #[default]
    Auto,
    /// Revisions with `initialize`.
    Legacy,
    /// Revisions without.
    Modern,
}

/// How to speak HTTP to a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "transport")]
pub enum Transport {
    /// What it turns out to speak.
    #[default]
    Auto,
    /// Streamable HTTP.
    Streamable,
    /// HTTP+SSE of 2024-11-05.
    Sse,
}

/// Which uses of a token are written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "auditedUses")]
pub enum AuditedUses {
    /// Each.
    #[default]
    Each,
    /// The first of a day per user and server that a node sees.
    Daily,
}

/// How a client shows a service who it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "clientAuth")]
pub enum ClientAuthentication {
    /// As the service says that it can; with a secret in a header if it says nothing.
    #[default]
    Auto,
    /// With its secret in a header.
    Basic,
    /// With its secret in the form.
    Post,
    /// With its id alone.
    None,
}

/// How the bridge becomes known to a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "registration")]
pub enum Registration {
    /// The first of the others that can be.
    #[default]
    Auto,
    /// By a `clientId` that was registered by hand.
    Preregistered,
    /// By a document of the bridge's that the service reads.
    MetadataDocument,
    /// It registers itself.
    Dynamic,
}

/// What a person may do instead of signing in at a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "also")]
pub enum PasteToo {
    /// Paste a token.
    Token,
}
