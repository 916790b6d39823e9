//! How a container is started: a `docker run …` as it was written, or as `image_plan` makes it, completed with what
//! keeps the container small and lets it be ended.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use super::client_environment::{OF_CLIENTS, is_read_by_client};
use super::options::{self, Verdict, canonical, is_of_privileges};
use super::{Command, Engine, Invocation, Run, RunOption};
use crate::config::load::Loader;
use crate::config::template::{Source, Template};
use crate::config::value::Draft;
use crate::config::written::path::Path;
use crate::config::{Confinement, ContainerPlan, StdioPlan, TokenFilePlan};

/// The most processes and threads in a container: several times what a server on Node needs.
const PIDS: u64 = 256;
/// The most memory of a container.
const MEMORY: u64 = 1 << 30;

/// What `allowUnsafe` and `requireDigest` of one server say.
pub(in crate::config) struct Rules {
    at: Path,
    allowed: Option<Vec<Option<String>>>,
    digest: Option<bool>,
}

impl Rules {
    pub(in crate::config) fn new(at: &Path, allowed: Option<Vec<Option<String>>>, digest: Option<bool>) -> Self {
        Self { at: at.clone(), allowed, digest }
    }

    fn allow(&self, name: &str) -> bool {
        self.allowed.iter().flatten().flatten().any(|allowed| canonical(allowed) == name)
    }
}

/// A `run` that has been checked.
pub(in crate::config) struct Completed {
    /// The image, as written.
    pub image: Template,
    /// What it lacked.
    pub added: Vec<String>,
    /// What a pull must be told, too.
    pub pull: Vec<String>,
    /// How many arguments were written.
    pub arguments: usize,
    /// How many of them stand behind the image.
    pub behind_image: usize,
    /// The entry point that was written.
    pub entrypoint: Option<Vec<String>>,
}

