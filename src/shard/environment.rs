//! Which part a task of an array job is, by the variables that Slurm and SGE set.

use super::Shard;
use crate::error::{Error, Result};

/// A scheduler's variables: a task's number; the first, the last and the step of the array's; their count, where it says so.
struct Scheduler {
    name: &'static str,
    task: &'static str,
    first: &'static str,
    last: &'static str,
    step: &'static str,
    count: Option<&'static str>,
    /// Smallest numbers that an array may begin with.
    begins: &'static [usize],
    /// How an array of 8 is asked for.
    whole: &'static str,
}

const SCHEDULERS: [Scheduler; 2] = [
    Scheduler {
        name: "Slurm",
        task: "SLURM_ARRAY_TASK_ID",
        first: "SLURM_ARRAY_TASK_MIN",
        last: "SLURM_ARRAY_TASK_MAX",
        step: "SLURM_ARRAY_TASK_STEP",
        count: Some("SLURM_ARRAY_TASK_COUNT"),
        begins: &[0, 1],
        whole: "--array=1-8 or --array=0-7",
    },
    Scheduler {
        name: "SGE",
        task: "SGE_TASK_ID",
        first: "SGE_TASK_FIRST",
        last: "SGE_TASK_LAST",
        step: "SGE_TASK_STEPSIZE",
        count: None,
        begins: &[1],
        whole: "-t 1-8",
    },
];

/// The part that a task of an array job is, and the variable that says so.
///
/// Only whole arrays count: their numbers begin with 0 or 1 and leave none out. A few tasks that are submitted again are an
/// array of their own, which says nothing of the one before; such are refused, and so is an environment without an array.
pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<(Shard, String)> {
    let mut found = Vec::new();
    for scheduler in &SCHEDULERS {
        // SGE's jobs that are no arrays have the task "undefined".
        if let Some(task) = variable(scheduler.task).filter(|task| !task.is_empty() && task != "undefined") {
            found.push((scheduler.shard(&task, &variable)?, format!("{}={task}", scheduler.task)));
        }
    }
    match found.as_slice() {
        [] => Err(Error::invalid(
            "--shard auto: this is no task of an array job: neither SLURM_ARRAY_TASK_ID nor SGE_TASK_ID is set; give \
             --shard i/n",
        )),
        [(one, by), (other, also), ..] if one != other => {
            Err(Error::invalid(format!("--shard auto: {by} says {one}, {also} says {other}; give --shard i/n")))
        }
        [found, ..] => Ok(found.clone()),
    }
}

impl Scheduler {
    fn shard(&self, task: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<Shard> {
        let Scheduler { name, whole, .. } = self;
        let refuse = |what: String| {
            Error::invalid(format!(
                "--shard auto: {what}: which part this is cannot be told; submit a whole array ({whole}), or give --shard i/n \
                 to the tasks that are run again"
            ))
        };
        let number = |of: &str| {
            let text = variable(of).ok_or_else(|| refuse(format!("{} is set and {of} is not", self.task)))?;
            text.parse::<usize>().map_err(|_| refuse(format!("{of}={text} is no number")))
        };
        let task = task.parse::<usize>().map_err(|_| refuse(format!("{}={task} is no number", self.task)))?;
        let (first, last, step) = (number(self.first)?, number(self.last)?, number(self.step)?);
        if !self.begins.contains(&first) {
            return Err(refuse(format!("{name}'s array begins with {first}")));
        }
        if step != 1 {
            return Err(refuse(format!("{name}'s array counts in steps of {step}")));
        }
        if !(first..=last).contains(&task) {
            return Err(refuse(format!("{}={task} is none of {first} to {last}", self.task)));
        }
        let tasks = last - first + 1;
        let count = self.count.map_or(Ok(tasks), number)?;
        if count != tasks {
            return Err(refuse(format!("{name}'s array has {count} tasks of the {tasks} from {first} to {last}")));
        }
        Shard::new(task - first + 1, tasks).ok_or_else(|| refuse(format!("{name}'s array has {tasks} tasks")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &str) -> Result<(usize, usize), String> {
        let get = |name: &str| {
            let mut all = variables.split_whitespace().filter_map(|one| one.split_once('='));
            all.find(|(other, _)| *other == name).map(|(_, value)| value.to_string())
        };
        let (shard, _) = from_environment(get).map_err(|error| error.to_string())?;
        Ok((shard.index(), shard.count()))
    }

    fn slurm(task: &str, first: &str, last: &str, step: &str, count: &str) -> String {
        format!(
            "SLURM_ARRAY_TASK_ID={task} SLURM_ARRAY_TASK_MIN={first} SLURM_ARRAY_TASK_MAX={last} \
             SLURM_ARRAY_TASK_STEP={step} SLURM_ARRAY_TASK_COUNT={count} "
        )
    }

    fn sge(task: &str, first: &str, last: &str, step: &str) -> String {
        format!("SGE_TASK_ID={task} SGE_TASK_FIRST={first} SGE_TASK_LAST={last} SGE_TASK_STEPSIZE={step} ")
    }

    #[test]
    fn whole_arrays_say_which_part_a_task_is() {
        assert_eq!(of(&slurm("0", "0", "7", "1", "8")), Ok((1, 8)));
        assert_eq!(of(&slurm("7", "0", "7", "1", "8")), Ok((8, 8)));
        assert_eq!(of(&slurm("7", "1", "8", "1", "8")), Ok((7, 8)));
        assert_eq!(of(&sge("3", "1", "4", "1")), Ok((3, 4)));
        // A job that is no array of SGE's, within an array of Slurm's.
        assert_eq!(
            of(&(slurm("2", "1", "2", "1", "2") + &sge("undefined", "undefined", "undefined", "undefined"))),
            Ok((2, 2))
        );
        assert_eq!(of(&(slurm("2", "1", "4", "1", "4") + &sge("2", "1", "4", "1"))), Ok((2, 4)));
    }

    #[test]
    fn what_could_be_another_part_is_refused() {
        for (variables, says) in [
            (String::new(), "neither SLURM_ARRAY_TASK_ID nor SGE_TASK_ID"),
            (sge("undefined", "undefined", "undefined", "undefined"), "no task of an array job"),
            // Tasks 3 and 5 of 8 once more, task 3 alone, and every fourth number.
            (slurm("3", "3", "5", "1", "2"), "begins with 3"),
            (slurm("1", "1", "5", "1", "2"), "has 2 tasks of the 5 from 1 to 5"),
            (slurm("3", "3", "3", "1", "1"), "begins with 3"),
            (slurm("4", "0", "12", "4", "4"), "in steps of 4"),
            (slurm("9", "0", "7", "1", "8"), "is none of 0 to 7"),
            (slurm("x", "0", "7", "1", "8"), "SLURM_ARRAY_TASK_ID=x is no number"),
            (slurm("1", "0", "7", "1", "-8"), "SLURM_ARRAY_TASK_COUNT=-8 is no number"),
            (slurm("1", "0", "999999", "1", "1000000"), "has 1000000 tasks"),
            ("SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_COUNT=8".into(), "SLURM_ARRAY_TASK_MIN is not"),
            (sge("2", "2", "4", "1"), "begins with 2"),
            (sge("3", "1", "9", "2"), "in steps of 2"),
            (
                slurm("2", "1", "4", "1", "4") + &sge("3", "1", "4", "1"),
                "says part 2 of 4, SGE_TASK_ID=3 says part 3 of 4",
            ),
        ] {
            let error = of(&variables).unwrap_err();
            assert!(error.contains(says) && error.contains("--shard i/n"), "{variables}: {error}");
        }
    }
}
