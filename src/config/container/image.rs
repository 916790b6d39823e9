//! A container that is described by `image` and the fields beside it.

use super::client_environment::is_read_by_client;
use super::options::{self, RUN};
use super::run::{self, Completed, Rules, of_client};
use super::{Command, RunOption};
use crate::config::load::Loader;
use crate::config::server_kinds::Variables;
use crate::config::template::{Source, Template};
use crate::config::value::Expansion;
use crate::config::written::file::{self, Value};
use crate::config::written::path::Path;
use crate::config::{ContainerPlan, StdioPlan};

impl Loader<'_> {
    /// What is started from `image`.
    pub(in crate::config) fn image_plan(&mut self, at: &Path, mut file: file::Server) -> Option<ContainerPlan> {
        let resolve = file.disabled != Some(true);
        let rules = Rules::new(at, file.allow_unsafe.take(), file.require_digest);
        let confinement = self.confinement(at, &file);
        let image = self.image(&at.key("image"), file.image.take(), resolve, &rules);
        let mut written = vec!["run".to_owned()];
        for (at, option) in self.image_options(at, &file) {
            let parts = option.split_once('=');
            let (name, value) = parts.map_or((option.as_str(), None), |(name, value)| (name, Some(value)));
            let known = options::long(RUN, name);
            self.check_option(&at, &RunOption { name, value, at: 0, from: 0, known }, &rules);
            written.push(option);
        }
        let words: Vec<&str> = written.iter().map(String::as_str).collect();
        let added = match super::read(&words).command {
            Command::Run(run) => {
                let names: Vec<&str> = run.options.iter().map(|option| option.name).collect();
                self.check_rules(&rules, &names);
                run::missing(&run, &confinement)
            }
            Command::Other(_) | Command::Nothing => Vec::new(),
        };
        let Variables { mut env, token_files } = self.variables(&at.key("env"), file.env.unwrap_or_default(), resolve);
        written.extend(handed_over(&mut env));
        let drafts = self.drafts(&at.key("args"), file.args, resolve);
        let allowed = file.allow_token_in_args == Some(true);
        let image = image?;
        let mut args: Vec<Template> = written.iter().map(|option| Template::fixed(Source::Bridge, option)).collect();
        args.push(Template::fixed(image.source().clone(), &image.fixed_text().unwrap_or_default()));
        args.extend(drafts.iter().filter_map(|draft| self.arg(draft, allowed)));
        self.inherit(&mut env, false);
        let command = file.engine.unwrap_or_default().command();
        let program = if resolve { Some(self.program(&at.key("engine"), command)?) } else { None };
        let program = program.unwrap_or_default();
        let confinement = of_client(None);
        let client = StdioPlan { program, args, env, token_files, cwd: None, confinement };
        let arguments = drafts.len();
        let completed =
            Completed { image, added, pull: Vec::new(), arguments, behind_image: arguments, entrypoint: None };
        let plan = self.container(client, 0, completed);
        self.check_client(&at.key("env"), &plan.client);
        Some(plan)
    }

    fn image(&mut self, at: &Path, value: Option<Value>, resolve: bool, rules: &Rules) -> Option<Template> {
        if let Some(Value::UserToken(_) | Value::UserTokenFile(_)) = value {
            self.report(at, "an image's name cannot hold a placeholder", "write the image's name");
            return None;
        }
        let draft = self.draft(at, value?, Expansion::Whole, resolve)?;
        self.check_image(at, draft.text.as_ref().map(|text| text.as_str()), rules);
        // A server without its image cannot be served; `check` may be content with its name.
        (draft.text.is_some() || !resolve).then_some(())?;
        Some(Template::fixed(draft.source, draft.text.as_ref().map_or("", |text| text)))
    }

    /// The options that the fields of a container mean, each with its place.
    fn image_options(&mut self, at: &Path, file: &file::Server) -> Vec<(Path, String)> {
        let mut options: Vec<(Path, String)> = Vec::new();
        let mut add = |field: Path, option: String| options.push((field, option));
        for (field, text) in [("network", &file.network), ("user", &file.user)] {
            let Some(text) = text else { continue };
            if text.is_empty() || text.contains(char::is_whitespace) {
                self.report(&at.key(field), "this is empty or has spaces in it", "write one word, or take it out");
                continue;
            }
            add(at.key(field), format!("--{field}={text}"));
        }
        if file.read_only == Some(true) {
            add(at.key("readOnly"), "--read-only".to_owned());
            add(at.key("readOnly"), "--tmpfs=/tmp".to_owned());
        }
        for (index, mount) in file.mounts.iter().flatten().enumerate() {
            let at = at.key("mounts").index(index);
            options.extend(mount.as_ref().and_then(|mount| self.mount(&at, mount)).map(|option| (at, option)));
        }
        options
    }

    /// `source:target`, read-only, or `source:target:rw`.
    fn mount(&mut self, at: &Path, text: &str) -> Option<String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, mode) = match parts[..] {
            [source, target] => (source, target, "ro"),
            [source, target, mode @ ("ro" | "rw")] => (source, target, mode),
            _ => {
                self.report(at, "this is not a mount", "write source:target, or source:target:rw");
                return None;
            }
        };
        if source.is_empty() || !target.starts_with('/') {
            self.report(at, "this is not a mount", "write a path or a volume, `:`, and an absolute path");
            return None;
        }
        // Without a slash it is the name of a volume.
        let source = if source.contains('/') { self.located(source).display().to_string() } else { source.to_owned() };
        Some(format!("--volume={source}:{target}:{mode}"))
    }
}

/// The options by which a container gets these variables. The client reads their values from its own environment,
/// where `ps` does not show them; what it would take for its own stands in the option, and never holds a secret.
fn handed_over(env: &mut Vec<(String, Template)>) -> Vec<String> {
    let is_own = |name: &str, value: &Template| value.source() == &Source::Plain && is_read_by_client(name);
    let mut options = Vec::new();
    for (name, value) in env.iter() {
        let text = if is_own(name, value) { value.fixed_text() } else { None };
        options.push(text.map_or(format!("--env={name}"), |text| format!("--env={name}={text}")));
    }
    env.retain(|(name, value)| !is_own(name, value));
    options
}
