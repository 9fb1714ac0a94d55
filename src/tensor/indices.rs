//! Arrays of row numbers and offsets.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Ptr, Runs};
use crate::error::{Error, Result};

/// Arrays that are copied together begin at multiples of so many numbers: 64 bytes.
const APART: usize = 16;

/// An immutable array of numbers that is made, or copied to a device, when first needed there. Cloning shares both.
#[derive(Clone, Debug)]
pub struct Indices(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    len: usize,
    rule: Rule,
    /// The numbers, on the host.
    values: OnceLock<Vec<u32>>,
    on_device: OnceLock<Place>,
}

/// What the numbers are.
#[derive(Debug)]
enum Rule {
    /// Those that were given.
    Given,
    /// 0, 1, 2, ..., which each device holds once for all.
    Counting,
    /// Runs of consecutive numbers, laid end to end: run i begins with `firsts[i]` and stands at `offsets[i]..offsets[i + 1]`.
    /// A device writes them itself.
    Runs { firsts: Indices, offsets: Indices },
}

/// Where an array lies on a device, perhaps among others.
#[derive(Debug)]
struct Place {
    array: Arc<DeviceBuffer<u32>>,
    first: usize,
}

impl Indices {
    fn new(len: usize, rule: Rule) -> Indices {
        Indices(Arc::new(Inner { len, rule, values: OnceLock::new(), on_device: OnceLock::new() }))
    }

    /// 0, 1, ..., n - 1. It costs devices no copy of its own.
    pub fn counting(n: usize) -> Indices {
        Indices::new(n, Rule::Counting)
    }

