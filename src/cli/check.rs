//! `tollbridge check` and `tollbridge schema`.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Stop, reload, token_store};
use crate::config::{
    self, AuditConfig, AuditFile, Config, Confinement, Hold, IdentityMethod, Listen, LoadOptions, Plan, Server, Source,
    StdioPlan, Tasks, Template, TokenSetup, TokenStoreConfig, TokenStoreKind, Tools,
};
use crate::control::Request;
use crate::memory::{Memory, PARTS};
use crate::metrics::Gauge;
use crate::relay::longest_message;
use crate::secret::Credential;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Let `$env` references that are unset or empty pass.
    #[arg(long)]
    allow_missing_env: bool,
    /// Ask the running bridges that were started with the file what a reload would change, instead of all this.
    #[arg(long, conflicts_with = "allow_missing_env")]
    diff: bool,
}

impl Check {
    /// Reports every problem of the file at once, or what it would start.
    #[must_use]
    pub fn run(self) -> ExitCode {
        Stop::exit(self.check())
    }

    fn check(&self) -> Result<(), Stop> {
        if self.diff {
            return reload::tell(Some(&self.config), Request::Diff);
        }
        let options = LoadOptions { allow_missing_env: self.allow_missing_env, ..LoadOptions::default() };
        let config = config::load(&self.config, &options).map_err(Stop::usage)?;
        let warn = |warning: &dyn fmt::Display| writeln!(io::stderr(), "{warning}\n");
        // A reader that left does not make the configuration a bad one.
        let _ = summary(&config, &mut io::stdout().lock());
        let _ = config.warnings.iter().try_for_each(|warning| warn(warning));
        let _ = memory_warning(&config).map_or(Ok(()), |warning| warn(&format!("warning: limits.memory: {warning}")));
        let _ = older_nodes_warning(&config).map_or(Ok(()), |warning| warn(&format!("warning: tokenStore: {warning}")));
        // Without the secrets of production the store is not production's either.
        if let Some(store) = config.token_store.as_ref().filter(|_| !self.allow_missing_env) {
            let (looks, notices) = token_store::look(store).map_err(|stop| stop.within("error: tokenStore: "))?;
            let _ = writeln!(io::stdout(), "\ntoken store: {looks}");
            let _ = notices.iter().try_for_each(|notice| warn(&format!("warning: tokenStore: {notice}")));
        }
        let count = config.servers.len();
        let _ = writeln!(io::stdout(), "\nok: {count} server{}", if count == 1 { "" } else { "s" });
        Ok(())
    }
}

/// What is to be said of the memory for requests, if one with the longest message takes more than one user's part of it.
fn memory_warning(config: &Config) -> Option<String> {
    const MIB: usize = 1 << 20;
    let exchange = longest_message(config.longest());
    let memory = Memory::new(config.limits.memory, exchange, Gauge::default());
    let wanted = exchange.saturating_mul(PARTS);
    if memory.all() >= wanted {
        return None;
    }
    let (all, one, wanted) = (memory.all() / MIB, exchange.div_ceil(MIB), wanted.div_ceil(MIB));
    let trouble = if memory.all() < exchange {
        "which do not fit: such a request is refused"
    } else {
        "more than an eighth of it: a few users with such requests leave nothing to others"
    };
    Some(format!(
        "{all} MiB are for all requests together, and one with the longest message takes {one} MiB, {trouble}; write \
         \"{wanted}MiB\" or more, or a shorter `line` or `body`"
    ))
}

/// What is to be said of nodes of an earlier version, if users may save what such nodes leave alone.
fn older_nodes_warning(config: &Config) -> Option<String> {
    let store = config.token_store.as_ref().filter(|store| matches!(store.kind, TokenStoreKind::Redis { .. }));
    let is_one_token = |setup: &TokenSetup| {
        setup.expires.is_none() && matches!(&setup.fields[..], [field] if *field.name == *Credential::TOKEN)
    };
    let servers = config.servers.values().filter(|server| server.requires_user_token);
    let (dated, always): (Vec<&Server>, _) =
        servers.map(|server| &**server).partition(|server| is_one_token(&server.token_setup));
    let mut what = Vec::new();
    if !always.is_empty() {
        let names: Vec<_> = always.iter().map(|server| server.name.as_str()).collect();
        what.push(format!("what users save for {}", names.join(", ")));
    }
    if !dated.is_empty() {
        what.push("any token whose last day a person enters on the page".to_owned());
    }
    store.filter(|_| !what.is_empty()).map(|_| {
        format!(
            "{} is kept in a form that earlier versions of tollbridge cannot read; bring all nodes to this version before \
             people use it",
            what.join(", and ")
        )
    })
}

/// Prints the JSON Schema of the configuration file.
#[must_use]
pub fn schema() -> ExitCode {
    let schema = serde_json::to_string_pretty(&config::file::schema()).expect("a schema is JSON");
    let _ = writeln!(io::stdout().lock(), "{schema}");
    ExitCode::SUCCESS
}

