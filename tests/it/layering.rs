//! The structure of the source: imports point down, nothing below `cli` prints, unsafe code and two crates stay where
//! they belong, and the README and ARCHITECTURE.md say what is so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each module may import with `crate::`, lowest module first; `cli` may import all.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("binomial", &[]),
    ("expression", &["units"]),
    ("files", &[]),
    ("slurm", &[]),
    ("arch", &["units"]),
    ("scaling", &["arch", "units"]),
    ("schedule", &["units"]),
    ("data", &["files", "units"]),
    ("config", &["arch", "data", "expression", "scaling", "schedule", "units"]),
    ("record", &["arch", "config"]),
    ("runs", &["config", "files", "record", "slurm"]),
    ("tasks", &["binomial", "data", "files", "units"]),
    ("exchange", &["arch", "config", "data", "files", "runs", "scaling"]),
    ("bridge", &[]),
    ("ops", &["bridge"]),
    ("nn", &["arch", "ops", "scaling"]),
    ("decode", &["bridge", "data", "nn", "ops", "tasks"]),
    (
        "train",
        &[
            "arch",
            "bridge",
            "config",
            "data",
            "expression",
            "files",
            "nn",
            "ops",
            "record",
            "runs",
            "scaling",
            "schedule",
            "units",
        ],
    ),
    ("sweep", &["arch", "config", "expression", "files", "record", "runs", "slurm", "units"]),
    ("analysis", &["expression", "units"]),
    ("plot", &[]),
    ("verify", &["arch", "bridge", "nn", "ops", "scaling", "schedule", "train"]),
    ("evaluate", &["bridge", "data", "decode", "nn", "tasks"]),
    ("report", &["analysis", "files", "plot", "record", "units"]),
    (
        "study",
        &[
            "analysis",
            "binomial",
            "config",
            "data",
            "expression",
            "files",
            "plot",
            "record",
            "report",
            "runs",
            "sweep",
            "tasks",
            "units",
        ],
    ),
];
/// Words that only the named file may use in code.
const CONFINED: &[(&str, &str)] = &[("serde_yaml", "src/config/load.rs"), ("polars", "src/analysis/frame/cells.rs")];
/// Unsafe code outside `src/bridge`: the file and how many times.
const UNSAFE: (&str, usize) = ("src/data/litpack.rs", 1);
/// What writes to the terminal.
const PRINTS: &[&str] = &["println!", "eprintln!", "print!", "eprint!", "dbg!", "stdout()", "stderr()", "indicatif"];
/// Folders of which the README names every file.
const MAPPED: &[&str] = &["src", "scripts", "shim", "experiments", "sweeps", "docs", "tests/it"];

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part) && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// Offences of one file of `src`, given its path from the root.
fn offences(path: &str, text: &str) -> Vec<String> {
    let module = path.trim_start_matches("src/").split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let known = MAY_IMPORT.iter().find(|(name, _)| *name == module);
    let open = ["cli", "lib", "main"].contains(&module);
    if known.is_none() && !open {
        return vec![format!("{path}: \"{module}\" has no line in tests/it/layering.rs")];
    }
    let (mut out, mut unsafes, mut in_tests) = (Vec::new(), 0, path.ends_with("tests.rs"));
    for (index, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", index + 1);
        in_tests |= line.starts_with("mod tests {");
        if line.trim_start().starts_with("//") {
            continue;
        }
        for (at, _) in line.match_indices("crate::").filter(|(at, _)| !line[..*at].ends_with('$')) {
            let target: String = line[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if target.is_empty() {
                out.push(format!("{place}: write one `use crate::...` for each module"));
            } else if target != module && known.is_some_and(|(_, allowed)| !allowed.contains(&target.as_str())) {
                out.push(format!("{place}: \"{module}\" may not import \"{target}\""));
            }
        }
        if !open && !in_tests && PRINTS.iter().any(|word| line.contains(word)) {
            out.push(format!("{place}: \"{module}\" may not print"));
        }
        for (word, home) in CONFINED {
            if path != *home && has_word(line, word) {
                out.push(format!("{place}: only {home} may name {word}"));
            }
        }
        if module != "bridge" && has_word(line, "unsafe") {
            unsafes += 1;
            if path != UNSAFE.0 || unsafes > UNSAFE.1 {
                out.push(format!("{place}: unsafe code belongs in src/bridge"));
            }
        }
    }
    out
}

/// The paths that a file map names: in its first code block, a name a line, two spaces deeper inside a folder.
fn mapped_paths(readme: &str) -> Vec<String> {
    let map = readme.split("## Where things are").nth(1).and_then(|rest| rest.split("```").nth(1)).unwrap_or_default();
    let (mut folders, mut out): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
    for line in map.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let name = line.split_whitespace().next().unwrap_or_default();
        folders.truncate((line.len() - line.trim_start().len()) / 2);
        out.push(folders.concat() + name);
        folders.push(name);
    }
    out
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `folder`, as a path from the root.
fn files(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
    let seen = paths.iter().filter(|path| !name(path).starts_with('.'));
    let below = |path: &PathBuf| format!("{folder}/{}", name(path));
    seen.flat_map(|path| if path.is_dir() { files(&below(path)) } else { vec![below(path)] }).collect()
}

#[test]
fn the_source_keeps_its_layers() {
    let sources = files("src").into_iter().filter(|path| path.ends_with(".rs"));
    let found: Vec<String> = sources.flat_map(|path| offences(&path, &read(&path))).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_table_points_down() {
    for (place, (module, allowed)) in MAY_IMPORT.iter().enumerate() {
        let lower = |name: &&str| MAY_IMPORT[..place].iter().any(|(below, _)| *below == *name);
        assert!(allowed.iter().all(lower), "{module} imports what stands after it");
    }
}

#[test]
fn planted_offences_are_caught() {
    let text = "use crate::units;\nuse crate::analysis::Fit;\n// use crate::cli;\nprintln!(\"{}\", 1);\nuse polars::x;\n\
                #![expect(unsafe_code)]\nlet y = unsafe { z() };\nuse crate::{arch, cli};\n";
    let expected = [
        "src/arch/samba.rs:2: \"arch\" may not import \"analysis\"",
        "src/arch/samba.rs:4: \"arch\" may not print",
        "src/arch/samba.rs:5: only src/analysis/frame/cells.rs may name polars",
        "src/arch/samba.rs:7: unsafe code belongs in src/bridge",
        "src/arch/samba.rs:8: write one `use crate::...` for each module",
    ];
    assert_eq!(offences("src/arch/samba.rs", text), expected);
    assert_eq!(offences("src/cli/fit.rs", "use crate::analysis;\nprintln!();\n"), Vec::<String>::new());
    assert_eq!(offences("src/data/litpack.rs", "unsafe {}\nunsafe {}\n").len(), 1);
    assert_eq!(offences("src/new.rs", ""), ["src/new.rs: \"new\" has no line in tests/it/layering.rs"]);
    let map = "## Where things are\n\n```text\nsrc/     code\n  arch/  models\n    mod.rs\nREADME.md\n```\n";
    assert_eq!(mapped_paths(map), ["src/", "src/arch/", "src/arch/mod.rs", "README.md"]);
}

#[test]
fn the_file_map_of_the_readme_is_the_tree() {
    let named = mapped_paths(&read("README.md"));
    let once: BTreeSet<&String> = named.iter().collect();
    let absent: Vec<&String> = named.iter().filter(|path| !root().join(path).exists()).collect();
    let tree: Vec<String> = MAPPED.iter().flat_map(|folder| files(folder)).collect();
    let unnamed: Vec<&String> = tree.iter().filter(|path| !once.contains(path)).collect();
    assert!(absent.is_empty() && unnamed.is_empty(), "named but not there: {absent:#?}\nnot named: {unnamed:#?}");
    assert_eq!(once.len(), named.len(), "a file is named twice");
}

#[test]
fn the_layers_of_the_documents_are_those_of_the_table() {
    let (document, header) = (read("ARCHITECTURE.md"), read("src/lib.rs"));
    for (module, allowed) in MAY_IMPORT {
        let names: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
        let row = format!("| `{module}` | {} |", if names.is_empty() { "nothing".to_owned() } else { names.join(" ") });
        assert!(document.contains(&row), "ARCHITECTURE.md lacks: {row}");
        let layers = header.lines().filter(|line| line.starts_with("//! | L"));
        assert!(layers.into_iter().any(|line| line.contains(&format!("`{module}`"))), "src/lib.rs lacks {module}");
    }
}
