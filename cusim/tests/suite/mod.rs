//! Kernels with inputs, launches and the results that must come out.

use cusim::sandbox::{Arg, Sandbox};

/// What came out and what should have; nothing where the launch failed.
pub type Results = Option<(Vec<f64>, Vec<f64>)>;

/// A kernel and how to run it.
pub struct Case {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The source file.
    pub file: &'static str,
    /// Runs it; returns the results and what they should be.
    pub run: fn(&mut Sandbox, &mut Launcher) -> Results,
}

/// Launches the kernel under test; `false` if it failed.
pub type Launcher<'a> = dyn FnMut(&mut Sandbox, [u32; 3], [u32; 3], &[Arg]) -> bool + 'a;

/// Numbers between -1 and 1 with few bits, so that sums are exact in any order.
fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + seed * 101 + i / 7) % 33) as f32 / 16.0 - 1.0).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn wide_int(values: &[i32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn floats(s: &Sandbox, address: u64, count: usize) -> Vec<f64> {
    wide(&s.download::<f32>(address, count))
}

fn block_sums(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let x = values(1000, 1);
    let (dx, out) = (s.upload(&x), s.reserve(16));
    launch(s, [4, 1, 1], [256, 1, 1], &[Arg::U64(dx), Arg::U64(out), Arg::U32(1000)])
        .then(|| (floats(s, out, 4), x.chunks(256).map(|chunk| wide(chunk).iter().sum()).collect()))
}

fn layernorm(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let (rows, n) = (5, 100);
    let x = values(rows * n, 2);
    let (dx, dy) = (s.upload(&x), s.reserve((rows * n * 4) as u64));
    launch(s, [rows as u32, 1, 1], [256, 1, 1], &[Arg::U64(dx), Arg::U64(dy), Arg::U32(n as u32)]).then(|| {
        let want = x.chunks(n).flat_map(|row| {
            let row = wide(row);
            let mean = row.iter().sum::<f64>() / n as f64;
            let var = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
            row.into_iter().map(move |v| (v - mean) / (var + 1e-5).sqrt())
        });
        (floats(s, dy, rows * n), want.collect())
    })
}

fn softmax(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let (rows, n) = (6, 77);
    let x = values(rows * n, 3);
    let (dx, dy) = (s.upload(&x), s.reserve((rows * n * 4) as u64));
    let args = [Arg::U64(dx), Arg::U64(dy), Arg::U32(rows as u32), Arg::U32(n as u32)];
    launch(s, [2, 1, 1], [128, 1, 1], &args).then(|| {
        let want = x.chunks(n).flat_map(|row| {
            let exps: Vec<f64> = wide(row).iter().map(|v| v.exp()).collect();
            let sum: f64 = exps.iter().sum();
            exps.into_iter().map(move |e| e / sum)
        });
        (floats(s, dy, rows * n), want.collect())
    })
}

fn transpose(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let (w, h) = (70, 45);
    let x = values(w * h, 4);
    let (dx, dy) = (s.upload(&x), s.reserve((w * h * 4) as u64));
    let args = [Arg::U64(dx), Arg::U64(dy), Arg::U32(w as u32), Arg::U32(h as u32)];
    launch(s, [3, 2, 1], [32, 8, 1], &args).then(|| {
        let want = (0..w).flat_map(|c| (0..h).map(move |r| (r, c))).map(|(r, c)| f64::from(x[r * w + c]));
        (floats(s, dy, w * h), want.collect())
    })
}

fn histogram(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let x: Vec<i32> = (0..3000).map(|i| i * i % 71).collect();
    let (dx, counts) = (s.upload(&x), s.upload(&[0i32; 64]));
    launch(s, [4, 1, 1], [128, 1, 1], &[Arg::U64(dx), Arg::U64(counts), Arg::U32(3000)]).then(|| {
        let mut want = vec![0.0; 64];
        x.iter().for_each(|v| want[(*v & 63) as usize] += 1.0);
        (wide_int(&s.download(counts, 64)), want)
    })
}

fn scan(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let x: Vec<i32> = (0..500).map(|i| i % 9 - 3).collect();
    let (dx, dy) = (s.upload(&x), s.reserve(2000));
    launch(s, [2, 1, 1], [256, 1, 1], &[Arg::U64(dx), Arg::U64(dy), Arg::U32(500)]).then(|| {
        let mut sum = 0;
        let want = x.iter().enumerate().map(|(i, v)| {
            sum = if i % 256 == 0 { *v } else { sum + v };
            f64::from(sum)
        });
        (wide_int(&s.download(dy, 500)), want.collect())
    })
}

fn last_block_sum(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let x: Vec<i32> = (0..600).map(|i| i % 13).collect();
    let (dx, parts, done, out) = (s.upload(&x), s.reserve(256), s.upload(&[0i32]), s.reserve(4));
    let args = [Arg::U64(dx), Arg::U64(parts), Arg::U64(done), Arg::U64(out), Arg::U32(600)];
    launch(s, [10, 1, 1], [64, 1, 1], &args)
        .then(|| (wide_int(&s.download(out, 1)), vec![f64::from(x.iter().sum::<i32>())]))
}

/// f16 patterns of values with few bits.
pub fn halves(values: &[f32]) -> Vec<u16> {
    values.iter().map(|value| cusim::math::half::narrow::<cusim::math::half::F16>(*value)).collect()
}

fn product(a: &[f32], b: &[f32], m: usize, n: usize, k: usize) -> Vec<f64> {
    let cell = |i: usize, j: usize| (0..k).map(|x| f64::from(a[i * k + x]) * f64::from(b[x * n + j])).sum();
    (0..m * n).map(|at| cell(at / n, at % n)).collect()
}

fn producer_consumer(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let rounds = 9;
    let x: Vec<i32> = (0..rounds * 64).map(|i| i * i % 1009).collect();
    let (dx, dy) = (s.upload(&x), s.reserve((rounds * 256) as u64));
    launch(s, [1, 1, 1], [128, 1, 1], &[Arg::U64(dx), Arg::U64(dy), Arg::U32(rounds as u32)]).then(|| {
        let want: Vec<i32> = x.chunks(64).flat_map(|round| round.iter().rev().copied()).collect();
        (wide_int(&s.download(dy, want.len())), wide_int(&want))
    })
}

fn wmma_gemm(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let (m, n, k) = (32, 48, 64);
    let (a, b) = (values(m * k, 5), values(k * n, 6));
    let (da, db, dc) = (s.upload(&halves(&a)), s.upload(&halves(&b)), s.reserve((m * n * 4) as u64));
    let args = [Arg::U64(da), Arg::U64(db), Arg::U64(dc), Arg::U32(n as u32), Arg::U32(k as u32)];
    launch(s, [3, 2, 1], [32, 1, 1], &args).then(|| (floats(s, dc, m * n), product(&a, &b, m, n, k)))
}

fn half_words(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let x = values(256, 7);
    let (dx, dy) = (s.upload(&x), s.reserve(512));
    launch(s, [1, 1, 1], [256, 1, 1], &[Arg::U64(dx), Arg::U64(dy)]).then(|| {
        let got: Vec<u16> = s.download(dy, 256);
        let want: Vec<u16> = halves(&x).into_iter().rev().collect();
        (got.into_iter().map(f64::from).collect(), want.into_iter().map(f64::from).collect())
    })
}

fn gemm_f32(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let (m, n, k) = (64, 128, 48);
    let (a, b) = (values(m * k, 8), values(k * n, 9));
    let (da, db, dc) = (s.upload(&a), s.upload(&b), s.reserve((m * n * 4) as u64));
    let sizes = [m, n, k].map(|size| Arg::U32(size as u32));
    let [m_arg, n_arg, k_arg] = sizes;
    let args = [Arg::U64(da), Arg::U64(db), Arg::U64(dc), m_arg, n_arg, k_arg];
    launch(s, [2, 1, 1], [256, 1, 1], &args).then(|| (floats(s, dc, m * n), product(&a, &b, m, n, k)))
}

fn gemm_bf16(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let (m, n, k) = (64, 128, 96);
    let (a, b) = (values(m * k, 10), values(k * n, 11));
    let bf16 = |values: &[f32]| values.iter().map(|v| (v.to_bits() >> 16) as u16).collect::<Vec<_>>();
    let (da, db, dc) = (s.upload(&bf16(&a)), s.upload(&bf16(&b)), s.reserve((m * n * 4) as u64));
    let sizes = [m, n, k].map(|size| Arg::U32(size as u32));
    let [m_arg, n_arg, k_arg] = sizes;
    let args = [Arg::U64(da), Arg::U64(db), Arg::U64(dc), m_arg, n_arg, k_arg];
    launch(s, [2, 1, 1], [128, 1, 1], &args).then(|| (floats(s, dc, m * n), product(&a, &b, m, n, k)))
}

fn attention(s: &mut Sandbox, launch: &mut Launcher) -> Results {
    let lengths = [3usize, 1, 17, 40, 8, 5];
    let offsets: Vec<usize> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |sum, l| {
            *sum += l;
            Some(*sum)
        }))
        .collect();
    let total = offsets[lengths.len()];
    let (q, f) = (values(lengths.len() * 128, 12), values(total * 128, 13));
    let words: Vec<i32> = offsets.iter().map(|o| *o as i32).collect();
    let (dq, df, doff) = (s.upload(&q), s.upload(&f), s.upload(&words));
    let out = s.reserve((lengths.len() * 512) as u64);
    let args = [Arg::U64(dq), Arg::U64(df), Arg::U64(doff), Arg::U64(out), Arg::U32(lengths.len() as u32)];
    launch(s, [2, 1, 1], [128, 1, 1], &args).then(|| {
        let mut want = vec![];
        for query in 0..lengths.len() {
            let row = |l: usize, c: usize| f64::from(f[l * 128 + c]);
            let dot = |l: usize| (0..128).map(|c| f64::from(q[query * 128 + c]) * row(l, c)).sum::<f64>();
            let range = offsets[query]..offsets[query + 1];
            let top = range.clone().map(dot).fold(f64::MIN, f64::max);
            let weights: Vec<f64> = range.clone().map(|l| (dot(l) - top).exp()).collect();
            let sum: f64 = weights.iter().sum();
            want.extend((0..128).map(|c| range.clone().zip(&weights).map(|(l, w)| w * row(l, c)).sum::<f64>() / sum));
        }
        (floats(s, out, want.len()), want)
    })
}

