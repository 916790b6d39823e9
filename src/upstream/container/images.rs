//! Containers that wait before the first instruction of their program: their entry point is a helper of the bridge's, which
//! becomes the program once it is told the variables that nobody knew before the request.
//!
//! The helper (`src/sys/held/main.rs`) is mounted from the directory of this instance. What the program is, the image says; and so
//! that it is that of the image which runs, the container is started from the image's id.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::client::Client;
use crate::config::{ContainerLaunch, ContainerPlan, Engine};

/// The helper as a program; empty where there is none for this kind of machine.
const HELPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/held"));

/// Where a container finds it.
const IN_CONTAINER: &str = "/.tollbridge-held";

/// For how long an image is taken to be what it was: what is pulled anew is seen so much later.
const RECENT: Duration = Duration::from_secs(5);

/// Why the containers of a server cannot wait.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no helper.
    #[error("there is no directory from which a container could be given its entry point")]
    NoHelper,
    /// The engine does not say what the image runs.
    #[error("its engine does not say what the image runs: {0}")]
    Unknown(String),
}

/// What is known of images, and the helper.
pub(super) struct Images {
    directory: Option<PathBuf>,
    helper: OnceLock<Option<PathBuf>>,
    known: Mutex<Vec<Image>>,
}

struct Image {
    engine: Arc<Engine>,
    name: String,
    said: Said,
    since: Instant,
}

/// What an engine says of an image. Source: the OCI image configuration, and `docker image inspect`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    id: String,
    config: SaidConfig,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SaidConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

impl Said {
    /// What runs in a container, with its arguments: as engines put it together. Those that are written replace the image's
    /// own, and an entry point that is written leaves nothing of these.
    fn program(&self, entrypoint: Option<&[String]>, written: Vec<OsString>) -> Vec<OsString> {
        let own = |words: &Option<Vec<String>>| words.iter().flatten().map(OsString::from).collect::<Vec<_>>();
        let program =
            entrypoint.map_or_else(|| own(&self.config.entrypoint), |words| words.iter().map(Into::into).collect());
        let arguments = if written.is_empty() && entrypoint.is_none() { own(&self.config.cmd) } else { written };
        [program, arguments].concat()
    }
}

impl Images {
    /// The helper goes into `directory`, once it is needed.
    pub(super) fn new(directory: Option<&Path>) -> Self {
        Self { directory: directory.map(Path::to_owned), helper: OnceLock::new(), known: Mutex::default() }
    }

    /// Learns what the image of `plan` is, unless that was learnt a moment ago.
    pub(super) async fn learn(&self, plan: &ContainerPlan, client: &Client) -> Result<(), ImageError> {
        let name = plan.image.fixed_text().unwrap_or_default();
        let is_it = |image: &Image| image.engine == plan.engine && image.name == name;
        if self.known().iter().any(|image| is_it(image) && image.since.elapsed() < RECENT) {
            return Ok(());
        }
        self.helper.get_or_init(|| self.write_helper()).as_ref().ok_or(ImageError::NoHelper)?;
        let said = client.image(&name).await.map_err(|error| ImageError::Unknown(error.to_string()));
        let said = said.and_then(|said| {
            let one = serde_json::from_str::<[Said; 1]>(&said);
            one.map_err(|_| ImageError::Unknown("its answer is another than expected".to_owned()))
        });
        let mut known = self.known();
        known.retain(|image| !is_it(image));
        let [said] = said?;
        known.push(Image { engine: Arc::clone(&plan.engine), name: name.clone(), said, since: Instant::now() });
        Ok(())
    }

    /// Has the container wait; nothing if it is not known what runs in it.
    pub(super) fn hold(&self, plan: &ContainerPlan, launch: &mut ContainerLaunch) -> Option<()> {
        let helper = self.helper.get()?.as_ref()?;
        let name = plan.image.fixed_text()?;
        let known = self.known();
        let image = known.iter().find(|image| image.engine == plan.engine && image.name == name)?;
        let args = &mut launch.client.args;
        let written = args.split_off(args.len().checked_sub(plan.behind_image)?);
        let program = image.said.program(plan.entrypoint.as_deref(), written);
        let _name = args.pop();
        let separator = args.pop_if(|last| last == "--");
        args.push(format!("--mount=type=bind,source={},target={IN_CONTAINER},readonly", helper.display()).into());
        args.push(format!("--entrypoint={IN_CONTAINER}").into());
        args.extend(separator);
        args.push(image.said.id.clone().into());
        let has_program = !program.is_empty();
        args.extend(program);
        has_program.then_some(())
    }

