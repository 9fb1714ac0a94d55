//! What README and docs say of commands, flags, defaults and measurements, against the programs.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fissfuse::train::RunConfig;
use regex::Regex;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and docs, by path.
fn documents() -> Vec<(PathBuf, String)> {
    let docs =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let paths = docs.chain(["README.md", "weights/README.md"].map(|name| root().join(name)));
    let documents: Vec<_> = paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect();
    assert!(documents.len() > 8);
    documents
}

/// Code of a document: lines of blocks, and spans within text.
fn code(text: &str) -> Vec<String> {
    let mut code = Vec::new();
    for (i, part) in text.split("```").enumerate() {
        match i % 2 {
            1 => code.extend(part.replace("\\\n", " ").lines().map(str::to_string)),
            _ => code.extend(part.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " "))),
        }
    }
    code
}

/// What `--help` prints of a subcommand, and the subcommands it has.
#[derive(Default)]
struct Helps(HashMap<Vec<String>, (BTreeSet<String>, BTreeSet<String>)>);

impl Helps {
    /// Flags and subcommands of the program and the subcommands in `path`.
    fn of(&mut self, path: &[String]) -> &(BTreeSet<String>, BTreeSet<String>) {
        self.0.entry(path.to_vec()).or_insert_with(|| {
            let program = match path[0].as_str() {
                "fissfuse" => env!("CARGO_BIN_EXE_fissfuse"),
                _ => env!("CARGO_BIN_EXE_fissfuse-bench"),
            };
            let output = Command::new(program).args(&path[1..]).arg("--help").output().unwrap();
            let help = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{path:?} --help");
            let flags = Regex::new(r"(?m)^\s+(?:-\w, )?(--[a-z0-9-]+)").unwrap();
            let flags = flags.captures_iter(&help).map(|found| found[1].to_string()).collect();
            let commands =
                help.split_once("Commands:\n").map_or("", |(_, rest)| rest).split("\n\n").next().unwrap_or("");
            let name = |line: &str| line.split_whitespace().next().map(str::to_string);
            (flags, commands.lines().filter(|line| !line.starts_with("    ")).filter_map(name).collect())
        })
    }
}

/// Commands in a line of code, each as the subcommands' path and the flags that it is given.
fn commands(line: &str, helps: &mut Helps) -> Vec<(Vec<String>, Vec<String>)> {
    let start = Regex::new(r"(?:^|^\$ |\| |/|=\S+ )(fissfuse-bench|fissfuse)(?: |$)").unwrap();
    let mut found = Vec::new();
    for program in start.captures_iter(line.trim()) {
        let rest = &line.trim()[program.get(0).unwrap().end()..];
        let rest = rest.split(['#', '<', ';']).next().unwrap_or_default().split(" | ").next().unwrap_or_default();
        let mut words = rest.split_whitespace().map(|word| word.trim_matches(['[', ']', ',', '.', ')'])).peekable();
        let mut path = vec![program[1].to_string()];
        while words.peek().is_some_and(|word| helps.of(&path).1.contains(*word)) {
            path.extend(words.next().map(str::to_string));
        }
        let flags = words.filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap().to_string());
        let flags = flags.collect();
        found.push((path, flags));
    }
    found
}

#[test]
fn every_command_and_flag_of_the_documents_exists() {
    let (mut helps, mut checked) = (Helps::default(), 0);
    let sentence = Regex::new(r"^(fissfuse|fissfuse-bench) [a-z]").unwrap();
    for (document, text) in documents() {
        for line in code(&text) {
            for (path, flags) in commands(&line, &mut helps) {
                let named = path.len() > 1 || !sentence.is_match(line.trim());
                assert!(named, "{}: `{line}` names no subcommand", document.display());
                for flag in flags {
                    let known = helps.of(&path).0.contains(&flag);
                    assert!(known, "{}: `{line}`: {path:?} has no {flag}", document.display());
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 60, "{checked}");
}

#[test]
fn every_flag_that_the_documents_name_alone_exists_somewhere() {
    let (mut helps, mut all, mut checked) = (Helps::default(), BTreeSet::new(), 0);
    let mut paths = vec![vec!["fissfuse".to_string()], vec!["fissfuse-bench".to_string()]];
    while let Some(path) = paths.pop() {
        let (flags, commands) = helps.of(&path);
        all.extend(flags.clone());
        let inner = commands.iter().filter(|name| *name != "help");
        paths.extend(inner.map(|name| [&path[..], std::slice::from_ref(name)].concat()));
    }
    for (document, text) in documents() {
        let spans = code(&text);
        let named = |span: &&String| span.strip_prefix("--").is_some_and(|rest| rest.starts_with(char::is_alphabetic));
        for span in spans.iter().filter(named) {
            let flag = span.split([' ', '=', '[', ',']).next().unwrap();
            assert!(all.contains(flag), "{}: no command has {flag}", document.display());
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn defaults_in_the_documents_are_the_programs() {
    let text = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let config = serde_json::to_value(RunConfig::default()).unwrap();
    let row = Regex::new(r"(?m)^\| `([a-z_]+)` \| ([^|]+) \|").unwrap();
    let mut checked = 0;
    for table in ["model", "encode", "train", "encoder"] {
        let section = text.split(&format!("## `[{table}]`")).nth(1).unwrap().split("\n\n").nth(1).unwrap();
        for found in row.captures_iter(section) {
            let (key, said) = (&found[1], found[2].trim().trim_matches('`'));
            let value = &config[table][key];
            let text = value.to_string();
            // What is null has its default in words.
            if value.is_null() {
                continue;
            }
            let number = |value: f64| said.parse::<f64>().is_ok_and(|said| (said - value).abs() <= 1e-6 * value.abs());
            let same = value.as_f64().map_or_else(|| said == text, number);
            assert!(same, "docs/configuration.md: [{table}] {key} is {value}, not {said}");
            checked += 1;
        }
        let keys = config[table].as_object().unwrap().keys();
        let missing: Vec<_> = keys.filter(|key| !section.contains(&format!("`{key}`"))).collect();
        assert!(missing.is_empty(), "docs/configuration.md lacks {missing:?} of [{table}]");
    }
    assert!(checked >= 18, "{checked}");
}

#[test]
fn help_names_the_defaults_that_commands_have() {
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_fissfuse")).args(arguments).arg("--help").output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let embed = help(&["embed"]);
    assert!(embed.contains("f32 or bf16 [default: f32]"), "{embed}");
    // What is kept of features on a device is no setting of a language model.
    for command in ["llm", "rerank", "replay"] {
        assert!(!help(&[command]).contains("--feature-memory"), "{command}");
    }
    assert!(help(&["train"]).contains("--feature-memory"));
}

#[test]
fn every_figure_of_the_readme_says_what_measured_it() {
    let (text, mut helps) = (fs::read_to_string(root().join("README.md")).unwrap(), Helps::default());
    let table = text.lines().skip_while(|line| !line.contains("| measured by |")).skip(2);
    let rows: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 8);
    for row in rows {
        let command = row.trim_end_matches('|').rsplit('|').next().unwrap().trim().trim_matches('`');
        let exists = match command.starts_with("fissfuse") {
            true => commands(command, &mut helps).iter().all(|(path, _)| path.len() > 1),
            false => command.ends_with(".py") && root().join(command).is_file(),
        };
        assert!(exists, "README.md: {row}");
    }
}