    /// Runs of consecutive numbers, laid end to end: run i begins with `firsts[i]`, and is as long as `offsets` (as many and
    /// one more, from 0, not falling) says. Fails if there are not as many, or numbers do not fit.
    pub fn runs(firsts: impl Into<Indices>, offsets: &Indices) -> Result<Indices> {
        let (firsts, offsets) = (firsts.into(), offsets.clone());
        if offsets.len() != firsts.len() + 1 {
            return Err(Error::shape("runs", format!("{} runs, {} offsets", firsts.len(), offsets.len())));
        }
        let ends = firsts.iter().zip(offsets.windows(2)).map(|(&first, run)| first.checked_add(run[1] - run[0]));
        if let Some(run) = ends.into_iter().position(|end| end.is_none()) {
            return Err(Error::shape("runs", format!("run {run} goes beyond 2^32")));
        }
        Ok(Indices::new(offsets[firsts.len()] as usize, Rule::Runs { firsts, offsets }))
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest number, of runs without making them.
    pub fn largest(&self) -> Option<u32> {
        match &self.0.rule {
            Rule::Given => self.iter().copied().max(),
            Rule::Counting => (self.len() as u32).checked_sub(1),
            Rule::Runs { firsts, offsets } => {
                let runs = firsts.iter().zip(offsets.windows(2)).filter(|(_, run)| run[0] < run[1]);
                runs.map(|(&first, run)| first + (run[1] - run[0] - 1)).max()
            }
        }
    }

    fn made(&self) -> Vec<u32> {
        match &self.0.rule {
            Rule::Given => vec![],
            Rule::Counting => (0..self.len() as u32).collect(),
            Rule::Runs { firsts, offsets } => {
                let mut numbers = Vec::with_capacity(self.len());
                for (&first, run) in firsts.iter().zip(offsets.windows(2)) {
                    numbers.extend(first..first + (run[1] - run[0]));
                }
                numbers
            }
        }
    }

    /// The arrays that are copied so that a device has this one.
    fn copied(&self) -> Vec<&Indices> {
        match &self.0.rule {
            Rule::Given => vec![self],
            Rule::Counting => vec![],
            Rule::Runs { firsts, offsets } => vec![firsts, offsets],
        }
    }

    /// Starts copying what the device does not have yet of the arrays: through one block of page-locked memory, by one copy,
    /// while the device computes.
    pub fn stage(arrays: &[&Indices], gpu: &Gpu) -> Result<()> {
        let (mut places, mut end): (Vec<(&Indices, usize)>, usize) = (Vec::new(), 0);
        for array in arrays.iter().filter(|array| array.0.on_device.get().is_none()).flat_map(|array| array.copied()) {
            let known = places.iter().any(|(other, _)| Arc::ptr_eq(&other.0, &array.0));
            if !known && matches!(array.0.rule, Rule::Given) && array.0.on_device.get().is_none() {
                places.push((array, end));
                end = (end + array.len()).next_multiple_of(APART);
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        let block = gpu.stage("row numbers", end, |block: &mut [u32]| {
            for (array, first) in &places {
                block[*first..first + array.len()].copy_from_slice(array);
            }
        })?;
        let block = Arc::new(block);
        for (array, first) in places {
            array.0.on_device.get_or_init(|| Place { array: block.clone(), first });
        }
        Ok(())
    }

    /// Has the device write the runs among the arrays that it does not have yet, all by one launch.
    pub fn expand(arrays: &[&Indices], gpu: &Gpu) -> Result<()> {
        let (mut expanded, mut runs): (Vec<&Indices>, Vec<Runs>) = (Vec::new(), Vec::new());
        for array in arrays.iter().filter(|array| array.0.on_device.get().is_none()) {
            if let Rule::Runs { firsts, offsets } = &array.0.rule {
                let (count, total) = (firsts.len(), array.len());
                runs.push(Runs { firsts: firsts.on(gpu)?, offsets: offsets.on(gpu)?, count, total });
                expanded.push(array);
            }
        }
        for (array, numbers) in expanded.into_iter().zip(gpu.expand_runs("row numbers", &runs)?) {
            array.0.on_device.get_or_init(|| Place { array: Arc::new(numbers), first: 0 });
        }
        Ok(())
    }

    /// Where kernels that are queued from now on find the numbers on this device; they stay there as long as the array lives.
    pub fn on(&self, gpu: &Gpu) -> Result<Ptr> {
        match &self.0.rule {
            Rule::Counting => return gpu.counting(self.len()),
            Rule::Runs { .. } => Indices::expand(&[self], gpu)?,
            Rule::Given => {}
        }
        let place = match self.0.on_device.get() {
            Some(place) => place,
            None => {
                let array = Arc::new(gpu.upload("row numbers", self)?);
                self.0.on_device.get_or_init(|| Place { array, first: 0 })
            }
        };
        if !place.array.gpu().is(gpu) {
            return Err(Error::shape(
                "indices",
                format!("lie on {:?}, needed on {gpu:?} or by another stream", place.array.gpu()),
            ));
        }
        place.array.arrive()?;
        Ok(place.array.ptr().offset::<u32>(place.first))
    }
}

impl From<Vec<u32>> for Indices {
    fn from(values: Vec<u32>) -> Indices {
        let (len, values) = (values.len(), OnceLock::from(values));
        Indices(Arc::new(Inner { len, rule: Rule::Given, values, on_device: OnceLock::new() }))
    }
}

impl FromIterator<u32> for Indices {
    fn from_iter<I: IntoIterator<Item = u32>>(values: I) -> Indices {
        values.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for Indices {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        self.0.values.get_or_init(|| self.made())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_laid_end_to_end() {
        let offsets = Indices::from(vec![0, 3, 3, 5]);
        let runs = Indices::runs(vec![7, 900, 0], &offsets).unwrap();
        assert_eq!((runs.len(), runs.largest()), (5, Some(9)));
        assert!(runs.0.values.get().is_none(), "no number was needed yet");
        assert_eq!(runs[..], [7, 8, 9, 0, 1]);
        assert_eq!(Indices::counting(4)[..], [0, 1, 2, 3]);
        assert_eq!((Indices::counting(4).largest(), Indices::counting(0).largest()), (Some(3), None));
        assert_eq!(Indices::from(vec![4, 9, 2]).largest(), Some(9));
    }

    #[test]
    fn runs_that_cannot_be_are_refused() {
        let offsets = Indices::from(vec![0, 3]);
        assert!(Indices::runs(vec![1, 2], &offsets).is_err());
        assert!(
            Indices::runs(vec![u32::MAX - 1], &offsets).unwrap_err().to_string().contains("run 0 goes beyond 2^32")
        );
    }
}
