//! The layers of encoders on devices against their definitions, at odd sizes.

use fissfuse::device::Gpu;
use fissfuse::device::cpu::{Activation, Heads, Windows};
use fissfuse::device::cuda::Arithmetic;
use fissfuse::device::cuda::encoder::{
    ClassToken, Convolution, Element, Embedding, Gemm, Matrix, Norm, SequenceRows, max_pool, mean,
};

use crate::support;

/// Runs the body of a test of this file on a device, in both arithmetics.
fn on_device(test: &str, body: impl Fn(&Gpu)) {
    support::on_device(&format!("encoder_layers::{test}"), || {
        [Arithmetic::F32, Arithmetic::Mixed].iter().for_each(|&arithmetic| body(&Gpu::open(0, arithmetic).unwrap()));
    });
}

/// Largest difference relative to the largest value: f32 sums of some hundreds of terms in another order, or results
/// rounded to the 8 bits of bf16 once or twice.
fn tolerance(gpu: &Gpu) -> f32 {
    match gpu.arithmetic() {
        Arithmetic::F32 => 1e-5,
        Arithmetic::Mixed => 5e-3,
    }
}

/// Values from -1 to 1 that look random and that bf16 holds exactly.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as f32 / 128.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// What operands are under a device's arithmetic.
fn element(gpu: &Gpu) -> Element {
    match gpu.arithmetic() {
        Arithmetic::F32 => Element::F32,
        Arithmetic::Mixed => Element::Bf16,
    }
}

fn upload(gpu: &Gpu, values: &[f32], width: usize) -> Matrix {
    Matrix::upload(gpu, "test", values, width, element(gpu)).unwrap()
}

fn agrees(gpu: &Gpu, what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (got - want).abs() / largest;
        assert!(error <= tolerance(gpu), "{what}, {:?}: [{i}] is {got}, should be {want}", gpu.arithmetic());
    }
}

