//! `--devices` and the flags of processes that train together.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::builder::RangedU64ValueParser;
use fissfuse::Error;
use fissfuse::device::cuda::{count, has_driver, kernels};
use fissfuse::device::{DeviceChoice, Gpu};
use fissfuse::parallel::{Board, Flags, Group, Launcher, Place, Reduce, reduce};

use super::common::{DeviceArgs, at_least_one};

/// Flags of subcommands that train on several devices.
#[derive(clap::Args)]
#[command(next_help_heading = "Several devices (docs/parallel.md)")]
pub struct ParallelArgs {
    /// Devices of this machine that train together, each on its part of every batch: cuda:0,cuda:1.
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', conflicts_with = "device")]
    devices: Vec<DeviceChoice>,

    /// Which of the processes that train together this is, from 0; rank 0 writes the run. Launchers say it by themselves.
    #[arg(long, value_name = "N")]
    rank: Option<usize>,

    /// How many processes train together.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    world: Option<usize>,

    /// Where rank 0 listens [default: as the launcher says, else 127.0.0.1:29500].
    #[arg(long, value_name = "HOST:PORT")]
    master: Option<String>,

    /// Whose variables say which rank this is [default: those that are set: torchrun, Open MPI, PMI, Slurm, in this order].
    #[arg(long, value_name = "NAME")]
    launcher: Option<Launcher>,

    /// Seconds to wait for another process, at the beginning and whenever something is due from it, before the run ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = RangedU64ValueParser::<u64>::new().range(1..=86_400))]
    deadline: u64,
}

/// How a command runs.
pub enum Ranks {
    /// As one process, on one device.
    Alone,
    /// As one process, on several devices.
    Devices(Vec<DeviceChoice>),
    /// As one of several processes, on one device each.
    Process(Place),
}

impl ParallelArgs {
    /// What the flags and the launcher's variables say.
    pub fn ranks(&self) -> anyhow::Result<Ranks> {
        let flags = Flags { rank: self.rank, world: self.world, master: self.master.clone(), launcher: self.launcher };
        let variable = |name: &str| std::env::var(name).ok();
        let place = Place::of(&flags, self.deadline(), &variable)?;
        for (at, device) in self.devices.iter().enumerate() {
            ensure!(*device != DeviceChoice::Auto, "--devices: auto names no device: name each, as in cuda:0,cuda:1");
            let twice = matches!(device, DeviceChoice::Cuda(_)) && self.devices[..at].contains(device);
            ensure!(!twice, "--devices: {device} is named twice");
        }
        Ok(match (&self.devices[..], place) {
            ([_, _, ..], Some(place)) => bail!(
                "{} says that this is one of {} processes, and each computes on one device: start one process for each device, \
                 with --device instead of --devices",
                place.said_by,
                place.meeting.size
            ),
            ([_, _, ..], None) => Ranks::Devices(self.devices.clone()),
            (_, Some(place)) => Ranks::Process(place),
            (_, None) => Ranks::Alone,
        })
    }

    /// The device of a run on one, which `--devices` may name too.
    pub fn only(&self, device: &DeviceArgs) -> DeviceArgs {
        DeviceArgs { device: self.devices.first().copied().unwrap_or(device.device), arithmetic: device.arithmetic }
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline)
    }

    /// Runs a rank on each of these devices, in a thread of its own.
    pub fn on_each(
        &self,
        devices: &[DeviceChoice],
        work: impl Fn(DeviceChoice, Team) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<()> {
        let places: Vec<String> = devices.iter().map(|device| format!("device {device}")).collect();
        let groups = Group::within(&places, self.deadline())?;
        let board = Arc::new(Board::new(devices.len()));
        let ended: Vec<anyhow::Result<()>> = thread::scope(|scope| {
            let start = |(device, group): (&DeviceChoice, Group)| {
                let (work, device, board) = (&work, *device, Some(board.clone()));
                let name = format!("rank {}", group.rank());
                thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, move || as_rank(group, |group| work(device, Team { group, board })))
            };
            let threads: Vec<_> = devices.iter().zip(groups).map(start).collect();
            let join = |thread: std::io::Result<thread::ScopedJoinHandle<_>>| match thread?.join() {
                Ok(ended) => ended,
                Err(panicked) => std::panic::resume_unwind(panicked),
            };
            threads.into_iter().map(join).collect()
        });
        let failed: Vec<anyhow::Error> = ended.into_iter().filter_map(Result::err).collect();
        // What one failed of, the others say too, with less of it.
        let own = failed.iter().position(|e| !matches!(e.downcast_ref(), Some(Error::Rank(_)))).unwrap_or(0);
        failed.into_iter().nth(own).map_or(Ok(()), Err)
    }

    /// Runs this process's rank, once all are there.
    pub fn as_process(&self, place: &Place, work: impl FnOnce(Team) -> anyhow::Result<()>) -> anyhow::Result<()> {
        as_rank(place.meeting.meet()?, |group| work(Team { group, board: None }))
    }
}

/// The ranks that train together.
pub struct Team {
    /// What they do together.
    pub group: Arc<Group>,
    /// Where they show each other their devices' memory, if they are of one process.
    board: Option<Arc<Board>>,
}

impl Team {
    /// How gradients are added up on this device: the fastest way that there is.
    pub fn reduce(&self, gpu: Option<&Gpu>) -> anyhow::Result<Box<dyn Reduce>> {
        Ok(reduce(&self.group, self.board.as_ref(), gpu)?)
    }
}

/// Does a rank's work, and tells the others if it fails.
fn as_rank(group: Group, work: impl FnOnce(Arc<Group>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let group = Arc::new(group);
    let ended = work(group.clone());
    if let Err(error) = &ended {
        match error.downcast_ref::<Error>() {
            Some(error) => group.stop(error),
            None => group.stop(&Error::invalid(format!("{error:#}"))),
        }
    }
    ended
}

/// The device of a process: that of its number among those of its host, where none is named.
pub fn device_of(place: &Place, device: &DeviceArgs) -> anyhow::Result<DeviceArgs> {
    let chosen = match (device.device, place.local) {
        // What cannot be used is no error for `auto`: it says so, and takes the processor.
        (DeviceChoice::Auto, Some(local)) if has_driver() && !kernels::EMBEDDED.is_empty() => {
            match count().unwrap_or(0) {
                // Launchers may show each process its own device alone.
                0 | 1 => DeviceChoice::Auto,
                devices if local < devices => DeviceChoice::Cuda(local),
                devices => bail!(
                    "this is process {local} of its host (from 0), which has {devices} devices: start as many processes as there are \
                 devices, or name one by --device"
                ),
            }
        }
        (device, _) => device,
    };
    Ok(DeviceArgs { device: chosen, arithmetic: device.arithmetic })
}