/// All cases.
pub const CASES: [Case; 14] = [
    Case { kernel: "reduce", file: "suite", run: block_sums },
    Case { kernel: "reduce_tree", file: "suite", run: block_sums },
    Case { kernel: "layernorm", file: "suite", run: layernorm },
    Case { kernel: "softmax", file: "suite", run: softmax },
    Case { kernel: "transpose", file: "suite", run: transpose },
    Case { kernel: "histogram", file: "suite", run: histogram },
    Case { kernel: "scan", file: "suite", run: scan },
    Case { kernel: "last_block_sum", file: "suite", run: last_block_sum },
    Case { kernel: "producer_consumer", file: "suite", run: producer_consumer },
    Case { kernel: "wmma_gemm", file: "suite", run: wmma_gemm },
    Case { kernel: "half_words", file: "suite", run: half_words },
    Case { kernel: "gemm_f32", file: "speed", run: gemm_f32 },
    Case { kernel: "gemm_bf16", file: "speed", run: gemm_bf16 },
    Case { kernel: "attention", file: "speed", run: attention },
];

/// Whether results are what they should be, up to the rounding of f32 and of the approximate functions.
pub fn agrees(got: &[f64], want: &[f64]) -> bool {
    got.len() == want.len() && got.iter().zip(want).all(|(got, want)| (got - want).abs() <= 2e-5 * want.abs().max(1.0))
}
