//! Gates: what has a runtime wait where its program first needs a variable that only its request knows.
//!
//! A gate is a file that the runtime loads before the program: `gate.cjs` by Node.js (`NODE_OPTIONS=--require`),
//! `sitecustomize.py` by Python (`PYTHONPATH`). It is told by `TOLLBRIDGE_GATE` which variables there will be, and waits for
//! them on a socket that is the program's descriptor 3, which nobody else can open. They come as the record of [`super::held`].
//!
//! By the same socket it says how far the program came, one line for each step: `has begun`, then `waits at …`. Only
//! `doctor` reads that.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::config::{EnvironmentCopies, Hold, LateName, StdioLaunch};
use crate::secret::Secret;

const FILES: [(&str, &str); 2] =
    [("gate.cjs", include_str!("gate/gate.cjs")), ("sitecustomize.py", include_str!("gate/sitecustomize.py"))];

/// Says where late variables come from, and their names.
const GATE: &str = "TOLLBRIDGE_GATE";

/// Says what copies of the environment are.
const COPIES: &str = "TOLLBRIDGE_GATE_COPIES";

/// The descriptor on which a program's gate waits.
pub const DESCRIPTOR: i32 = 3;

/// The files of the gates, in a directory of this instance, where every server can read them. Those that run as the bridge's own user could change them: see `check`.
#[derive(Debug)]
pub struct Gates {
    instance: Option<PathBuf>,
    directory: OnceLock<Option<PathBuf>>,
}

impl Gates {
    /// They go into the directory `instance`, once they are needed.
    pub(super) fn new(instance: Option<&Path>) -> Self {
        Self { instance: instance.map(Path::to_owned), directory: OnceLock::new() }
    }

    /// Has the runtime of `launch` load its gate, which waits for the variables `late`; nothing if the files cannot be where
    /// it finds them.
    pub(in crate::upstream) fn put_before(
        &self,
        launch: &mut StdioLaunch,
        late: &[LateName<'_>],
        (hold, copies): (Hold, EnvironmentCopies),
    ) -> Option<()> {
        let directory = self.directory.get_or_init(|| self.write()).as_ref()?.to_str()?;
        let (name, loads, separator) = match hold {
            Hold::Node => ("NODE_OPTIONS", node_option(directory), " "),
            // A colon would end it.
            Hold::Python if !directory.contains(':') => ("PYTHONPATH", directory.to_owned(), ":"),
            Hold::Python | Hold::Ready | Hold::Start => return None,
        };
        match launch.env.iter_mut().find(|(other, _)| other == name) {
            // An empty path would be the directory that it runs in.
            Some((_, written)) if written.expose().is_empty() => *written = Secret::new(loads),
            Some((_, written)) => *written = Secret::new([&loads, separator, written.expose()].concat()),
            None => launch.env.push((name.to_owned(), Secret::new(loads))),
        }
        let names = late.iter().map(|late| [if late.is_sure { "=" } else { "=?" }, late.name].concat());
        launch.env.push((GATE.to_owned(), Secret::new(DESCRIPTOR.to_string() + &names.collect::<String>())));
        if (hold, copies) == (Hold::Python, EnvironmentCopies::Without) {
            launch.env.push((COPIES.to_owned(), Secret::new("without".to_owned())));
        }
        Some(())
    }

    fn write(&self) -> Option<PathBuf> {
        let directory = self.instance.as_ref()?.join("gates");
        let written = write_files(&directory);
        written.inspect_err(|error| tracing::warn!(%error, "what has runtimes wait cannot be written")).ok()?;
        Some(directory)
    }
}

/// What has Node.js load its gate, if that is in this directory.
fn node_option(directory: &str) -> String {
    let directory = directory.replace('\\', r"\\").replace('"', r#"\""#);
    format!(r#"--require="{directory}/gate.cjs""#)
}

fn write_files(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(directory)?;
    for (name, text) in FILES {
        let path = directory.join(name);
        fs::write(&path, text)?;
        // Whatever the umask is: a server may be any user.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444))?;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o555))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Confinement;

    fn launch(env: &[(&str, &str)]) -> StdioLaunch {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned())));
        StdioLaunch {
            program: "/".into(),
            args: vec![],
            env: env.collect(),
            token_files: vec![],
            cwd: None,
            confinement: Confinement::default(),
        }
    }

    #[test]
    fn a_runtime_is_told_what_to_load_before_what_it_is_told_anyway() {
        let instance = tempfile::tempdir().unwrap();
        let gates = Gates::new(Some(instance.path()));
        let late = [LateName { name: "A", is_sure: true }, LateName { name: "B", is_sure: false }];
        let told = |env: &[(&str, &str)], hold, copies| {
            let mut launch = launch(env);
            gates.put_before(&mut launch, &late, (hold, copies)).unwrap();
            launch.env.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect::<Vec<_>>()
        };
        let at = instance.path().join("gates");
        let at = at.display();
        let node = told(&[("NODE_OPTIONS", "--no-warnings")], Hold::Node, EnvironmentCopies::Wait);
        let expected =
            [format!("NODE_OPTIONS=--require=\"{at}/gate.cjs\" --no-warnings"), "TOLLBRIDGE_GATE=3=A=?B".into()];
        assert_eq!(node, expected);
        let python = told(&[], Hold::Python, EnvironmentCopies::Without);
        let copies = "TOLLBRIDGE_GATE_COPIES=without".to_owned();
        assert_eq!(python, [format!("PYTHONPATH={at}"), "TOLLBRIDGE_GATE=3=A=?B".into(), copies]);
        let python = told(&[("PYTHONPATH", "")], Hold::Python, EnvironmentCopies::Wait);
        assert_eq!(python[0], format!("PYTHONPATH={at}"), "an empty part would be the directory that it runs in");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let files = FILES.map(|(name, _)| mode(&instance.path().join("gates").join(name)));
        assert_eq!((mode(&instance.path().join("gates")), files), (0o555, [0o444; 2]));
        fs::set_permissions(instance.path().join("gates"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn without_a_directory_nothing_waits() {
        assert_eq!(Gates::new(None).put_before(&mut launch(&[]), &[], (Hold::Node, EnvironmentCopies::Wait)), None);
    }
}