/// What `config` says, by names and references and without a single value.
fn summary(config: &Config, out: &mut impl Write) -> io::Result<()> {
    match &config.listen {
        Listen::Tcp(address) => writeln!(out, "listen       {address}")?,
        Listen::Unix(path) => writeln!(out, "listen       unix:{}", path.display())?,
    }
    writeln!(out, "public URL   {}", config.public_url)?;
    writeln!(out, "hosts        {}", config.allowed_hosts.join(", "))?;
    writeln!(out, "origins      {}", config.allowed_origins.join(", "))?;
    if config.identity.is_empty() {
        writeln!(out, "identity     cannot be told: a variable it needs is not set here")?;
    }
    for method in &config.identity {
        writeln!(out, "identity     {}", identity(method))?;
    }
    match &config.token_store {
        Some(store) => writeln!(out, "token store  {}", kept_in(store))?,
        None => writeln!(out, "token store  none: no server needs users' tokens")?,
    }
    if let Some(admin) = &config.admin {
        let api = if admin.token.is_some() { ", with the API for operators" } else { "" };
        writeln!(out, "admin        {}{api}", admin.listen)?;
    }
    if let Some(audit) = &config.audit {
        writeln!(out, "audit        {}", written_to(audit))?;
    }
    for server in config.servers.values() {
        self::server(server, out)?;
        spares(config, server, out)?;
        if server.oauth.is_some() {
            let pasted = if config.takes_paste_back(server) { ", which people paste with what follows it" } else { "" };
            writeln!(out, "  sign-in    redirect URI {}{pasted}", config.redirect_uri(server))?;
        }
    }
    for name in &config.disabled {
        writeln!(out, "\nserver {name} (disabled)")?;
    }
    for name in &config.incomplete {
        writeln!(out, "\nserver {name} (a variable it needs is not set here)")?;
    }
    Ok(())
}

fn identity(method: &IdentityMethod) -> String {
    match method {
        IdentityMethod::Bearer { tokens, incomplete } => {
            let users: Vec<&str> = tokens.iter().map(|token| token.caller.user.subject()).collect();
            let missing: Vec<&str> = incomplete.iter().map(|caller| caller.user.subject()).collect();
            match (users.is_empty(), missing.is_empty()) {
                (false, true) => format!("bearer tokens of {}", users.join(", ")),
                (true, _) => format!("bearer tokens of {} (their variables are not set here)", missing.join(", ")),
                (false, false) => format!(
                    "bearer tokens of {}, and of {} (their variables are not set here)",
                    users.join(", "),
                    missing.join(", ")
                ),
            }
        }
        IdentityMethod::TrustedHeader(header) => {
            let networks = header.trusted_peers.iter().map(ToString::to_string);
            let peers: Vec<String> = networks.chain(header.trust_unix_socket.then(|| "unix".to_owned())).collect();
            let groups = header.groups_header.as_ref().map_or(String::new(), |name| format!(", groups in {name}"));
            format!("header {} from {}, proven by {}{groups}", header.header, peers.join(", "), header.secret_header)
        }
        IdentityMethod::Local(caller) => format!("every caller is taken for the user {}", caller.user.subject()),
    }
}

fn kept_in(store: &TokenStoreConfig) -> String {
    let keys: Vec<&str> = store.keys.iter().map(|key| key.id.as_str()).collect();
    let place = match &store.kind {
        TokenStoreKind::Embedded { path, .. } => format!("embedded in {}", path.display()),
        TokenStoreKind::Redis { prefix, .. } => format!("redis, keys start with {prefix}"),
    };
    match keys[..] {
        [] => format!("{place}; the variables of its sealing keys are not set here"),
        _ => format!("{place}; sealing keys {}", keys.join(", ")),
    }
}

fn written_to(audit: &AuditConfig) -> String {
    let file = audit.file.as_ref().map(|file| match file {
        AuditFile::Stderr => "stderr".to_owned(),
        AuditFile::Path(path) => path.display().to_string(),
    });
    let stream = audit.stream.map(|stream| format!("redis, {} lines at most", stream.max_length));
    let places: Vec<String> = file.into_iter().chain(stream).collect();
    let required = if audit.required { "; a change that cannot be written there is refused" } else { "" };
    format!("{}{required}", places.join(" and "))
}

fn server(server: &Server, out: &mut impl Write) -> io::Result<()> {
    let token = if server.requires_user_token { " (needs the user's token)" } else { "" };
    writeln!(out, "\nserver {}{token}", server.name)?;
    match &server.access.allow {
        Some(allow) => writeln!(out, "  allowed    {allow}")?,
        None if holds_credential(&server.plan) => {
            writeln!(out, "  allowed    everybody, with the operator's own credential: `allow` names who may use it")?;
        }
        None => {}
    }
    for line in server.access.tools.iter().flat_map(Tools::lines) {
        writeln!(out, "  tools      {line}")?;
    }
    tasks(server, out)?;
    match &server.plan {
        Plan::Stdio(plan) => {
            writeln!(out, "  program    {}", plan.program.display())?;
            program(plan, plan.args.len(), out)
        }
        Plan::Container(plan) => {
            writeln!(out, "  engine     {}", plan.engine.program.display())?;
            writeln!(out, "  image     {}", image(&plan.image))?;
            writeln!(out, "  completed  {}", plan.added.join(" "))?;
            program(&plan.client, plan.arguments, out)
        }
        Plan::Http(plan) => {
            writeln!(out, "  url        {}{}", plan.origin, reference(&plan.url))?;
            plan.headers.iter().try_for_each(|(name, value)| writeln!(out, "  header     {name}{}", reference(value)))
        }
    }
}

