//! This program beside an earlier run, or beside another program in turn.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail, ensure};
use fissfuse::printable::{printable, printable_json};
use fissfuse::profile::comparison::{Compared, Rounds, Thresholds, Turn, Verdict};
use fissfuse::report::{markdown_table, table};
use serde_json::{Map, Value, json};

use super::output::{Format, digits, document};
use super::session::{Asked, Said};

/// Seconds of a turn, and turns of each program in a round.
const TURN: f64 = 0.1;
const TURNS: usize = 12;

/// What a comparison found.
pub struct Findings(pub Vec<Compared>);

impl Findings {
    /// The exit code: 3 if something became slower; 4 if that cannot be told and `strict` asks for it.
    pub fn code(&self, strict: bool) -> u8 {
        let any = |verdict| self.0.iter().any(|row| row.verdict == verdict);
        match () {
            () if any(Verdict::Slow) => 3,
            () if strict && any(Verdict::Ambiguous) => 4,
            () => 0,
        }
    }

    /// As text; `explain` says why of each row.
    pub fn text(&self, format: Format, explain: bool) -> anyhow::Result<String> {
        if matches!(format, Format::Json) {
            return document(json!({"comparison": self.0}));
        }
        if matches!(format, Format::Jsonl) {
            return self
                .0
                .iter()
                .map(|row| Ok(printable_json(&serde_json::to_string(row)?).into_owned() + "\n"))
                .collect();
        }
        let percent = |ratio: f64| format!("{:+.2} %", 100.0 * (ratio - 1.0));
        let mut header = vec!["compared", "old ms", "new ms", "change", "interval", "verdict"];
        header.extend(explain.then_some("why"));
        let row = |row: &Compared| {
            let differs =
                |name: &String, value: &Value| self.0.iter().any(|row| row.parameters.get(name) != Some(value));
            let varied = row.parameters.iter().filter(|(name, value)| differs(name, value));
            let name = varied.fold(row.name.clone(), |label, (name, value)| format!("{label}, {name} {value}"));
            let interval = row.interval.map(|(low, high)| format!("{} to {}", percent(low), percent(high)));
            let [old, new] = [row.old, row.new].map(|seconds| digits(1e3 * seconds));
            let mut cells =
                vec![name, old, new, percent(row.ratio), interval.unwrap_or_default(), row.verdict.to_string()];
            cells.extend(explain.then(|| row.why.clone()));
            cells
        };
        let rows: Vec<Vec<String>> = self.0.iter().map(row).collect();
        match format {
            Format::Csv => {
                let mut out = csv::Writer::from_writer(Vec::new());
                out.write_record(&header)?;
                rows.iter().try_for_each(|row| out.write_record(row))?;
                Ok(String::from_utf8(out.into_inner()?)?)
            }
            Format::Md => Ok(printable(&markdown_table(&header, rows)).into_owned()),
            _ => Ok(printable(&table(&header, rows)).into_owned() + "\n"),
        }
    }
}

/// A program and what it is to measure.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// The arguments of this process without those flags, each of which takes a value if `true` stands beside it.
pub fn arguments_without(flags: &[(&str, bool)]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        let flag = flags.iter().find(|(flag, _)| text == *flag || text.starts_with(&format!("{flag}=")));
        match flag {
            None => kept.push(argument),
            Some((flag, true)) if text == *flag => drop(arguments.next()),
            Some(_) => {}
        }
    }
    kept
}

/// Runs two programs in turn, round by round, until each row's verdict is clear or the thresholds' rounds are used up.
/// `progress` hears of each round.
pub fn interleave(
    old: &Program,
    new: &Program,
    thresholds: &Thresholds,
    progress: &mut dyn FnMut(usize),
) -> anyhow::Result<Findings> {
    let mut rows: Vec<(String, Map<String, Value>, Rounds)> = Vec::new();
    for round in 1..=thresholds.max_rounds {
        progress(round);
        one_round(old, new, round, &mut rows, thresholds)?;
        let verdicts: Option<Vec<Compared>> =
            rows.iter().map(|(name, parameters, rounds)| rounds.verdict(name, parameters, thresholds)).collect();
        if let Some(verdicts) = verdicts {
            return Ok(Findings(verdicts));
        }
    }
    bail!("{} rounds gave no verdict", thresholds.max_rounds)
}