impl Loader<'_> {
    /// These fields of a server that starts no container would do nothing.
    pub(in crate::config) fn refuse_rules(&mut self, rules: &Rules) {
        let written = [("allowUnsafe", rules.allowed.is_some()), ("requireDigest", rules.digest.is_some())];
        for (name, _) in written.into_iter().filter(|(_, written)| *written) {
            let message = format!("`{name}` belongs to a server with `image`, or with `docker run`");
            self.report_key(&rules.at.key(name), message, "take it out");
        }
    }

    /// The `run` of an engine's client, if that is what it is told. Any other command is refused.
    pub(in crate::config) fn run_of<'a>(
        &mut self,
        drafts: &[Draft],
        invocation: Invocation<'a>,
        rules: &Rules,
    ) -> Option<Run<'a>> {
        for option in &invocation.before {
            self.check_option(&drafts[option.at].at, option, rules);
        }
        let mut names: Vec<&str> = invocation.before.iter().map(|option| option.name).collect();
        match invocation.command {
            Command::Run(run) => {
                names.extend(run.options.iter().map(|option| option.name));
                self.check_rules(rules, &names);
                return Some(run);
            }
            Command::Other(at) => {
                // One that comes from a variable that is not set here has been reported, or may be missing.
                let name = drafts[at].text.as_ref().map(|text| text.as_str())?;
                names.push(name);
                self.check_rules(rules, &names);
                self.check_command(&drafts[at].at, name, rules);
            }
            Command::Nothing => self.refuse_rules(rules),
        }
        None
    }

    /// A command that is not `run`: what it starts is not a child of the client, nor known by a name of the bridge.
    fn check_command(&mut self, at: &Path, name: &str, rules: &Rules) {
        if !rules.allow(name) {
            let help = "write `docker run -i --rm IMAGE`, or \"image\", which gives each request a container of its own; \
                or name the command in `allowUnsafe`";
            let message = "only `run` is ended with its request: what another command of the engine starts goes on";
            self.report(at, message, help);
        }
    }

    /// Refuses to run an engine's client as somebody else: what clears away would look for the container at another engine,
    /// if each user has one of their own.
    pub(in crate::config) fn refuse_run_as(&mut self, at: &Path) {
        let at = at.key("runAs");
        if self.document.kind(&at) != "nothing" {
            let help =
                "take it out; who runs in the container is said by `user` beside `image`, or by `--user` behind `run`";
            self.report_key(&at, "the client of a container engine runs as the bridge does", help);
        }
    }

    /// Checks a `run` as it was written, and tells what it lacks.
    pub(in crate::config) fn complete(
        &mut self,
        drafts: &[Draft],
        run: &Run<'_>,
        rules: &Rules,
        limits: &Confinement,
    ) -> Option<Completed> {
        for option in &run.options {
            self.check_option(&drafts[option.at].at, option, rules);
        }
        let Some(at) = run.image else {
            self.report(&rules.at.key("args"), "`run` names no image", "write the image behind the options");
            return None;
        };
        let draft = &drafts[at];
        let text = draft.text.as_ref().map(|text| text.as_str());
        self.check_image(&draft.at, text, rules);
        let image = Template::fixed(draft.source.clone(), text.unwrap_or_default());
        Some(Completed {
            image,
            added: missing(run, limits),
            pull: of_pull(run),
            arguments: drafts.len(),
            behind_image: drafts.len() - at - 1,
            entrypoint: entrypoint(run),
        })
    }

    /// Checks that `allowUnsafe` names only what stands in the arguments.
    pub(in crate::config) fn check_rules(&mut self, rules: &Rules, names: &[&str]) {
        for (index, name) in rules.allowed.iter().flatten().enumerate() {
            if name.as_deref().is_some_and(|name| !names.contains(&canonical(name))) {
                let at = rules.at.key("allowUnsafe").index(index);
                self.report(&at, "this server has no such option or command", "take it out, or correct its name");
            }
        }
    }

    pub(in crate::config) fn check_option(&mut self, at: &Path, option: &RunOption<'_>, rules: &Rules) {
        let name = option.name;
        match options::judge(option.known, option.value) {
            Verdict::Accepted => {}
            Verdict::Own => {
                let help =
                    "take it out: every request has a container of its own, which the bridge names, talks to and ends";
                self.report(at, format!("the bridge sets `{name}` itself"), help);
            }
            Verdict::Refused(_) if rules.allow(name) && (option.known.is_some() || option.value.is_some()) => {}
            Verdict::Refused(why) => {
                let help = match option.known {
                    Some(_) => format!("take `{name}` out, or add \"allowUnsafe\": [\"{name}\"]"),
                    None => format!(
                        "take it out: limits are `memory`, `cpus` and `pids`; or write it as --name=value (=true where \
                         it takes none), and add \"allowUnsafe\": [\"{name}\"]"
                    ),
                };
                self.report(at, why, help);
            }
        }
    }

    pub(in crate::config) fn check_image(&mut self, at: &Path, image: Option<&str>, rules: &Rules) {
        // One that comes from a variable that is not set here has been reported, or may be missing.
        let Some(image) = image else { return };
        if image.is_empty() || image.starts_with('-') || image.contains(|c: char| c.is_whitespace() || c.is_control()) {
            self.report(at, "this is not the name of an image", "write for example mcp/notion@sha256:…");
        } else if rules.digest == Some(true) && !has_digest(image) {
            let help = "write name@sha256:… with the digest that `docker images --digests` shows";
            self.report(at, "this image is not named by its digest", help);
        }
    }

    /// Refuses a hole in a variable that decides what the engine's client does.
    pub(in crate::config) fn check_client(&mut self, at: &Path, client: &StdioPlan) {
        for (name, template) in &client.env {
            if template.has_holes() && is_read_by_client(name) {
                let help = "use another name for it, or { \"$userTokenFile\": \"<<token>>\" }";
                let at = if self.document.kind(&at.key(name)) == "nothing" { at.clone() } else { at.key(name) };
                self.report(&at, format!("the engine's own client reads `{name}`: no placeholder can be in it"), help);
            }
        }
    }

    /// The plan of a container that `client` starts with its argument `run` at this place.
    pub(in crate::config) fn container(
        &self,
        mut client: StdioPlan,
        run: usize,
        completed: Completed,
    ) -> ContainerPlan {
        let Completed { image, mut added, pull, arguments, behind_image, entrypoint } = completed;
        self.inherit_of_clients(&mut client.env);
        added.extend(client.token_files.iter().map(|file| format!("--env={}", file.variable)));
        let options = added.iter().map(|option| Template::fixed(Source::Bridge, option));
        let options_at = (run + 1).min(client.args.len());
        client.args.splice(options_at..options_at, options);
        let engine = Arc::new(engine(&client, run));
        ContainerPlan { engine, image, client, options_at, added, pull, arguments, behind_image, entrypoint }
    }

    fn inherit_of_clients(&self, env: &mut Vec<(String, Template)>) {
        for name in OF_CLIENTS {
            let own = || self.options.environment.read(name).and_then(|value| value.into_string().ok());
            if env.iter().all(|(declared, _)| declared != name)
                && let Some(value) = own().filter(|value| !value.is_empty())
            {
                env.push((name.to_owned(), Template::fixed(Source::Bridge, &value)));
            }
        }
    }

    /// Refuses files with the token for a program that runs as somebody else, who could not read them.
    pub(in crate::config) fn check_token_files(&mut self, at: &Path, program: &StdioPlan) {
        if let (Some(file), true) = (program.token_files.first(), program.confinement.run_as.is_some()) {
            let help = "pass the token with `$userToken`, or take `runAs` out";
            let at = at.key("env").key(&file.variable);
            self.report(&at, "a program that runs as another user could not read this file", help);
        }
    }

    /// The file of a variable that was written as `$userTokenFile`.
    pub(in crate::config) fn token_file(
        &mut self,
        at: &Path,
        variable: String,
        content: Template,
    ) -> Option<TokenFilePlan> {
        let own = self.options.environment.read("XDG_RUNTIME_DIR").map(PathBuf::from);
        let candidates = own.into_iter().chain([PathBuf::from("/dev/shm"), PathBuf::from("/run")]);
        let Some(directory) = candidates.into_iter().find(|directory| is_in_memory(directory)) else {
            let help = "mount a tmpfs at /dev/shm, or pass the token with `$userToken`";
            self.report(at, "there is no directory in memory to which a token could be written", help);
            return None;
        };
        Some(TokenFilePlan { variable, directory, content })
    }
}