/// What becomes of tasks, unless it is what anybody would expect.
fn tasks(server: &Server, out: &mut impl Write) -> io::Result<()> {
    match (server.tasks, &server.plan) {
        (Tasks::Hold, _) => {
            let lease = server.process.task_lease;
            writeln!(out, "  tasks      held: a process and a permit of its user for each, for up to {lease:?}")
        }
        (Tasks::Durable, Plan::Stdio(_) | Plan::Container(_)) => {
            writeln!(out, "  tasks      durable: fresh processes are asked about them")
        }
        (Tasks::Off, Plan::Http(_)) => writeln!(out, "  tasks      none are offered"),
        (Tasks::Off | Tasks::Durable, _) => Ok(()),
    }
}

/// How many servers wait for a request, and where.
fn spares(config: &Config, server: &Server, out: &mut impl Write) -> io::Result<()> {
    let Some(spares) = &server.spares else { return Ok(()) };
    let count = config.spares().get(&server.name).copied().unwrap_or_default();
    let short = if count < spares.count { format!(" of {}, by `limits.spares`", spares.count) } else { String::new() };
    let place = match spares.hold {
        Hold::Ready => "each waits for its client's first message",
        Hold::Start => "each waits before its program's first instruction",
        Hold::Node | Hold::Python => {
            "each waits where it first needs what is its user's, or for its client's first message"
        }
    };
    writeln!(out, "  spares     {count}{short}: {place}, for {:?} at most", spares.max_age)
}

/// What the processes of a request are held to, as far as the file says so.
fn confinement(confinement: &Confinement, out: &mut impl Write) -> io::Result<()> {
    if let Some(users) = confinement.run_as {
        let one = users.first == users.last;
        let range = if one { String::new() } else { format!(" to {}, one for each request", users.last) };
        writeln!(out, "  runs as    user {}{range}", users.first)?;
    }
    if let Some(memory) = confinement.memory {
        writeln!(out, "  memory     {memory} bytes")?;
    }
    if let Some(cpus) = confinement.cpus {
        writeln!(out, "  processors {cpus}")?;
    }
    if let Some(pids) = confinement.pids {
        writeln!(out, "  processes  {pids}")?;
    }
    Ok(())
}

/// What is started, with that many arguments as written.
fn program(plan: &StdioPlan, arguments: usize, out: &mut impl Write) -> io::Result<()> {
    let holes = plan.args.iter().filter(|arg| arg.holds_secret()).count();
    let visible = if holes == 0 { String::new() } else { format!(", {holes} with the token, visible in ps") };
    writeln!(out, "  arguments  {arguments}{visible}")?;
    if let Some(cwd) = &plan.cwd {
        writeln!(out, "  directory  {}", cwd.display())?;
    }
    confinement(&plan.confinement, out)?;
    plan.env.iter().try_for_each(|(name, value)| writeln!(out, "  env        {name}{}", reference(value)))?;
    plan.token_files.iter().try_for_each(|file| {
        let (name, directory) = (&file.variable, file.directory.display());
        writeln!(out, "  env        {name} = the path of a file in {directory} that holds the user's token")
    })
}

/// The name of an image, or where it comes from.
fn image(image: &Template) -> String {
    match image.source() {
        Source::Plain => image.fixed_text().map_or(String::new(), |text| format!(" {text}")),
        _ => reference(image),
    }
}

/// Whether a variable of the bridge's own environment goes to the server.
fn holds_credential(plan: &Plan) -> bool {
    let of_program =
        |plan: &StdioPlan| plan.args.iter().chain(plan.env.iter().map(|(_, value)| value)).any(is_operators);
    match plan {
        Plan::Stdio(plan) => of_program(plan),
        Plan::Container(plan) => of_program(&plan.client),
        Plan::Http(plan) => is_operators(&plan.url) || plan.headers.iter().any(|(_, value)| is_operators(value)),
    }
}

fn is_operators(value: &Template) -> bool {
    matches!(value.source(), Source::Env(_))
}

/// Where a value comes from.
fn reference(value: &Template) -> String {
    match value.source() {
        Source::Plain => String::new(),
        Source::Env(name) => format!(" = $env {name}"),
        Source::UserToken | Source::UserTokenFile => " = the user's token".to_owned(),
        Source::Header(name) => format!(" = the request's header {name}"),
        Source::Bridge => " (the bridge's own)".to_owned(),
    }
}
