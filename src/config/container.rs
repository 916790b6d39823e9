//! Servers in containers: how `docker run` and `podman run` read their arguments, and what a server may be given.

mod client_environment;
mod engine;
mod image;
mod mounts;
mod options;
pub(super) mod run;

use std::path::Path;

pub use engine::Engine;
use options::{ENGINE, Known, RUN};

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An option, or the value of one.
    Option,
    /// The `NAME=VALUE` of `-e` or `--env`, from this byte on; before it, the option itself if it is the same argument.
    Env(usize),
    /// A file of variables, as an option or its value.
    EnvFile,
    /// When the image is pulled, from this byte on.
    Pull(usize),
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
pub(super) struct RunOption<'a> {
    /// Its long name, as in `--volume`; one that is not known, as it is written.
    pub name: &'a str,
    /// Its value; a flag without one has none.
    pub value: Option<&'a str>,
    /// The argument that holds the value, or the option if it has none.
    pub at: usize,
    /// Where in that argument the value starts.
    pub from: usize,
    /// What is known of it.
    pub known: Option<&'static Known>,
}

/// Whether `command` is a container engine's command line.
pub(super) fn is_engine(command: &str) -> bool {
    let name = Path::new(command).file_name().and_then(|name| name.to_str());
    matches!(name, Some("docker" | "podman"))
}

/// Programs that start what their arguments name.
const STARTERS: &str = "sh bash dash ash ksh zsh busybox env sudo doas su runuser nohup setsid nice ionice timeout stdbuf \
    chroot unshare nsenter xargs script";

/// The argument by which another program would start an engine's client: what it starts is then not known by name, and
/// not ended with its request.
pub(super) fn hidden_engine(command: &str, args: &[&str]) -> Option<usize> {
    let name = Path::new(command).file_name().and_then(|name| name.to_str())?;
    let is_separator = |c: char| c.is_whitespace() || "\"'`$;|&(){}<>=".contains(c);
    let starts = STARTERS.split_ascii_whitespace().any(|starter| starter == name);
    args.iter().position(|arg| starts && arg.split(is_separator).any(is_engine))
}

/// What `args` tell an engine's client.
pub(super) fn read<'a>(args: &[&'a str]) -> Invocation<'a> {
    let mut before = Vec::new();
    let mut at = options(ENGINE, args, 0, &mut before);
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
    let mut end = options(RUN, args, command + 1, &mut run.options);
    end += usize::from(args.get(end) == Some(&"--"));
    run.image = Some(end).filter(|&image| image < args.len());
    run
}

/// Reads options from one place on, and tells where the first argument stands that is none.
fn options<'a>(all: &'static [Known], args: &[&'a str], mut at: usize, options: &mut Vec<RunOption<'a>>) -> usize {
    while let Some(&arg) = args.get(at) {
        at = match arg {
            "-" | "--" => return at,
            long if long.starts_with("--") => read_long(all, args, at, options),
            short if short.starts_with('-') => read_bundle(all, args, at, options),
            _ => return at,
        };
    }
    at
}

/// Reads the long option at `at`, and tells where the next one stands.
fn read_long<'a>(all: &'static [Known], args: &[&'a str], at: usize, options: &mut Vec<RunOption<'a>>) -> usize {
    let arg = args[at];
    let (name, value) = arg.split_once('=').map_or((arg, None), |(name, value)| (name, Some(value)));
    let known = options::long(all, name);
    let takes_next = value.is_none() && known.is_some_and(|known| known.takes_value);
    options.push(if takes_next {
        with_next(known, name, args, at)
    } else {
        RunOption { value, from: value.map_or(0, |_| name.len() + 1), ..bare(known, name, at) }
    });
    at + 1 + usize::from(takes_next)
}

/// The same for a bundle of short options: the first that takes a value takes all the rest, or the next argument.
fn read_bundle<'a>(all: &'static [Known], args: &[&'a str], at: usize, options: &mut Vec<RunOption<'a>>) -> usize {
    let arg = args[at];
    for (place, letter) in arg.char_indices().skip(1) {
        let from = place + letter.len_utf8();
        let known = options::short(all, letter);
        let rest = &arg[from..];
        match known {
            None => {
                options.push(bare(None, arg, at));
                return at + 1;
            }
            Some(_) if rest.len() > 1 && rest.starts_with('=') => {
                options.push(RunOption { value: Some(&rest[1..]), from: from + 1, ..bare(known, arg, at) });
                return at + 1;
            }
            Some(flag) if !flag.takes_value => options.push(bare(known, arg, at)),
            Some(_) if rest.is_empty() => {
                options.push(with_next(known, arg, args, at));
                return at + 2;
            }
            Some(_) => {
                options.push(RunOption { value: Some(rest), from, ..bare(known, arg, at) });
                return at + 1;
            }
        }
    }
    at + 1
}

/// An option without a value.
fn bare<'a>(known: Option<&'static Known>, written: &'a str, at: usize) -> RunOption<'a> {
    RunOption { name: known.map_or(written, |known| known.name), value: None, at, from: 0, known }
}

/// An option whose value is the argument behind it.
fn with_next<'a>(known: Option<&'static Known>, written: &'a str, args: &[&'a str], at: usize) -> RunOption<'a> {
    let value = args.get(at + 1).copied();
    RunOption { value, at: (at + 1).min(args.len() - 1), ..bare(known, written, at) }
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
                "--pull" => roles[option.at] = Role::Pull(option.from),
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
        let run = run_of(&["run", "-it", "-v/a:/b", "--net=host", "--rm=false", "-m", "1g", "-dt=false", "i"]).unwrap();
        let names: Vec<_> = run.options.iter().map(|option| (option.name, option.value)).collect();
        let expected = [
            ("--interactive", None),
            ("--tty", None),
            ("--volume", Some("/a:/b")),
            ("--network", Some("host")),
            ("--rm", Some("false")),
            ("--memory", Some("1g")),
            ("--detach", None),
            ("--tty", Some("false")),
        ];
        assert_eq!(names, expected);
        assert_eq!(run.image, Some(8));
    }

    #[test]
    fn an_option_that_is_not_known_hides_none() {
        for unknown in ["--new", "-z", "-iz", "-i="] {
            let run = run_of(&["run", unknown, "--privileged", "i"]).unwrap();
            let options = run.options.iter().rev().map(|option| (option.name, option.known.is_some()));
            let last: Vec<_> = options.take(2).collect();
            assert_eq!(last, [("--privileged", true), (unknown, false)]);
        }
        let read = read(&["--new", "run", "i"]);
        assert!(read.before[0].known.is_none() && matches!(read.command, Command::Run(_)));
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

    #[test]
    fn an_engine_is_found_behind_what_starts_it() {
        for (command, args) in [
            ("sh", &["-c", "exec docker run i"][..]),
            ("/usr/bin/env", &["A=b", "/usr/bin/podman", "run", "i"]),
            ("sudo", &["-u", "x", "docker", "run", "i"]),
            ("bash", &["-lc", "a=$(docker run i)"]),
        ] {
            assert!(hidden_engine(command, args).is_some(), "{command}");
        }
        for (command, args) in [("sh", &["-c", "./docker-mcp"][..]), ("npx", &["docker"]), ("docker", &["run"])] {
            assert!(hidden_engine(command, args).is_none(), "{command}");
        }
    }
}