/// The error function by its series and, beyond 3, its limit: 2e-5 off at most.
fn erf(x: f64) -> f64 {
    if x.abs() > 3.0 {
        return x.signum();
    }
    let mut term = x;
    let mut sum = x;
    for n in 1..60 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn activate(x: f64, activation: Option<Activation>) -> f64 {
    match activation {
        None => x,
        Some(Activation::QuickGelu) => x / (1.0 + (-1.702 * x).exp()),
        Some(Activation::Gelu) => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Some(Activation::Relu) => x.max(0.0),
    }
}

/// activation(A Wᵀ + bias + residual)
fn product(a: &[f32], w: &[f32], k: usize, bias: &[f32], activation: Option<Activation>, residual: &[f32]) -> Vec<f32> {
    let dot = |a: &[f32], w: &[f32]| a.iter().zip(w).map(|(a, w)| *a as f64 * *w as f64).sum::<f64>();
    let rows = a.chunks_exact(k).flat_map(|a| w.chunks_exact(k).zip(bias).map(move |(w, b)| dot(a, w) + *b as f64));
    rows.zip(residual).map(|(x, r)| activate(x + *r as f64, activation) as f32).collect()
}

#[test]
fn products_are_those_of_the_definition() {
    on_device("products_are_those_of_the_definition", |gpu| {
        let sizes = [
            ([1, 8, 8], None),
            ([33, 72, 40], Some(Activation::QuickGelu)),
            ([129, 136, 96], Some(Activation::Gelu)),
            ([200, 24, 776], Some(Activation::Relu)),
            // Tiles of 128 x 128, since there are enough of them.
            ([700, 2056, 24], Some(Activation::QuickGelu)),
        ];
        for ([m, n, k], activation) in sizes {
            let [a, w] = [(m, 1), (n, 2)].map(|(rows, seed)| values(rows * k, seed));
            let (bias, residual) = (values(n, 3), values(m * n, 4));
            let zeros = vec![0.0; m * n];
            let want = product(&a, &w, k, &bias, activation, &residual);
            let twice: Vec<f32> = product(&a, &w, k, &bias, None, &zeros).iter().map(|x| 2.0 * x).collect();
            let (a, w, residual) = (upload(gpu, &a, k), upload(gpu, &w, k), upload(gpu, &residual, n));
            let bias = gpu.upload("test", &bias).unwrap();
            let c = Matrix::alloc(gpu, "test", element(gpu), m, n).unwrap();
            let plain = Gemm { bias: bias.ptr(), ..Gemm::new(&a, &w, &c).unwrap() };
            Gemm { finish: activation.into(), residual: residual.ptr(), ..plain }.launch(gpu).unwrap();
            let what = format!("{m} x {n} x {k}, {activation:?}");
            agrees(gpu, &what, &c.read().unwrap(), &want);
            // Added in place, to f32 whatever the operands are.
            let sums = gpu.zeros::<f32>("test", m * n).unwrap();
            let added = Gemm { c: sums.ptr(), residual: sums.ptr(), output: Element::F32, ..plain };
            (0..2).for_each(|_| added.launch(gpu).unwrap());
            let mut got = zeros;
            sums.read(&mut got).unwrap();
            agrees(gpu, &what, &got, &twice);
        }
    });
}

#[test]
fn small_and_large_tiles_give_the_same_bits() {
    on_device("small_and_large_tiles_give_the_same_bits", |gpu| {
        let (m, n, k) = (1500, 1032, 72);
        let (a, w) = (values(m * k, 5), values(n * k, 6));
        let w = upload(gpu, &w, k);
        let multiply = |rows: &[f32]| {
            let a = upload(gpu, rows, k);
            let c = Matrix::alloc(gpu, "test", element(gpu), a.rows(), n).unwrap();
            Gemm::new(&a, &w, &c).unwrap().launch(gpu).unwrap();
            c.read().unwrap().to_vec()
        };
        let (all, some) = (multiply(&a), multiply(&a[700 * k..703 * k]));
        assert_eq!(all[700 * n..703 * n], some[..]);
    });
}

#[test]
fn products_that_the_kernels_cannot_compute_are_refused() {
    on_device("products_that_the_kernels_cannot_compute_are_refused", |gpu| {
        let matrix = |rows, width| upload(gpu, &vec![0.0; rows * width], width);
        let refused = |a, w, c| {
            Gemm::new(&a, &w, &c)
                .and_then(|gemm| gemm.launch(gpu))
                .is_err_and(|e| e.to_string().contains("encoder_gemm"))
        };
        assert!(refused(matrix(3, 16), matrix(8, 24), matrix(3, 8)));
        assert!(refused(matrix(3, 16), matrix(8, 16), matrix(8, 3)));
        assert!(refused(matrix(3, 16), matrix(6, 16), matrix(3, 6)));
        let narrow = refused(matrix(3, 12), matrix(8, 12), matrix(3, 8));
        assert_eq!(narrow, gpu.arithmetic() == Arithmetic::Mixed);
    });
}

/// Rows of f32, of which the device's layers normalize or add.
fn upload_wide(gpu: &Gpu, values: &[f32], width: usize) -> Matrix {
    Matrix::upload(gpu, "test", values, width, Element::F32).unwrap()
}

#[test]
fn normalized_rows_have_mean_and_variance_of_the_parameters() {
    on_device("normalized_rows_have_mean_and_variance_of_the_parameters", |gpu| {
        for (rows, width) in [(1, 4), (33, 100), (67, 768), (5, 2048)] {
            let (x, gamma, beta) = (values(rows * width, 1), values(width, 2), values(width, 3));
            let normalized = |row: &[f32]| {
                let mean = row.iter().map(|x| *x as f64).sum::<f64>() / width as f64;
                let variance = row.iter().map(|x| (*x as f64 - mean).powi(2)).sum::<f64>() / width as f64;
                let scale = |x: f32| (x as f64 - mean) / (variance + 1e-5).sqrt();
                let parameters = gamma.iter().zip(&beta);
                row.iter()
                    .zip(parameters)
                    .map(|(x, (g, b))| (scale(*x) * *g as f64 + *b as f64) as f32)
                    .collect::<Vec<_>>()
            };
            let want: Vec<f32> = x.chunks_exact(width).flat_map(normalized).collect();
            let norm = Norm::new(gpu, &gamma, &beta, 1e-5).unwrap();
            let x = upload_wide(gpu, &x, width);
            let got = norm.forward(&x, element(gpu)).unwrap();
            agrees(gpu, &format!("{rows} x {width}"), &got.read().unwrap(), &want);
            let (wide, narrow) = norm.forward_both(&x).unwrap();
            let both = [wide.read().unwrap(), narrow.read().unwrap()];
            let same = if element(gpu) == Element::F32 { &both[0] } else { &both[1] };
            assert_eq!(same[..], got.read().unwrap()[..]);
            let [wide, narrow] = [&wide, &narrow].map(|x| x.converted().unwrap().read().unwrap());
            assert_eq!((&wide[..], &narrow[..]), (&both[1][..], &both[1][..]));
            let some = x.select(&[rows as u32 - 1, 0]).unwrap().read().unwrap();
            let all = x.read().unwrap();
            assert_eq!(some[..], [&all[(rows - 1) * width..], &all[..width]].concat());
            assert!(x.select(&[rows as u32]).is_err());
        }
        assert!(Norm::new(gpu, &[1.0; 2052], &[0.0; 2052], 1e-5).is_err_and(|e| e.to_string().contains("2052")));
    });
}

/// Attention of one head of one sequence, row by row.
fn attended(q: &[&[f32]], k: &[&[f32]], v: &[&[f32]], causal: bool) -> Vec<Vec<f32>> {
    let scale = 1.0 / (q[0].len() as f64).sqrt();
    let row = |(i, q): (usize, &&[f32])| {
        let seen = if causal { i + 1 } else { k.len() };
        let dot = |k: &&[f32]| q.iter().zip(k.iter()).map(|(q, k)| *q as f64 * *k as f64).sum::<f64>() * scale;
        let weights: Vec<f64> = k[..seen].iter().map(|k| dot(k).exp()).collect();
        let total: f64 = weights.iter().sum();
        let column = |c: usize| v.iter().zip(&weights).map(|(v, w)| v[c] as f64 * w).sum::<f64>() / total;
        (0..q.len()).map(|c| column(c) as f32).collect()
    };
    q.iter().enumerate().map(row).collect()
}

#[test]
fn attention_is_that_of_the_definition() {
    on_device("attention_is_that_of_the_definition", |gpu| {
        let cases: [(&[usize], usize, usize, bool); 7] = [
            (&[1], 1, 16, true),
            (&[7, 16, 1, 13], 2, 64, true),
            (&[50, 50], 3, 64, false),
            (&[17, 65, 130, 3], 2, 48, true),
            (&[5, 70], 3, 40, false),
            (&[129, 2, 64], 1, 96, false),
            (&[33, 70], 2, 128, false),
        ];
        for (lengths, count, head, causal) in cases {
            let (rows, width) = (lengths.iter().sum::<usize>(), count * head);
            // Some logits are large, so that softmax is sharp.
            let qkv: Vec<f32> = values(rows * 3 * width, 7).iter().map(|x| 2.0 * x).collect();
            let mut want = vec![0.0; rows * width];
            let mut start = 0;
            for &length in lengths {
                for h in 0..count {
                    let part = |which: usize| -> Vec<&[f32]> {
                        let column = |row: usize| (row * 3 + which) * width + h * head;
                        (start..start + length).map(|row| &qkv[column(row)..column(row) + head]).collect()
                    };
                    let contexts = attended(&part(0), &part(1), &part(2), causal);
                    for (i, context) in contexts.iter().enumerate() {
                        want[(start + i) * width + h * head..][..head].copy_from_slice(context);
                    }
                }
                start += length;
            }
            let qkv = upload(gpu, &qkv, 3 * width);
            let heads = Heads { count, width: head, causal };
            let got = SequenceRows::new(gpu, lengths).unwrap().attend(&qkv, heads).unwrap();
            agrees(gpu, &format!("{lengths:?}, {heads:?}"), &got.read().unwrap(), &want);
        }
        let refused = |rows: usize, head: usize| {
            let qkv = upload(gpu, &vec![0.0; rows * 3 * head], 3 * head);
            SequenceRows::new(gpu, &[3]).unwrap().attend(&qkv, Heads { count: 1, width: head, causal: false }).is_err()
        };
        assert!(refused(4, 16) && refused(3, 144));
        assert_eq!(refused(3, 12), gpu.arithmetic() == Arithmetic::Mixed);
    });
}

#[test]
fn embeddings_are_sums_of_rows() {
    on_device("embeddings_are_sums_of_rows", |gpu| {
        let width = 36;
        let (table, positions) = (values(11 * width, 1), values(5 * width, 2));
        let row = |table: &[f32], i: usize| table[i * width..(i + 1) * width].to_vec();
        let sum = |a: Vec<f32>, b: Vec<f32>| a.iter().zip(&b).map(|(a, b)| a + b).collect::<Vec<_>>();
        let (ids, places) = ([3, 10, 0, 3, 7], [0, 1, 2, 0, 4]);
        let want: Vec<f32> = ids
            .iter()
            .zip(places)
            .flat_map(|(&id, at)| sum(row(&table, id as usize), row(&positions, at as usize)))
            .collect();
        let embedding = Embedding::new(gpu, &table, &positions, width).unwrap();
        assert_eq!(embedding.forward(&ids, &places).unwrap().read().unwrap()[..], want);
        assert!(embedding.forward(&[11], &[0]).is_err() && embedding.forward(&[0], &[5]).is_err());

        let patches = values(3 * 4 * width, 3);
        let first = row(&table, 0);
        let want: Vec<f32> = (0..15)
            .flat_map(|i| {
                let patch = if i % 5 == 0 { first.clone() } else { row(&patches, i / 5 * 4 + i % 5 - 1) };
                sum(patch, row(&positions, i % 5))
            })
            .collect();
        let token = ClassToken::new(gpu, &first, &positions).unwrap();
        assert_eq!(token.forward(&upload_wide(gpu, &patches, width)).unwrap().read().unwrap()[..], want);
    });
}

/// Calls `visit` with an output's number and, for each pixel of its window that is there, its place in the window and its
/// number.
fn visit_windows(images: usize, windows: Windows, mut visit: impl FnMut(usize, usize, usize)) {
    let (Windows { height, width, kernel, stride, padding }, (down, across)) = (windows, windows.size());
    for output in 0..images * down * across {
        let (image, y, x) = (output / (down * across), output / across % down, output % across);
        for tap in 0..kernel * kernel {
            let at = |i: usize, tap: usize, end| (i * stride + tap).checked_sub(padding).filter(|&at| at < end);
            if let (Some(y), Some(x)) = (at(y, tap / kernel, height), at(x, tap % kernel, width)) {
                visit(output, tap, (image * height + y) * width + x);
            }
        }
    }
}

#[test]
fn convolutions_are_those_of_the_definition() {
    on_device("convolutions_are_those_of_the_definition", |gpu| {
        let cases = [
            // height, width, kernel, stride, padding; inputs, outputs: a stem, a bottleneck's parts, patches.
            ([23, 17, 7, 2, 3], 3, 12),
            ([9, 7, 3, 1, 1], 24, 72),
            ([10, 7, 3, 2, 1], 8, 20),
            ([9, 7, 1, 2, 0], 40, 8),
            ([9, 7, 1, 1, 0], 40, 8),
            ([12, 20, 4, 4, 0], 3, 16),
            ([16, 32, 8, 8, 0], 3, 16),
        ];
        for ([height, width, kernel, stride, padding], inputs, outputs) in cases {
            let windows = Windows { height, width, kernel, stride, padding };
            let (images, area, (down, across)) = (3, kernel * kernel, windows.size());
            let pixels = values(images * height * width * inputs, 1);
            let (weight, bias) = (values(outputs * area * inputs, 2), values(outputs, 3));
            let count = images * down * across;
            let mut sums: Vec<f64> = (0..count * outputs).map(|i| bias[i % outputs] as f64).collect();
            visit_windows(images, windows, |output, tap, pixel| {
                let x = &pixels[pixel * inputs..(pixel + 1) * inputs];
                for (o, sum) in sums[output * outputs..(output + 1) * outputs].iter_mut().enumerate() {
                    let w = &weight[(o * area + tap) * inputs..][..inputs];
                    *sum += x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum::<f64>();
                }
            });
            let (sizes, patches, kind) = ((inputs, kernel), kernel == stride && padding == 0, element(gpu));
            let convolution = Convolution::new(gpu, &weight, sizes, patches, Some(&bias), kind).unwrap();
            let x = convolution.upload(&pixels).unwrap();
            let what = format!("{inputs} to {outputs}, {windows:?}");
            let got = convolution.forward(&x, windows, Some(Activation::Relu), kind).unwrap();
            let want: Vec<f32> = sums.iter().map(|x| x.max(0.0) as f32).collect();
            agrees(gpu, &what, &got.read().unwrap(), &want);
            let residual = values(count * outputs, 4);
            let want: Vec<f32> = sums.iter().zip(&residual).map(|(x, r)| (x + *r as f64).max(0.0) as f32).collect();
            let mut out = upload(gpu, &residual, outputs);
            convolution.forward_onto(&x, windows, &mut out, Some(Activation::Relu)).unwrap();
            agrees(gpu, &what, &out.read().unwrap(), &want);
        }
    });
}

#[test]
fn pools_are_those_of_the_definition() {
    on_device("pools_are_those_of_the_definition", |gpu| {
        let (images, height, width, channels) = (2, 9, 8, 12);
        let windows = Windows { height, width, kernel: 3, stride: 2, padding: 1 };
        let pixels = values(images * height * width * channels, 1);
        let (down, across) = windows.size();
        let mut want = vec![f32::NEG_INFINITY; images * down * across * channels];
        visit_windows(images, windows, |output, _, pixel| {
            let window = want[output * channels..(output + 1) * channels].iter_mut();
            window.zip(&pixels[pixel * channels..]).for_each(|(most, x)| *most = most.max(*x));
        });
        assert_eq!(max_pool(&upload(gpu, &pixels, channels), windows).unwrap().read().unwrap()[..], want);

        let (lengths, width) = ([3, 0, 1, 40], 516);
        let x = values(44 * width, 2);
        let mut rows = x.chunks_exact(width);
        let want: Vec<f32> = lengths
            .iter()
            .flat_map(|&length| {
                let mut sum = vec![0.0f64; width];
                rows.by_ref().take(length).for_each(|row| sum.iter_mut().zip(row).for_each(|(s, x)| *s += *x as f64));
                sum.into_iter().map(move |x| (x / length.max(1) as f64) as f32)
            })
            .collect();
        let sequences = SequenceRows::new(gpu, &lengths).unwrap();
        let x = upload_wide(gpu, &x, width);
        agrees(gpu, "mean", &mean(&x, &sequences).unwrap().read().unwrap(), &want);
    });
}
