//! What belongs to no model: what ceilings are measured with, memory that is filled, and row numbers that a device writes.

use half::bf16;

use super::definition::values;
use super::{Check, SUMS, bits};
use crate::device::cuda::{MMA_OPERANDS, Runs};
use crate::tensor::Indices;

/// Two blocks, and a few rounds: sums of many would round.
const BLOCKS: usize = 2;
const ROUNDS: usize = 3;

pub fn checks() -> [Check; 4] {
    [ceilings(), filled(), delays(), expanded()]
}

/// More arrays than a launch takes, one of them of no numbers; runs that are empty, and longer than a warp.
fn expanded() -> Check {
    Check::new("row numbers of runs", |gpu, found| {
        let array = |number: u32| {
            let lengths = (0..37 * number % 50).map(|run| (run * run + number) % 71);
            let (mut offsets, mut firsts) = (vec![0], vec![]);
            for (run, length) in (0..).zip(lengths) {
                firsts.push((run * 7919 + number * 104_729) % 100_000);
                offsets.push(offsets[run as usize] + length);
            }
            let offsets = Indices::from(offsets);
            Ok((Indices::runs(firsts.clone(), &offsets)?, Indices::from(firsts), offsets))
        };
        let arrays = (0..11).map(array).collect::<crate::error::Result<Vec<_>>>()?;
        let runs = arrays.iter().map(|(all, firsts, offsets)| {
            Ok(Runs { firsts: firsts.on(gpu)?, offsets: offsets.on(gpu)?, count: firsts.len(), total: all.len() })
        });
        let runs = runs.collect::<crate::error::Result<Vec<_>>>()?;
        for (numbers, (all, ..)) in gpu.expand_runs("checked", &runs)?.iter().zip(&arrays) {
            let mut got = vec![0; all.len()];
            numbers.read(&mut got)?;
            found.equal(format!("{} numbers", all.len()), &got, all);
        }
        Ok(())
    })
}

/// What keeps the device busy while something is queued.
fn delays() -> Check {
    Check::new("delays before what is timed, and the clock meanwhile", |gpu, found| {
        let mut times = [0u64; 2];
        gpu.delay()?.read(&mut times)?;
        // How long they are is the clock's affair; that cycles and nanoseconds passed is the kernel's.
        found.equal("times that passed", &times.map(|time| u32::from(time > 0)), &[1, 1]);
        // Between two stamps there is one clock, unless the timer's step is larger.
        let mut stamps = gpu.stamps()?;
        stamps.push()?;
        gpu.delay()?;
        stamps.push()?;
        let clocks = stamps.clocks_mhz()?;
        found.equal("clocks between two stamps", &[clocks.len()], &[1]);
        let can_be = clocks.iter().all(|clock| clock.is_none_or(|clock| clock > 0.0));
        found.equal("a clock that can be", &[u32::from(can_be)], &[1]);
        Ok(())
    })
}

/// While a step is recorded a kernel fills memory.
fn filled() -> Check {
    Check::new("filled memory of recorded steps", |gpu, found| {
        let mut recorded = gpu.repeating();
        for count in [1, 5, 1027] {
            let (value, zeros) =
                recorded.run(|| Ok((gpu.filled("checked", count, 2.5)?, gpu.zeros("checked", count)?)))?;
            for (buffer, want) in [(value, 2.5), (zeros, 0.0)] {
                let mut got = vec![f32::NAN; count];
                buffer.read(&mut got)?;
                found.equal(format!("{count} times {want}"), bits(&got), bits(&vec![want; count]));
            }
        }
        Ok(())
    })
}

fn ceilings() -> Check {
    Check::new("what ceilings are measured with", |gpu, found| {
        let operands: Vec<bf16> = values(MMA_OPERANDS, 1, 8).into_iter().map(bf16::from_f32).collect();
        let got = gpu.mma_sums(&operands, BLOCKS, ROUNDS)?;
        let want: Vec<f32> = operands.chunks_exact(WARP_OPERANDS).flat_map(of_warp).collect();
        found.near("sums of products", &got, &want.repeat(BLOCKS), SUMS);
        let bytes: Vec<u32> = (0..10_007u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        let copy = gpu.upload("copied", &bytes)?.duplicate()?;
        let mut got = vec![0; bytes.len()];
        copy.read(&mut got)?;
        found.equal("copied values", &got, &bytes);
        Ok(())
    })
}

/// Values of a warp: of each lane four registers of A and two of B, two values each.
const LANE_OPERANDS: usize = 12;
const WARP_OPERANDS: usize = 32 * LANE_OPERANDS;

/// What each lane of a warp sums: product `i` has the registers of A turned by `i`.
fn of_warp(operands: &[bf16]) -> Vec<f32> {
    let register =
        |lane: usize, number: usize, high: usize| operands[lane * LANE_OPERANDS + 2 * number + high].to_f64();
    // Where the tensor cores take an element of A (16, 16) and of B (16, 8) from.
    let a = |turned: usize, row: usize, k: usize| {
        register(row % 8 * 4 + k % 8 / 2, (row / 8 + k / 8 * 2 + turned) % 4, k % 2)
    };
    let b = |k: usize, column: usize| register(column * 4 + k % 8 / 2, 4 + k / 8, k % 2);
    let element = |turned, row, column| (0..16).map(|k| a(turned, row, k) * b(k, column)).sum::<f64>();
    let of_lane = |lane: usize| {
        let (row, column) = (lane / 4, lane % 4 * 2);
        let places = [(row, column), (row, column + 1), (row + 8, column), (row + 8, column + 1)];
        let sum: f64 = (0..4).flat_map(|turned| places.map(|(row, column)| element(turned, row, column))).sum();
        (ROUNDS as f64 * sum) as f32
    };
    (0..32).map(of_lane).collect()
}
