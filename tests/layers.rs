//! The map in `src/lib.rs` is true: a module uses only groups below its own, and modules of one group never each other.
//! Within a module the files do not import each other in a ring.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the crate with the number of their group, top first.
fn map() -> BTreeMap<String, usize> {
    let text = fs::read_to_string("src/lib.rs").unwrap();
    let mut group = 0;
    let mut modules = BTreeMap::new();
    for line in text.lines() {
        if line.starts_with("// layer: ") {
            group += 1;
        } else if let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            assert!(group > 0, "{name} stands before the first layer");
            modules.insert(name.to_owned(), group);
        }
    }
    modules
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of the crate's modules that a file uses: after every `crate::`, also within braces.
fn used(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default(),
            None => rest.split([';', ',', ')', ' ', '\n', '<', '>', '&']).next().unwrap_or_default(),
        };
        for item in list.split(',') {
            let name: String = item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            names.push(name);
        }
    }
    names
}

#[test]
fn no_module_uses_one_beside_or_above_it() {
    let map = map();
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let within = file.strip_prefix("src").unwrap();
        let first = within.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        let Some(&own) = map.get(module) else { continue };
        for name in used(&fs::read_to_string(&file).unwrap()) {
            match map.get(&name) {
                Some(_) if name == module => {}
                Some(&group) if group <= own => wrong.push(format!("{} uses {name}", file.display())),
                _ => {}
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_file_belongs_to_a_module_of_the_map() {
    let map = map();
    let mut top: Vec<String> = fs::read_dir("src")
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !["lib", "main"].contains(&name.as_str()) && !map.contains_key(name))
        .collect();
    top.sort();
    assert_eq!(top, Vec::<String>::new());
}

#[test]
fn an_import_that_goes_up_would_be_seen() {
    let seen = used("use crate::bridge::Bridge;\nuse crate::{app, server::Server};\nlet x = crate::routes::y();");
    assert_eq!(seen, ["bridge", "app", "server", "routes"]);
}

/// A module by its path in the crate: `["config", "template", "fill"]`. The crate itself has an empty one.
type Module = Vec<String>;

/// The files of the crate as modules, with what each imports or names by a path.
struct Files(BTreeMap<Module, Vec<Import>>);

/// An imported path, and the name that it has in the file.
struct Import {
    path: Vec<String>,
    name: String,
}

impl Files {
    fn read() -> Self {
        let mut paths = Vec::new();
        sources(Path::new("src"), &mut paths);
        let module = |path: &Path| -> Module {
            let path = path.strip_prefix("src").unwrap().with_extension("");
            let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
            names.filter(|name| name != "lib" && name != "main").collect()
        };
        Self(paths.iter().map(|path| (module(path), imports(&fs::read_to_string(path).unwrap()))).collect())
    }

    /// The modules that a path leads to, seen from a file: the last that it names, and the one that defines what it names
    /// in it, if that is re-exported.
    fn resolve(&self, from: &[String], path: &[String], found: &mut BTreeSet<Module>) {
        let mut at: Module = from.to_vec();
        let mut rest = path;
        if path.first().is_some_and(|first| first == "crate") {
            (at, rest) = (Vec::new(), &path[1..]);
        }
        while let Some(("self" | "super", after)) = rest.split_first().map(|(first, after)| (first.as_str(), after)) {
            if rest[0] == "super" {
                at.pop();
            }
            rest = after;
        }
        let mut named = None;
        while let Some((name, after)) = rest.split_first() {
            let child = [&at[..], std::slice::from_ref(name)].concat();
            if self.0.contains_key(&child) {
                named = Some(child.clone());
                (at, rest) = (child, after);
                continue;
            }
            let is_it = |import: &&Import| import.name == *name && (at != from || import.path != path);
            if let Some(import) = self.0.get(&at).and_then(|imports| imports.iter().find(is_it)) {
                self.resolve(&at, &[&import.path[..], after].concat(), found);
            }
            break;
        }
        found.extend(named);
    }

    /// What each file depends on. A file may use what is defined by the modules that it is a part of.
    fn dependencies(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let of = |module: &Module, imports: &[Import]| {
            let mut found = BTreeSet::new();
            for import in imports {
                self.resolve(module, &import.path, &mut found);
            }
            found.retain(|other| !module.starts_with(other));
            found
        };
        self.0.iter().map(|(module, imports)| (module.clone(), of(module, imports))).collect()
    }
}

/// What a file imports, and what it names by a path. Comments and the tests at its end do not count.
fn imports(text: &str) -> Vec<Import> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = lines.join("\n");
    let mut found = Vec::new();
    let starts = ["use ", "crate::", "super::", "self::"];
    let starts = starts.iter().flat_map(|start| code.match_indices(start).map(|(at, _)| (at, *start)));
    for (at, start) in starts {
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        if !code[..at].ends_with(is_word) {
            tree(&code[at + if start == "use " { start.len() } else { 0 }..], &[], &mut found);
        }
    }
    found
}

/// Reads one path, or a tree of paths, and returns what comes after it.
fn tree<'a>(text: &'a str, before: &[String], found: &mut Vec<Import>) -> &'a str {
    let mut path = before.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(mut inner) = rest.strip_prefix('{') {
            while !inner.trim_start().starts_with('}') {
                inner = tree(inner, &path, found).trim_start().trim_start_matches(',');
            }
            return &inner.trim_start()[1..];
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(rest.len());
        if rest[..end] != *"self" || path.is_empty() {
            path.push(rest[..end].to_owned());
        }
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(after) if !after.starts_with('<') => rest = after,
            _ => break,
        }
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if let Some(after) = rest.strip_prefix(" as ") {
        let end = after.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(after.len());
        (name, rest) = (after[..end].to_owned(), &after[end..]);
    }
    found.push(Import { path, name });
    rest
}

