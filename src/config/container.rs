//! How `docker run` and `podman run` read their arguments, as far as a token and the host are concerned.

use std::path::Path;

use super::options::{GLOBAL, RUN, Syntax};

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An option, or the value of one.
    Option,
    /// The `NAME=VALUE` of `-e` or `--env`, from this byte on; before it, the option itself if it is the same argument.
    Env(usize),
    /// A file of variables, as an option or its value.
    EnvFile,
    /// The image.
    Image,
    /// An argument of the program in the container.
    Program,
}

/// What an engine's client is told.
pub(super) struct Invocation<'a> {
    /// Options of the engine, before the command.
    pub before: Vec<RunOption<'a>>,
    /// What it is to do.
    pub command: Command<'a>,
}

/// What an engine's client is to do.
pub(super) enum Command<'a> {
    /// `run`, or `container run`.
    Run(Run<'a>),
    /// Anything else, by the argument that says what.
    Other(usize),
    /// Nothing.
    Nothing,
}

/// What `run` is told.
pub(super) struct Run<'a> {
    /// Where `run` itself stands.
    pub command: usize,
    /// Its options, in order.
    pub options: Vec<RunOption<'a>>,
    /// Where the image stands.
    pub image: Option<usize>,
}

/// One option.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RunOption<'a> {
    /// Its long name, as in `--volume`; one that is not known, as it is written.
    pub name: &'a str,
    /// Its value; a flag without one has none.
    pub value: Option<&'a str>,
    /// The argument that holds the value, or the option if it has none.
    pub at: usize,
    /// Where in that argument the value starts.
    pub from: usize,
    /// Whether there is such an option, as far as is known here.
    pub is_known: bool,
}

/// Whether `command` is a container engine's command line.
pub(super) fn is_engine(command: &str) -> bool {
    let name = Path::new(command).file_name().and_then(|name| name.to_str());
    matches!(name, Some("docker" | "podman"))
}

/// The one name of an option of `run` that may be written in several ways.
pub(super) fn canonical(name: &str) -> &str {
    RUN.canonical(name)
}

/// What `args` tell an engine's client.
pub(super) fn read<'a>(args: &[&'a str]) -> Invocation<'a> {
    let mut before = Vec::new();
    let mut at = options(&GLOBAL, args, 0, &mut before);
    // Every command for containers has a longer name, too.
    at += usize::from(args.get(at) == Some(&"container") && at + 1 < args.len());
    let command = match args.get(at) {
        Some(&"run") => Command::Run(run(args, at)),
        Some(_) => Command::Other(at),
        None => Command::Nothing,
    };
    Invocation { before, command }
}

fn run<'a>(args: &[&'a str], command: usize) -> Run<'a> {
    let mut run = Run { command, options: Vec::new(), image: None };
    let mut end = options(&RUN, args, command + 1, &mut run.options);
    end += usize::from(args.get(end) == Some(&"--"));
    run.image = Some(end).filter(|&image| image < args.len());
    run
}

/// Reads options from one place on, and tells where the first argument stands that is none.
fn options<'a>(syntax: &Syntax, args: &[&'a str], mut at: usize, options: &mut Vec<RunOption<'a>>) -> usize {
    while let Some(&arg) = args.get(at) {
        at = match arg {
            "-" | "--" => return at,
            long if long.starts_with("--") => read_long(syntax, args, at, options),
            short if short.starts_with('-') => read_bundle(syntax, args, at, options),
            _ => return at,
        };
    }
    at
}

/// Reads the long option at `at`, and tells where the next one stands.
fn read_long<'a>(syntax: &Syntax, args: &[&'a str], at: usize, options: &mut Vec<RunOption<'a>>) -> usize {
    let arg = args[at];
    if let Some((name, value)) = arg.split_once('=') {
        let from = name.len() + 1;
        let name = syntax.canonical(name);
        let is_known = syntax.takes_value(name).is_some();
        options.push(RunOption { name, value: Some(value), at, from, is_known });
        return at + 1;
    }
    let name = syntax.canonical(arg);
    match syntax.takes_value(name) {
        Some(true) => options.push(with_next(name, args, at)),
        known => options.push(RunOption { name, value: None, at, from: 0, is_known: known.is_some() }),
    }
    at + 1 + usize::from(syntax.takes_value(name) == Some(true))
}

/// The same for a bundle of short options: the first that takes a value takes all the rest, or the next argument.
fn read_bundle<'a>(syntax: &Syntax, args: &[&'a str], at: usize, options: &mut Vec<RunOption<'a>>) -> usize {
    let arg = args[at];
    for (place, letter) in arg.char_indices().skip(1) {
        let from = place + letter.len_utf8();
        let Some(name) = syntax.long(letter) else {
            options.push(RunOption { name: arg, value: None, at, from: 0, is_known: false });
            return at + 1;
        };
        let is_flag = syntax.takes_value(name) == Some(false);
        let rest = &arg[from..];
        if let Some(value) = rest.strip_prefix('=').filter(|value| !value.is_empty()) {
            options.push(RunOption { name, value: Some(value), at, from: from + 1, is_known: true });
            return at + 1;
        } else if is_flag {
            options.push(RunOption { name, value: None, at, from: 0, is_known: true });
        } else if rest.is_empty() {
            options.push(with_next(name, args, at));
            return at + 2;
        } else {
            options.push(RunOption { name, value: Some(rest), at, from, is_known: true });
            return at + 1;
        }
    }
    at + 1
}