fn one_round(
    old: &Program,
    new: &Program,
    round: usize,
    rows: &mut Vec<(String, Map<String, Value>, Rounds)>,
    thresholds: &Thresholds,
) -> anyhow::Result<()> {
    let mut programs = [Turns::start(old)?, Turns::start(new)?];
    for at in 0.. {
        let [first, second] = &mut programs;
        let (name, parameters) = match (first.ready()?, second.ready()?) {
            (None, None) => break,
            (Some(old), Some(new)) if old == new => old,
            (None, Some(_)) if at == 0 => {
                bail!("{} ended without a row: is it a fissfuse-bench, and does it know this command?", first.name)
            }
            (old, new) => {
                let shown = |row: Option<(String, Map<String, Value>)>| {
                    row.map_or("nothing more".into(), |(name, parameters)| {
                        let parameters = parameters.iter().map(|(name, value)| format!(", {name} {value}"));
                        name + &parameters.collect::<String>()
                    })
                };
                bail!("the programs measure different rows: the old one {}; the new one {}", shown(old), shown(new))
            }
        };
        if rows.len() == at {
            rows.push((name, parameters, Rounds::default()));
        }
        let (name, parameters, rounds) = &mut rows[at];
        // What is clear already is not measured again.
        if rounds.verdict(name, parameters, thresholds).is_none() {
            let mut both = [Turn::default(), Turn::default()];
            for turn in 0..TURNS {
                // Who begins changes, so that what the machine does meanwhile meets both alike.
                let begins = (turn + round) % 2;
                for side in [begins, 1 - begins] {
                    both[side].extend(programs[side].run(TURN)?);
                }
            }
            let [old, new] = both;
            rounds.push(old, new)?;
        }
        programs.iter_mut().try_for_each(|program| program.ask(&Asked::Next))?;
    }
    ensure!(!rows.is_empty(), "the programs measure nothing that can be compared");
    programs.into_iter().try_for_each(Turns::end)
}

/// A process that measures when asked.
struct Turns {
    name: String,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Turns {
    fn start(program: &Program) -> anyhow::Result<Turns> {
        let name = program.path.display().to_string();
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).arg("--in-turns").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let (to, from) = (to.context("no standard input")?, from.context("no standard output")?);
        Ok(Turns { name, child, to, from: BufReader::new(from) })
    }

    fn ask(&mut self, asked: &Asked) -> anyhow::Result<()> {
        let line = serde_json::to_string(asked)? + "\n";
        match self.to.write_all(line.as_bytes()).and_then(|()| self.to.flush()) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended()),
        }
    }

    /// What it says next, if it goes on.
    fn said(&mut self) -> anyhow::Result<Option<Said>> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        let said = serde_json::from_str(&line);
        said.map(Some).with_context(|| format!("{} does not measure in turns: it says {line:?}", self.name))
    }

    /// Its next row, if there is one.
    fn ready(&mut self) -> anyhow::Result<Option<(String, Map<String, Value>)>> {
        match self.said()? {
            Some(Said::Ready(name, parameters)) => Ok(Some((name, parameters))),
            Some(other) => bail!("{} gives {other:?} for a row", self.name),
            None => match self.child.wait()?.success() {
                true => Ok(None),
                false => Err(self.ended()),
            },
        }
    }

    fn run(&mut self, seconds: f64) -> anyhow::Result<Turn> {
        self.ask(&Asked::Run(seconds))?;
        match self.said()? {
            Some(Said::Seconds(seconds)) => Ok(Turn { seconds, clocks_mhz: None }),
            Some(Said::Turn(turn)) => Ok(turn),
            Some(other) => bail!("{} gives {other:?} for times", self.name),
            None => Err(self.ended()),
        }
    }

    /// Why it ended.
    fn ended(&mut self) -> anyhow::Error {
        let status = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
        anyhow::anyhow!(
            "{} ended while it was measured ({status}); what it said stands above, and a program without --in-turns is too old",
            self.name
        )
    }

    fn end(mut self) -> anyhow::Result<()> {
        drop(self.to);
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

/// This program, as another process runs it.
pub fn this(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<Program> {
    let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_os_string()).collect();
    Ok(Program { path: std::env::current_exe()?, arguments })
}

/// The thresholds of a file, or the usual ones.
pub fn thresholds(file: Option<&Path>) -> fissfuse::Result<Thresholds> {
    file.map_or(Ok(Thresholds::default()), Thresholds::read)
}