/// The rings: files each of which leads back to itself, with those that it imports on the way.
fn rings(dependencies: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<Module, BTreeSet<Module>> {
    let reachable = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&Module> = dependencies[from].iter().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module.clone()) {
                next.extend(&dependencies[module]);
            }
        }
        seen
    };
    let reachable: BTreeMap<&Module, BTreeSet<Module>> =
        dependencies.keys().map(|module| (module, reachable(module))).collect();
    let ring = |module: &Module| {
        let back = |other: &&Module| reachable[other].contains(module);
        dependencies[module].iter().filter(back).cloned().collect::<BTreeSet<_>>()
    };
    let all = dependencies.keys().map(|module| (module.clone(), ring(module)));
    all.filter(|(_, imported)| !imported.is_empty()).collect()
}

#[test]
fn no_files_import_each_other_in_a_ring() {
    let rings = rings(&Files::read().dependencies());
    let named = |module: &Module| module.join("/");
    let wrong: Vec<_> =
        rings.iter().map(|(from, to)| (named(from), to.iter().map(named).collect::<Vec<_>>())).collect();
    assert!(wrong.is_empty(), "move what ties them to a file of its own: {wrong:#?}");
}

#[test]
fn a_ring_would_be_seen() {
    let file = |name: &str, text: &str| (name.split('/').map(str::to_owned).collect::<Module>(), imports(text));
    let files = [
        file("a", "#[cfg(test)]\nmod testing;\nmod one;\npub use one::First;"),
        file("a/one", "use super::two::{self, Second as Other};\npub struct First;"),
        file("a/two", "use crate::a::three::Third;\n#[cfg(test)]\nmod tests { use super::leaf::Leaf; }"),
        file("a/three", "// super::leaf\nfn f() -> super::First {}"),
        file("a/leaf", "use super::{one::First, A};"),
    ];
    let rings = rings(&Files(files.into()).dependencies());
    let names: Vec<_> = rings.keys().map(|module| module.join("/")).collect();
    assert_eq!(names, ["a/one", "a/three", "a/two"], "by what is re-exported, too; not with what only tests use");
}
