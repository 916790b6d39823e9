//! Arguments, and how the token is kept out of them.

use super::container::{self, Role};
use super::load::Loader;
use super::template::{self, Source, Template};
use super::value::Draft;

/// Where an argument that holds the token goes.
enum Place {
    /// It stays, if that is allowed.
    Argument,
    /// It becomes a variable of the container engine's client.
    Variable(Assignment),
    /// Nowhere: that has been reported.
    Refused,
}

/// The `NAME=VALUE` in an argument of `docker run`.
struct Assignment {
    name: String,
    /// Where the name starts; before it stands the option itself, if it is in the same argument.
    start: usize,
    /// Where the value starts.
    value: usize,
}

impl Loader<'_> {
    /// The arguments that `drafts` make; those of a container engine's `run` have `roles`, and there variables of the
    /// container that hold the token go to `env`.
    pub(super) fn args(
        &mut self,
        drafts: &[Draft],
        roles: Option<&[Role]>,
        allowed: bool,
        env: &mut Vec<(String, Template)>,
    ) -> Vec<Template> {
        let mut args = Vec::new();
        for (index, draft) in drafts.iter().enumerate() {
            let role = roles.map(|roles| roles[index]);
            let place = match role {
                Some(role) if draft.source == Source::UserToken => self.place(role, draft),
                Some(Role::Pull(from)) => {
                    // A request never waits for an image: `tollbridge pull` gets it before.
                    let option = draft.text.as_ref().map_or("", |text| &text[..from]);
                    args.push(Template::fixed(Source::Bridge, &format!("{option}never")));
                    continue;
                }
                _ => Place::Argument,
            };
            match place {
                Place::Argument => args.extend(self.arg(draft, allowed)),
                Place::Variable(assignment) => self.move_to_env(&assignment, draft, &mut args, env),
                Place::Refused => {}
            }
        }
        args
    }

    pub(super) fn arg(&mut self, draft: &Draft, allowed: bool) -> Option<Template> {
        let template = self.compile(draft, template::arg)?;
        if template.holds_secret() && !allowed {
            let help = "pass it in `env`; if the program takes it in no other way, add \"allowTokenInArgs\": true";
            self.report(&draft.at, "arguments are visible in ps to every user of this machine", help);
        }
        Some(template)
    }

    /// Where the token goes that stands in an argument of `docker run` with this role.
    fn place(&mut self, role: Role, draft: &Draft) -> Place {
        let text = draft.text.as_ref().map_or("", |text| text);
        let help = "pass it to the container by `env` and `-e NAME`";
        let message = match role {
            Role::Program => return Place::Argument,
            Role::Option | Role::Pull(_) => "a placeholder cannot decide how a container is started",
            Role::Image => "an image's name cannot hold a placeholder",
            Role::EnvFile => "a placeholder cannot choose a file of variables",
            Role::Env(start) => match text[start..].split_once('=') {
                Some((name, _)) if !name.is_empty() && !name.contains("<<") => {
                    let value = start + name.len() + 1;
                    return Place::Variable(Assignment { name: name.to_owned(), start, value });
                }
                _ => "a placeholder cannot be part of a variable's name",
            },
        };
        self.report(&draft.at, message, help);
        Place::Refused
    }

    /// `-e NAME=<<token>>` would show the token in ps: it becomes `-e NAME` and a variable of the engine's client.
    fn move_to_env(
        &mut self,
        Assignment { name, start, value }: &Assignment,
        draft: &Draft,
        args: &mut Vec<Template>,
        env: &mut Vec<(String, Template)>,
    ) {
        let text = draft.text.as_ref().map_or("", |text| text);
        if env.iter().any(|(declared, _)| declared == name) {
            let message = format!("`{name}` is declared elsewhere, too");
            self.report(&draft.at, message, format!("keep one: \"-e\", \"{name}\" here and its value in `env`"));
        }
        if *start > 0 {
            let flags = container::bundled_flags(&text[..*start]);
            args.extend(flags.map(|flags| Template::fixed(Source::Plain, flags)));
            args.push(Template::fixed(Source::Plain, "-e"));
        }
        args.push(Template::fixed(Source::Plain, name));
        let rest = Draft::new(draft.at.clone(), Source::UserToken, Some(text[*value..].to_owned()));
        let rest = Draft { from: *value, ..rest };
        env.extend(self.compile(&rest, template::env).map(|template| (name.clone(), template)));
    }
}
