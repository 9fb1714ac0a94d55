//! The layers of encoders on devices against their definitions, at odd sizes.

use fissfuse::device::Gpu;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::device::cuda::encoder::{Activation, Element, Gemm, Matrix};

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

fn upload(gpu: &Gpu, values: &[f32], width: usize) -> Matrix {
    Matrix::upload(gpu, "test", values, width).unwrap()
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

fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => x,
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::Relu => x.max(0.0),
    }
}

/// activation(A Wᵀ + bias) + residual
fn product(a: &[f32], w: &[f32], k: usize, bias: &[f32], activation: Activation, residual: &[f32]) -> Vec<f32> {
    let dot = |a: &[f32], w: &[f32]| a.iter().zip(w).map(|(a, w)| *a as f64 * *w as f64).sum::<f64>();
    let rows = a.chunks_exact(k).flat_map(|a| w.chunks_exact(k).zip(bias).map(move |(w, b)| dot(a, w) + *b as f64));
    rows.zip(residual).map(|(x, r)| (activate(x, activation) + *r as f64) as f32).collect()
}

#[test]
fn products_are_those_of_the_definition() {
    on_device("products_are_those_of_the_definition", |gpu| {
        let sizes = [
            ([1, 8, 8], Activation::None),
            ([33, 72, 40], Activation::QuickGelu),
            ([129, 136, 96], Activation::Gelu),
            ([200, 24, 776], Activation::Relu),
            // Tiles of 128 x 128, since there are enough of them.
            ([700, 2056, 24], Activation::QuickGelu),
        ];
        for ([m, n, k], activation) in sizes {
            let [a, w] = [(m, 1), (n, 2)].map(|(rows, seed)| values(rows * k, seed));
            let (bias, residual) = (values(n, 3), values(m * n, 4));
            let zeros = vec![0.0; m * n];
            let want = product(&a, &w, k, &bias, activation, &residual);
            let twice: Vec<f32> = product(&a, &w, k, &bias, Activation::None, &zeros).iter().map(|x| 2.0 * x).collect();
            let (a, w, residual) = (upload(gpu, &a, k), upload(gpu, &w, k), upload(gpu, &residual, n));
            let bias = gpu.upload("test", &bias).unwrap();
            let c = Matrix::alloc(gpu, "test", Element::of(gpu), m, n).unwrap();
            let plain = Gemm { bias: bias.ptr(), ..Gemm::new(&a, &w, &c).unwrap() };
            Gemm { activation, residual: residual.ptr(), ..plain }.launch(gpu).unwrap();
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
            let c = Matrix::alloc(gpu, "test", Element::of(gpu), a.rows(), n).unwrap();
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