    fn known(&self) -> MutexGuard<'_, Vec<Image>> {
        // What is done under the lock leaves the list whole at every step.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_helper(&self) -> Option<PathBuf> {
        let path = self.directory.as_ref().filter(|_| !HELPER.is_empty())?.join("held");
        let written = write_program(&path);
        written.inspect_err(|error| tracing::warn!(%error, "the entry point of spares cannot be written")).ok()?;
        Some(path)
    }
}

fn write_program(path: &Path) -> io::Result<()> {
    fs::write(path, HELPER)?;
    // Whatever the umask is: a container's program may be any user.
    fs::set_permissions(path, fs::Permissions::from_mode(0o555))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Output, Stdio};

    use super::*;
    use crate::secret::Secret;
    use crate::upstream::process::held::record;

    fn said(config: &str) -> Said {
        serde_json::from_str(&format!(r#"{{ "Id": "sha256:1", "Config": {config}, "Other": 1 }}"#)).unwrap()
    }

    #[test]
    fn what_runs_is_put_together_as_engines_do() {
        let both = said(r#"{ "Entrypoint": ["node"], "Cmd": ["a.js"] }"#);
        let program = |said: &Said, entrypoint: Option<&[String]>, written: &[&str]| {
            said.program(entrypoint, written.iter().map(Into::into).collect())
        };
        assert_eq!(program(&both, None, &[]), ["node", "a.js"]);
        assert_eq!(program(&both, None, &["b.js"]), ["node", "b.js"]);
        let python = ["python".to_owned()];
        assert_eq!(program(&both, Some(&python), &[]), ["python"]);
        assert_eq!(program(&both, Some(&python), &["b.py"]), ["python", "b.py"]);
        assert_eq!(program(&both, Some(&[]), &["sh"]), ["sh"]);
        assert_eq!(program(&said(r#"{ "Entrypoint": null, "Cmd": ["sh"] }"#), None, &[]), ["sh"]);
        assert_eq!(program(&said("{}"), None, &[]), [""; 0]);
    }

    /// What the helper does as the entry point of a container with these variables.
    fn run(program: &[&str], variables: &[(&str, &str)], told: &[u8]) -> Output {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("held");
        write_program(&path).unwrap();
        let start = || {
            let mut helper = Command::new(&path);
            helper.args(program).env_clear().envs(variables.iter().copied());
            helper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        };
        // Another test's child may still have the file open that was being written.
        let busy = |error: &io::Error| error.kind() == io::ErrorKind::ExecutableFileBusy;
        let mut child = loop {
            match start() {
                Err(error) if busy(&error) => std::thread::yield_now(),
                started => break started.unwrap(),
            }
        };
        let _gone = child.stdin.take().unwrap().write_all(told);
        child.wait_with_output().unwrap()
    }

    fn late(variables: &[(&str, &str)]) -> Vec<u8> {
        let env: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned()))).collect();
        record(&env).to_vec()
    }

    #[test]
    fn the_entry_point_becomes_the_program_with_what_it_is_told_and_leaves_the_rest_of_stdin_to_it() {
        let variables = [("PATH", "/nowhere:/usr/bin:/bin"), ("TOKEN", "of the image"), ("TOKENS", "3")];
        let told = [late(&[("TOKEN", "a\nb"), ("MORE", "")]), b"the rest".to_vec()].concat();
        let script = "printf '%s|' \"$TOKEN\" \"$TOKENS\" \"${MORE-none}\" \"$1\"; cat";
        for shell in ["sh", "/bin/sh"] {
            let output = run(&[shell, "-c", script, "x", "an argument"], &variables, &told);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "a\nb|3||an argument|the rest", "{output:?}");
            assert!(output.status.success());
        }
    }

    #[test]
    fn the_entry_point_ends_where_nobody_needs_it_or_nothing_can_be_run() {
        let path = [("PATH", "/usr/bin:/bin")];
        let code = |program: &[&str], told: &[u8]| run(program, &path, told).status.code();
        assert_eq!(code(&["sh"], b""), Some(0));
        assert_eq!(code(&["no-such-program"], &late(&[])), Some(127));
        assert_eq!(code(&["/no/such/program"], &late(&[])), Some(126));
        assert_eq!(code(&["/etc/passwd"], &late(&[])), Some(126));
        assert_eq!(code(&[], &late(&[])), Some(126));
        assert_eq!(code(&["sh"], b"\xff\xff\xff\xff"), Some(126), "longer than the bridge sends");
        assert_eq!(code(&["sh"], b"\0\0\0\x05A=1\0"), Some(126), "shorter than it says");
    }
}