/// Options without which a container would be larger than it must be, or could not be ended, and that `run` lacks.
pub(in crate::config) fn missing(run: &Run<'_>, limits: &Confinement) -> Vec<String> {
    let values = |name: &'static str| {
        let named = run.options.iter().filter(move |option| option.name == name);
        named.filter_map(|option| option.value)
    };
    let drops_all = |dropped: &str| dropped.split(',').any(|one| one.eq_ignore_ascii_case("all"));
    let options = [
        ("--rm".to_owned(), run.has("--rm")),
        ("--interactive".to_owned(), run.has("--interactive")),
        ("--init".to_owned(), run.has("--init")),
        // Whoever removes it by force means it: podman would wait ten seconds, and so does a daemon that restarts.
        ("--stop-timeout=0".to_owned(), run.has("--stop-timeout")),
        ("--pull=never".to_owned(), run.has("--pull")),
        ("--log-driver=none".to_owned(), run.has("--log-driver")),
        ("--security-opt=no-new-privileges".to_owned(), values("--security-opt").any(is_of_privileges)),
        ("--cap-drop=ALL".to_owned(), values("--cap-drop").any(drops_all)),
        (format!("--pids-limit={}", limits.pids.unwrap_or(PIDS)), run.has("--pids-limit")),
        (format!("--oom-score-adj={}", limits.oom_score_adj), run.has("--oom-score-adj")),
        (format!("--memory={}b", limits.memory.unwrap_or(MEMORY)), run.has("--memory")),
        (
            limits.cpus.map_or(String::new(), |cpus| format!("--cpus={cpus}")),
            limits.cpus.is_none() || run.has("--cpus"),
        ),
    ];
    options.into_iter().filter(|(_, written)| !written).map(|(option, _)| option).collect()
}

/// The options by which an image is chosen and got, in a form that `pull` takes.
fn of_pull(run: &Run<'_>) -> Vec<String> {
    const OF_IMAGES: &str = "--arch --authfile --disable-content-trust --os --platform --tls-verify --variant";
    let chooses = |name: &str| OF_IMAGES.split_ascii_whitespace().any(|option| option == name);
    let options = run.options.iter().filter(|option| chooses(option.name));
    options.filter_map(|option| Some(format!("{}={}", option.name, option.value?))).collect()
}

/// The entry point that is written: one word, or a list as podman takes it. The last one counts.
fn entrypoint(run: &Run<'_>) -> Option<Vec<String>> {
    let written = run.options.iter().rfind(|option| option.name == "--entrypoint")?.value?;
    let word = || if written.is_empty() { Vec::new() } else { vec![written.to_owned()] };
    Some(serde_json::from_str(written).unwrap_or_else(|_| word()))
}

/// What the engine's client is confined to, which has a directory only if one was asked for: the limits are the
/// container's.
pub(in crate::config) fn of_client(private_directory: Option<u64>) -> Confinement {
    Confinement { private_directory, ..Confinement::default() }
}

/// The engine that `client` calls, with what stands before its argument `run` (or `container run`).
fn engine(client: &StdioPlan, run: usize) -> Engine {
    let text = |template: &Template| template.fixed_text().unwrap_or_default();
    let mut args: Vec<String> = client.args.iter().take(run).map(text).collect();
    args.pop_if(|last| last == "container");
    let of_client = |name: &str| is_read_by_client(name) || name == "LANG";
    let env = client.env.iter().filter(|(name, template)| of_client(name) && !template.has_holes());
    Engine {
        program: client.program.clone(),
        args,
        env: env.map(|(name, value)| (name.clone(), text(value))).collect(),
    }
}

/// Whether an image is named by what it holds.
fn has_digest(image: &str) -> bool {
    image.rsplit_once("@sha256:").is_some_and(|(name, digest)| {
        !name.is_empty() && digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// Whether a directory is one that we may write to, and never goes to a disk.
fn is_in_memory(directory: &FilePath) -> bool {
    /// `TMPFS_MAGIC` and `RAMFS_MAGIC`.
    const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    let kind = rustix::fs::statfs(directory).ok().and_then(|system| u64::try_from(system.f_type).ok());
    directory.is_absolute()
        && kind.is_some_and(|kind| IN_MEMORY.contains(&kind))
        && rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok()
}
