//! Lane-instructions per second of typical kernels, with bounds checks alone, with all checks, and counting.

#[path = "../tests/support/mod.rs"]
mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use cusim::check::Checks;
use cusim::sandbox::{Arg, Sandbox};

/// What watches the kernels.
#[derive(Clone, Copy, PartialEq)]
enum Watch {
    Mem,
    RaceInit,
    Count,
}

/// A kernel with its launch.
struct Job {
    name: &'static str,
    grid: [u32; 3],
    block: u32,
    args: fn(&mut Sandbox) -> Vec<Arg>,
}

const SIZE: u32 = 256;

fn matrices(sandbox: &mut Sandbox, bytes: usize) -> Vec<Arg> {
    let elements = (SIZE * SIZE) as usize;
    let operand = vec![0u8; elements * bytes];
    let (a, b) = (sandbox.upload(&operand), sandbox.upload(&operand));
    let c = sandbox.upload(&vec![0f32; elements]);
    vec![Arg::U64(a), Arg::U64(b), Arg::U64(c), Arg::U32(SIZE), Arg::U32(SIZE), Arg::U32(SIZE)]
}

const JOBS: [Job; 7] = [
    Job {
        name: "fma_loop",
        grid: [64, 1, 1],
        block: 256,
        args: |sandbox| {
            let out = sandbox.upload(&[0f32; 64 * 256]);
            vec![Arg::U64(out), Arg::U32(1000), Arg::F32(0.5), Arg::F32(1.0)]
        },
    },
    Job { name: "gemm_f32", grid: [4, 4, 1], block: 256, args: |sandbox| matrices(sandbox, 4) },
    Job { name: "gemm_bf16", grid: [4, 4, 1], block: 128, args: |sandbox| matrices(sandbox, 2) },
    Job { name: "gemm_naive", grid: [16, 16, 1], block: 256, args: |sandbox| matrices(sandbox, 4) },
    Job { name: "gemm_wmma", grid: [64, 1, 1], block: 128, args: |sandbox| matrices(sandbox, 2) },
    Job {
        name: "histogram",
        grid: [2000, 1, 1],
        block: 128,
        args: |sandbox| {
            let values: Vec<i32> = (0..2000 * 512).map(|i| i % 65536 * 7919 / 16).collect();
            let (x, counts) = (sandbox.upload(&values), sandbox.upload(&[0i32; 256]));
            vec![Arg::U64(x), Arg::U64(counts), Arg::U32(2000 * 512)]
        },
    },
    Job {
        name: "attention",
        grid: [500, 1, 1],
        block: 128,
        args: |sandbox| {
            let offsets: Vec<i32> = (0..=2000).map(|query| query * 40).collect();
            let features = vec![0.25f32; 2000 * 40 * 128];
            let (q, f) = (sandbox.upload(&features[..2000 * 128]), sandbox.upload(&features));
            let (offsets, out) = (sandbox.upload(&offsets), sandbox.upload(&[0f32; 2000 * 128]));
            vec![Arg::U64(q), Arg::U64(f), Arg::U64(offsets), Arg::U64(out), Arg::U32(2000)]
        },
    },
];

fn sandbox(watch: Watch) -> Sandbox {
    let mut sandbox = Sandbox::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    match watch {
        Watch::Mem => {}
        Watch::RaceInit => sandbox.check(Checks { init: true, race: true, sync: false }),
        Watch::Count => sandbox.counters = Some(Default::default()),
    }
    sandbox
}

fn speed(criterion: &mut Criterion) {
    let ptx = support::compile("speed", &[]);
    for job in &JOBS {
        // What one launch executes, as the counters tell.
        let mut counting = sandbox(Watch::Count);
        let image = counting.load(&ptx).unwrap();
        let program = counting.kernel(&image, job.name).unwrap();
        let args = (job.args)(&mut counting);
        counting.launch(&program, job.grid, [job.block, 1, 1], 0, &args).unwrap();
        let total = counting.counters.as_ref().unwrap().lock().unwrap().kernels().0[job.name].total();
        println!("{}: {} lane-instructions, {} floating-point operations", job.name, total.lanes, total.flops());

        let mut group = criterion.benchmark_group(job.name);
        group.sample_size(10).throughput(Throughput::Elements(total.lanes));
        for (name, watch) in [("mem", Watch::Mem), ("race,init", Watch::RaceInit), ("count", Watch::Count)] {
            let mut sandbox = sandbox(watch);
            let image = sandbox.load(&ptx).unwrap();
            let program = sandbox.kernel(&image, job.name).unwrap();
            let args = (job.args)(&mut sandbox);
            group.bench_function(name, |bencher| {
                bencher.iter(|| sandbox.launch(&program, job.grid, [job.block, 1, 1], 0, &args).unwrap());
            });
        }
    }
}

criterion_group!(benches, speed);
criterion_main!(benches);
