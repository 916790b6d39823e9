//! Whether Python finds what it has compiled of a server's modules (`tollbridge doctor`): else every request compiles all of
//! them anew, which doubles the processor time to its first answer.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::host_checks::{Finding, Verdict};
use crate::config::{Config, Plan};

/// How much of a program is looked into for its interpreter, bytes.
const HEAD: u64 = 512;

/// By these Python is told to keep what it compiles elsewhere.
const ELSEWHERE: &str = "PYTHONPYCACHEPREFIX";

/// What is to be said of the programs of these servers. What is in images is not looked into.
#[must_use]
pub fn findings(config: &Config) -> Vec<Finding> {
    let programs = config.servers.values().filter_map(|server| match &server.plan {
        Plan::Stdio(plan) if plan.env.iter().all(|(name, _)| name != ELSEWHERE) => Some((&server.name, &plan.program)),
        _ => None,
    });
    let uncompiled = programs.filter_map(|(name, program)| {
        let python = interpreter(program)?;
        let (packages, missing, all) = packages_of(&python).map(|at| count(&at)).max_by_key(|(_, missing, _)| *missing)?;
        // A package or two are made of what is not Python.
        (missing * 2 > all).then(|| Finding {
            verdict: Verdict::Weak,
            text: format!(
                "Python of {name}: {missing} of {all} packages in {at} have no compiled files (`__pycache__`), so every request \
                 compiles them anew; run `{python} -m compileall -q {at}` once",
                at = packages.display(),
                python = python.display(),
            ),
        })
    });
    uncompiled.collect()
}

/// The Python that runs a program: itself, or what the beginning of a script names.
fn interpreter(program: &Path) -> Option<PathBuf> {
    if is_python(program) {
        return Some(program.to_owned());
    }
    let mut head = Vec::new();
    File::open(program).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    let head = String::from_utf8_lossy(head.strip_prefix(b"#!")?).into_owned();
    let words = head.lines().take(2).flat_map(|line| line.split([' ', '"', '\'']));
    // Where its path is too long for the first line, a shell is told it in the second.
    words.map(Path::new).find(|word| word.is_absolute() && is_python(word)).map(Path::to_owned)
}

fn is_python(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"))
}

/// The directories of packages that belong to a Python, by where it is.
fn packages_of(python: &Path) -> impl Iterator<Item = PathBuf> {
    let libraries = python.parent().and_then(Path::parent).map(|prefix| prefix.join("lib"));
    let versions = libraries.into_iter().flat_map(|libraries| fs::read_dir(libraries).into_iter().flatten().flatten());
    let versions = versions.filter(|entry| entry.file_name().to_string_lossy().starts_with("python"));
    versions.map(|version| version.path().join("site-packages")).filter(|packages| packages.is_dir())
}

/// How many packages in a directory have nothing compiled, and how many there are.
fn count(packages: &Path) -> (PathBuf, usize, usize) {
    let all = fs::read_dir(packages).into_iter().flatten().flatten().map(|entry| entry.path());
    let all: Vec<_> = all.filter(|package| package.join("__init__.py").is_file()).collect();
    let missing = all.iter().filter(|package| !package.join("__pycache__").is_dir()).count();
    (packages.to_owned(), missing, all.len())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;
    use crate::config::{LoadOptions, parse};

    #[test]
    fn a_server_on_python_without_compiled_files_is_told_of() {
        let home = tempfile::tempdir().unwrap();
        let (bin, packages) = (home.path().join("bin"), home.path().join("lib/python3.11/site-packages"));
        fs::create_dir_all(&bin).unwrap();
        for name in ["one", "two", "three"] {
            fs::create_dir_all(packages.join(name)).unwrap();
            fs::write(packages.join(name).join("__init__.py"), "").unwrap();
        }
        let python = bin.join("python3");
        let scripts =
            [format!("#!{}\n", python.display()), format!("#!/bin/sh\n'''exec' \"{}\" \"$0\"\n", python.display())];
        for (script, text) in ["a", "b"].iter().zip(scripts) {
            fs::write(bin.join(script), text).unwrap();
            fs::set_permissions(bin.join(script), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let said = || {
            let server = |name: &str| json!({ "command": bin.join(name) });
            let mut elsewhere = server("a");
            elsewhere["env"] = json!({ "PYTHONPYCACHEPREFIX": "/var/cache/py" });
            let servers = json!({ "a": server("a"), "b": server("b"), "c": elsewhere, "d": { "command": "/bin/sh" } });
            let text = json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": servers }).to_string();
            let config = parse(&text, &home.path().join("x.json"), &LoadOptions::default()).unwrap();
            findings(&config).into_iter().map(|finding| finding.text).collect::<Vec<_>>()
        };
        let uncompiled = said();
        assert_eq!(uncompiled.len(), 2, "{uncompiled:?}");
        assert!(uncompiled[0].starts_with("Python of a: 3 of 3 packages") && uncompiled[1].contains("of b: "));
        assert!(uncompiled[0].contains(&format!("`{} -m compileall -q {}`", python.display(), packages.display())));
        for name in ["one", "two"] {
            fs::create_dir(packages.join(name).join("__pycache__")).unwrap();
        }
        assert_eq!(said(), [""; 0]);
    }
}