/// An option whose value is the argument behind it.
fn with_next<'a>(name: &'a str, args: &[&'a str], at: usize) -> RunOption<'a> {
    RunOption { name, value: args.get(at + 1).copied(), at: (at + 1).min(args.len() - 1), from: 0, is_known: true }
}

impl Run<'_> {
    /// Whether there is an option with this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|option| option.name == name)
    }

    /// What each of `count` arguments is.
    pub(super) fn roles(&self, count: usize) -> Vec<Role> {
        let mut roles = vec![Role::Option; count];
        for option in &self.options {
            match option.name {
                "--env" => roles[option.at] = Role::Env(option.from),
                "--env-file" => roles[option.at] = Role::EnvFile,
                _ => {}
            }
        }
        if let Some(image) = self.image {
            roles[image] = Role::Image;
            roles[image + 1..].fill(Role::Program);
        }
        roles
    }
}

/// The option without the `-e` or `--env=` at its end: the flags bundled with it, if any.
pub(super) fn bundled_flags(option: &str) -> Option<&str> {
    let flags = option.trim_end_matches('=').strip_suffix('e').filter(|_| !option.starts_with("--"))?;
    (flags.len() > 1).then_some(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    use Role::{Env, EnvFile, Image, Option, Program};

    fn run_of<'a>(args: &[&'a str]) -> std::option::Option<Run<'a>> {
        match read(args).command {
            Command::Run(run) => Some(run),
            Command::Other(_) | Command::Nothing => None,
        }
    }

    fn roles(args: &[&str]) -> Vec<Role> {
        run_of(args).unwrap().roles(args.len())
    }

    #[test]
    fn the_image_ends_the_options() {
        let args = ["run", "--rm", "-i", "--name", "x", "-e", "K=V", "-v", "-e", "img", "-e", "K=V"];
        let expected =
            [Option, Option, Option, Option, Option, Option, Env(0), Option, Option, Image, Program, Program];
        assert_eq!(roles(&args), expected);
        assert_eq!(roles(&["run", "--rm", "--", "img", "-e"])[3..], [Image, Program]);
    }

    #[test]
    fn every_form_of_a_variable_is_known() {
        let args =
            ["--context", "c", "container", "run", "-eK=V", "-iteK=V", "--env=K=V", "--env", "K=V", "-ie", "K=V"];
        assert_eq!(roles(&args)[4..], [Env(2), Env(4), Env(6), Option, Env(0), Option, Env(0)]);
        assert_eq!((bundled_flags("-ite"), bundled_flags("-e"), bundled_flags("--env=")), (Some("-it"), None, None));
    }

    #[test]
    fn every_form_of_an_option_is_known_by_its_long_name() {
        let run = run_of(&["run", "-it", "-v/a:/b", "--net=host", "--rm=false", "-m", "1g", "-qt=false", "i"]).unwrap();
        let names: Vec<_> = run.options.iter().map(|option| (option.name, option.value)).collect();
        let expected = [
            ("--interactive", None),
            ("--tty", None),
            ("--volume", Some("/a:/b")),
            ("--network", Some("host")),
            ("--rm", Some("false")),
            ("--memory", Some("1g")),
            ("--quiet", None),
            ("--tty", Some("false")),
        ];
        assert_eq!(names, expected);
        assert_eq!(run.image, Some(8));
    }

    #[test]
    fn an_option_that_is_not_known_hides_none() {
        for unknown in ["--new", "-z", "-iz", "-i="] {
            let run = run_of(&["run", unknown, "--privileged", "i"]).unwrap();
            let last: Vec<_> = run.options.iter().rev().map(|option| (option.name, option.is_known)).take(2).collect();
            assert_eq!(last, [("--privileged", true), (unknown, false)]);
        }
        let read = read(&["--new", "run", "i"]);
        assert!(!read.before[0].is_known && matches!(read.command, Command::Run(_)));
    }

    #[test]
    fn only_run_is_run() {
        for (args, at) in [
            (&["exec", "-e", "K=V", "c"][..], 0),
            (&["container", "exec", "c"], 1),
            (&["-DH", "x", "compose", "run", "x"], 2),
            (&["mcp", "gateway", "run"], 0),
            (&["--", "run"], 0),
        ] {
            assert!(matches!(read(args).command, Command::Other(other) if other == at), "{args:?}");
        }
        for args in [&[][..], &["-D"]] {
            assert!(matches!(read(args).command, Command::Nothing), "{args:?}");
        }
        assert!(run_of(&["-D", "-H", "run", "--tls", "--context=c", "run"]).is_some_and(|run| run.command == 5));
        assert!(run_of(&["-DH", "run", "container", "run"]).is_some_and(|run| run.command == 3));
        assert!(is_engine("/usr/bin/docker") && is_engine("podman") && !is_engine("docker-mcp"));
        assert_eq!(roles(&["run", "--env-file", "f", "--env-file=f"])[2..], [EnvFile; 2]);
        assert!(run_of(&["run", "-v"]).is_some_and(|run| run.image.is_none()));
    }
}
