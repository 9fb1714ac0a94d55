//! As which of how many processes this one was started: by our own flags, or as a launcher's variables say.

use std::time::Duration;

use super::meeting::Meeting;
use crate::error::{Error, Result};

/// Where rank 0 listens if nobody says.
const PORT: u16 = 29_500;

/// Most ranks of a run: rank 0 keeps a connection to each, and all keep one to each other.
const MOST_RANKS: usize = 4096;

/// What our own flags say.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--rank`
    pub rank: Option<usize>,
    /// `--world`
    pub world: Option<usize>,
    /// `--master HOST:PORT`
    pub master: Option<String>,
    /// `--launcher`
    pub launcher: Option<Launcher>,
}

/// Whose variables count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Launcher {
    /// RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT: of torchrun and all who imitate it.
    Torchrun,
    /// OMPI_COMM_WORLD_RANK, ..._SIZE, ..._LOCAL_RANK: of Open MPI's mpirun.
    Ompi,
    /// PMI_RANK, PMI_SIZE, MPI_LOCALRANKID: of MPICH's and Intel's mpirun.
    Pmi,
    /// SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID: of srun.
    Slurm,
    /// Nobody's: a run of one process.
    None,
}

/// Their variables, in the order in which they count: rank, number of ranks, rank within the host, ranks of the host.
const VARIABLES: [(Launcher, &str, [&str; 4]); 4] = [
    (Launcher::Torchrun, "torchrun", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"]),
    (
        Launcher::Ompi,
        "Open MPI",
        ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"],
    ),
    (Launcher::Pmi, "PMI", ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"]),
    (Launcher::Slurm, "Slurm", ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"]),
];

/// One process of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where and as what it meets the others.
    pub meeting: Meeting,
    /// Its number among those of its host, where that is known.
    pub local: Option<usize>,
    /// Who says so.
    pub said_by: &'static str,
}

/// Variables of the environment.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a launcher says.
#[derive(Clone, Copy, Debug)]
struct Said {
    launcher: Launcher,
    name: &'static str,
    rank: usize,
    size: usize,
    local: Option<usize>,
    /// Whether all processes are on one host.
    alone: bool,
}

impl Place {
    /// This process's place among several, or `None` where there is but one.
    ///
    /// Fails where flags or variables are incomplete, are no numbers, or contradict each other.
    pub fn of(flags: &Flags, deadline: Duration, variable: Lookup) -> Result<Option<Place>> {
        let (said, by_flags) = match (flags.rank, flags.world) {
            (Some(rank), Some(size)) => {
                let (name, launcher) = ("--rank and --world", Launcher::None);
                (Some(Said { launcher, name, rank, size, local: None, alone: true }), true)
            }
            (None, None) => (launched(flags.launcher, variable)?, false),
            _ => return Err(Error::invalid("--rank and --world come together: which rank this is, and of how many")),
        };
        let Some(said) = said.filter(|said| said.size > 1 || said.rank > 0) else {
            return match &flags.master {
                Some(_) if !by_flags => Err(Error::invalid(
                    "--master says where rank 0 listens, but this is a run of one process: add --rank and --world, or start it \
                     by torchrun, srun or mpirun",
                )),
                _ => Ok(None),
            };
        };
        let Said { name, rank, size, local, .. } = said;
        if size > MOST_RANKS {
            return Err(Error::invalid(format!("{name}: {size} ranks; at most {MOST_RANKS} train together")));
        }
        if rank >= size {
            return Err(Error::invalid(format!("{name}: rank {rank} of {size}: ranks count from 0")));
        }
        let master = master(flags, &said, variable)?;
        let job = match said.launcher {
            Launcher::Torchrun => variable("TORCHELASTIC_RUN_ID"),
            Launcher::Slurm => {
                let step = variable("SLURM_STEP_ID").unwrap_or_default();
                variable("SLURM_JOB_ID").map(|job| format!("{job}.{step}"))
            }
            _ => None,
        };
        Ok(Some(Place { meeting: Meeting { rank, size, master, job, deadline }, local, said_by: name }))
    }
}

fn number(name: &str, variable: Lookup) -> Result<Option<usize>> {
    let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let refuse =
        |_| Error::invalid(format!("{name} is `{text}`, which is no number; unset it, or give --launcher none"));
    text.trim().parse().map(Some).map_err(refuse)
}

/// What the variables of all launchers say together, or of this one.
fn launched(only: Option<Launcher>, variable: Lookup) -> Result<Option<Said>> {
    let mut found: Vec<Said> = Vec::new();
    for (launcher, name, variables) in VARIABLES {
        if only.is_some_and(|only| only != launcher) {
            continue;
        }
        // In a batch script itself, Slurm's variables are those of the whole job, though one process runs: srun starts tasks.
        let [rank, size, local, _] = variables;
        let [rank, size, local] = [number(rank, variable)?, number(size, variable)?, number(local, variable)?];
        let size = match launcher {
            Launcher::Slurm if size.is_none() && variable("SLURM_STEP_ID").is_some() => {
                number("SLURM_NTASKS", variable)?
            }
            _ => size,
        };
        match (rank, size) {
            (Some(rank), Some(size)) => {
                let alone = number(variables[3], variable).ok().flatten() == Some(size);
                found.push(Said { launcher, name, rank, size, local, alone });
            }
            (None, None) => {}
            _ if launcher == Launcher::Slurm => {}
            _ => {
                let [there, lacks] = if rank.is_some() { [0, 1] } else { [1, 0] };
                return Err(Error::invalid(format!(
                    "{} is set, but {} is not: {name} sets both; unset it, or give --launcher none",
                    variables[there], variables[lacks]
                )));
            }
        }
    }
    // A world of one is what each task of another launcher's step is, or a plain run: it contradicts nobody.
    let several: Vec<Said> = found.iter().copied().filter(|said| said.size > 1).collect();
    if found.is_empty()
        && let Some((_, name, variables)) = VARIABLES.iter().find(|(launcher, ..)| Some(*launcher) == only)
    {
        return Err(Error::invalid(format!(
            "--launcher asks for {name}'s variables, and they do not say which of how many ranks this is ({}, {}): start the \
             processes by it, or leave out --launcher",
            variables[0], variables[1]
        )));
    }
    let Some(first) = several.first() else { return Ok(found.first().copied()) };
    match several.iter().find(|said| (said.rank, said.size) != (first.rank, first.size)) {
        None => Ok(Some(*first)),
        Some(other) => Err(Error::invalid(format!(
            "{} says that this is rank {} of {}, {} that it is rank {} of {}: say which counts by --launcher, or give --rank \
             and --world",
            first.name, first.rank, first.size, other.name, other.rank, other.size
        ))),
    }
}

/// Where rank 0 listens.
fn master(flags: &Flags, said: &Said, variable: Lookup) -> Result<(String, u16)> {
    if let Some(text) = &flags.master {
        let refuse = || Error::invalid(format!("--master `{text}` is not HOST:PORT"));
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(refuse)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        return if host.is_empty() { Err(refuse()) } else { Ok((host.into(), port)) };
    }
    let port = match number("MASTER_PORT", variable)? {
        Some(port) => {
            // torchrun's own store listens there.
            let taken = variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|uses| uses.eq_ignore_ascii_case("true"));
            let port = port + usize::from(taken && said.launcher == Launcher::Torchrun);
            let refuse = |_| Error::invalid(format!("MASTER_PORT: {port} is no port; give --master HOST:PORT"));
            u16::try_from(port).map_err(refuse)?
        }
        None => match (said.launcher, number("SLURM_JOB_ID", variable)?) {
            // Jobs that share a node must not meet.
            (Launcher::Slurm, Some(job)) => 20_000 + (job % 10_000) as u16,
            _ => PORT,
        },
    };
    let first = || match said.launcher {
        Launcher::Slurm => variable("SLURM_STEP_NODELIST")
            .or_else(|| variable("SLURM_JOB_NODELIST"))
            .or_else(|| variable("SLURM_NODELIST")),
        _ => None,
    };
    let host = variable("MASTER_ADDR").filter(|host| !host.is_empty()).or_else(|| first_host(&first()?));
    match host {
        Some(host) => Ok((host, port)),
        None if said.alone => Ok(("127.0.0.1".into(), port)),
        None => Err(Error::invalid(format!(
            "{} does not say where rank 0 is: give --master HOST:PORT, or set MASTER_ADDR",
            said.name
        ))),
    }
}

/// The first of Slurm's hosts: of `gpu[03-05,9],login1` it is `gpu03`.
fn first_host(list: &str) -> Option<String> {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (start, rest) = list.split_at(end);
    let first = match rest.strip_prefix('[') {
        Some(ranges) => {
            let (ranges, after) = ranges.split_once(']')?;
            let number = ranges.split([',', '-']).next()?;
            // What follows the number belongs to the name.
            let after = after.split([',', '[']).next().unwrap_or_default();
            format!("{start}{number}{after}")
        }
        None => start.to_string(),
    };
    (!first.is_empty()).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flags: Flags, variables: &[(&str, &str)]) -> Result<Option<Place>> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        Place::of(&flags, Duration::from_secs(1), &variable)
    }

    fn said(variables: &[(&str, &str)]) -> (usize, usize, Option<usize>, String, u16) {
        let Place { meeting, local, .. } = of(Flags::default(), variables).unwrap().unwrap();
        (meeting.rank, meeting.size, local, meeting.master.0, meeting.master.1)
    }

    const TORCHRUN: [(&str, &str); 5] =
        [("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "node7"), ("MASTER_PORT", "29400")];

    const SLURM: [(&str, &str); 6] = [
        ("SLURM_PROCID", "2"),
        ("SLURM_STEP_NUM_TASKS", "4"),
        ("SLURM_STEP_ID", "0"),
        ("SLURM_LOCALID", "0"),
        ("SLURM_STEP_NODELIST", "gpu[03-04]"),
        ("SLURM_JOB_ID", "1234567"),
    ];

    #[test]
    fn each_launcher_is_understood() {
        assert_eq!(said(&TORCHRUN), (3, 4, Some(1), "node7".into(), 29_400));
        let store = [&TORCHRUN[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
        assert_eq!(said(&store).4, 29_401);
        assert_eq!(said(&SLURM), (2, 4, Some(0), "gpu03".into(), 24_567));
        let ompi = [
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ];
        assert_eq!(said(&ompi), (1, 2, Some(1), "127.0.0.1".into(), PORT));
        let pmi = [("PMI_RANK", "0"), ("PMI_SIZE", "2"), ("MASTER_ADDR", "a")];
        assert_eq!(said(&pmi), (0, 2, None, "a".into(), PORT));
    }

    #[test]
    fn one_process_is_a_plain_run() {
        assert_eq!(of(Flags::default(), &[]).unwrap(), None);
        let one = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_STEP_ID", "0")];
        assert_eq!(of(Flags::default(), &one).unwrap(), None);
        // A batch script of a job of four tasks, without srun.
        assert_eq!(of(Flags::default(), &[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]).unwrap(), None);
        let srun = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_STEP_ID", "0"), ("SLURM_NODELIST", "a,b")];
        assert_eq!(of(Flags::default(), &srun).unwrap().unwrap().meeting.size, 4);
        let none = Flags { launcher: Some(Launcher::None), ..Flags::default() };
        assert_eq!(of(none, &TORCHRUN).unwrap(), None);
    }

    #[test]
    fn flags_win_and_contradictions_are_named() {
        let flags = Flags { rank: Some(1), world: Some(2), master: Some("[::1]:700".into()), launcher: None };
        let place = of(flags, &[&TORCHRUN[..], &SLURM[..]].concat()).unwrap().unwrap();
        assert_eq!((place.meeting.rank, place.meeting.size, place.meeting.master), (1, 2, ("::1".into(), 700)));
        let refused = |flags: Flags, variables: &[(&str, &str)], says: &[&str]| {
            let error = of(flags, variables).unwrap_err().to_string();
            assert!(says.iter().all(|says| error.contains(says)), "{error}");
        };
        let both = [&TORCHRUN[..], &SLURM[..]].concat();
        refused(
            Flags::default(),
            &both,
            &["torchrun says", "rank 3 of 4", "Slurm that it is rank 2 of 4", "--launcher"],
        );
        let chosen = Flags { launcher: Some(Launcher::Slurm), ..Flags::default() };
        assert_eq!(of(chosen, &both).unwrap().unwrap().said_by, "Slurm");
        refused(Flags::default(), &[("RANK", "0")], &["RANK is set, but WORLD_SIZE is not"]);
        refused(Flags::default(), &[("RANK", "x"), ("WORLD_SIZE", "2")], &["RANK is `x`"]);
        refused(Flags::default(), &[("RANK", "2"), ("WORLD_SIZE", "2")], &["rank 2 of 2"]);
        refused(Flags::default(), &[("PMI_RANK", "0"), ("PMI_SIZE", "2")], &["PMI does not say where rank 0 is"]);
        refused(Flags { rank: Some(1), ..Flags::default() }, &[], &["--rank and --world come together"]);
        let slurm = || Flags { launcher: Some(Launcher::Slurm), ..Flags::default() };
        refused(slurm(), &TORCHRUN, &["Slurm's variables", "SLURM_PROCID", "start the processes by it"]);
        let many = Flags { rank: Some(0), world: Some(1_000_000_000), ..Flags::default() };
        refused(many, &[], &["1000000000 ranks", "at most 4096"]);
        let lost = Flags { master: Some("a:1".into()), ..Flags::default() };
        refused(lost.clone(), &[], &["run of one process"]);
        for master in ["a", "a:", ":1", "a:0", "a:70000"] {
            let flags = Flags { master: Some(master.into()), ..lost.clone() };
            refused(flags, &TORCHRUN, &["is not HOST:PORT"]);
        }
        let last = [&TORCHRUN[..4], &[("MASTER_PORT", "65535"), ("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
        refused(Flags::default(), &last, &["65536 is no port"]);
    }

    #[test]
    fn the_first_host_of_a_list_is_found() {
        for (list, first) in [
            ("node1", "node1"),
            ("node1,node2", "node1"),
            ("gpu[03-05,9],login1", "gpu03"),
            ("gpu[7]", "gpu7"),
            ("rack[1-2]-gpu,x", "rack1-gpu"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        assert!(["", "[", "a["].iter().all(|list| first_host(list).is_none()));
    }
}
