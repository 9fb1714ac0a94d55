//! The floors that docs/architecture.md draws: no module imports from its own floor or from one above.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Modules and their floors, counted from the top.
fn floors() -> HashMap<String, usize> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let figure = text.split("```").nth(1).unwrap();
    // What stands in front of the gap names modules, what follows says what they are for.
    let lines = figure.lines().skip(1).filter_map(|line| line.trim().split_once("   "));
    let of = |(floor, (names, _)): (usize, (&str, &str))| {
        let names: Vec<String> = names.split_whitespace().map(String::from).collect();
        names.into_iter().map(move |name| (name.replace("bin/fissfuse-bench", "bin"), floor))
    };
    // The last line's modules are those that import from nobody above, too many to draw.
    lines.enumerate().flat_map(of).filter(|(name, _)| name != "...").collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => sources(&path, found),
            path if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            _ => {}
        }
    }
}

#[test]
fn imports_run_downwards() {
    let floors = floors();
    let ground = *floors.values().max().unwrap();
    assert!(floors["llama"] == floors["model"] && floors["ops"] < floors["tensor"], "{floors:?}");
    let import = Regex::new(r"\b(?:crate|fissfuse)::([a-z_]+)").unwrap();
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut upwards = Vec::new();
    for path in files {
        let inner = path.strip_prefix(root().join("src")).unwrap().with_extension("");
        let module = inner.iter().next().unwrap().to_str().unwrap().to_string();
        if module == "lib" || module == "main" {
            continue;
        }
        let floor = |module: &str| floors.get(module).copied().unwrap_or(ground);
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = code.take_while(|line| *line != "mod tests {").collect::<Vec<_>>().join("\n");
        for other in import.captures_iter(&code).map(|found| found.get(1).unwrap().as_str()) {
            let is_module = root().join("src").join(other).exists() || root().join(format!("src/{other}.rs")).exists();
            let sister = floor(other) == floor(&module) && floor(other) < ground;
            if is_module && other != module && (floor(other) < floor(&module) || sister) {
                upwards.push(format!("{}: {other}", inner.display()));
            }
        }
    }
    upwards.dedup();
    assert!(upwards.is_empty(), "imports from the same floor or from above:\n{}", upwards.join("\n"));
}
