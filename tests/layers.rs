//! The map in `src/lib.rs` is true: a module uses only groups below its own, and modules of one group never each other.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

use std::collections::BTreeMap;
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
