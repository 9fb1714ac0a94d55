//! Products so large that they take tiles of 128 x 128, of which there are then enough for all multiprocessors: their bits are
//! those of the same rows in pieces, which take tiles of 64 x 64, and some rows are compared with the definition.

use super::decoder::{self, Kind, encoded, rounded};
use super::definition::{product, values};
use super::encoder::{compute, convolved, element, exact, filters_of, tolerance, upload};
use super::{Check, Findings, bits};
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::convolution::{Convolution, Filters, Maps};
use crate::ops::linear::stored::{DeviceWeight, OnDevice};
use crate::ops::linear::tiled::{Finish, Gemm};
use crate::ops::linear::{Activation, Windows};
use crate::tensor::{Element, Tensor};

/// Side of a large tile, and rows of a piece, more than go through the kernels for few rows.
const LARGE: usize = 128;
const PIECE: usize = 64;

/// Matrix and columns of a product of as many large tiles as there are multiprocessors or more. The last tiles are not full.
fn sizes(gpu: &Gpu) -> Result<(usize, usize)> {
    let tiles = gpu.multiprocessors();
    let across = tiles.isqrt().max(1);
    Ok((LARGE * tiles.div_ceil(across) - 27, LARGE * across - 24))
}

pub fn checks() -> Vec<Check> {
    // On tensor cores: not those of f32.
    let kinds = decoder::KINDS.into_iter().filter(|kind| kind.element != Element::F32);
    let decoders = kinds.map(|kind| {
        let name = format!("decoder products, large tiles beside small, {kind}");
        Check::new(name, move |gpu, found| decoder_product(gpu, kind, found))
    });
    [
        Check::new("encoder product, large tiles beside small", linear),
        Check::new("encoder convolution, large tiles beside small", convolution),
    ]
    .into_iter()
    .chain(decoders)
    .collect()
}

/// Compares the bits of a whole with those of its pieces, and every so many rows with their definition.
fn compare(
    found: &mut Findings,
    what: &str,
    (whole, pieces): (&[f32], &[f32]),
    n: usize,
    (want, bound): (impl Fn(usize) -> Vec<f32>, f32),
) {
    found.equal(format!("{what}, bits of the pieces"), bits(whole), bits(pieces));
    let rows = whole.len() / n.max(1);
    let some: Vec<usize> = (0..rows).step_by(61).chain(rows.checked_sub(1)).collect();
    let got: Vec<f32> = some.iter().flat_map(|row| &whole[row * n..][..n]).copied().collect();
    let want: Vec<f32> = some.iter().flat_map(|&row| want(row)).collect();
    found.near(format!("{what}, some rows"), &got, &want, bound);
}

fn linear(gpu: &Gpu, found: &mut Findings) -> Result<()> {
    let ((m, n), k) = (sizes(gpu)?, 40);
    let (a, weights, bias, residual) = (exact(m * k, 5), exact(n * k, 6), exact(n, 7), exact(m * n, 8));
    let w = upload(gpu, &weights, k)?;
    let biases = gpu.upload("checked", &bias)?;
    let multiply = |a: &[f32], residual: &[f32]| -> Result<Vec<f32>> {
        let (a, residual) = (upload(gpu, a, k)?, upload(gpu, residual, n)?);
        let c = Tensor::alloc(gpu, "checked", element(gpu), [a.count(), n])?;
        let (finish, residual) = (Finish::from(Some(Activation::Relu)), residual.address());
        Gemm { bias: biases.ptr(), finish, residual, ..Gemm::new(&a, &w, &c)? }.launch(gpu)?;
        Ok(c.read()?.to_vec())
    };
    let whole = multiply(&a, &residual)?;
    let pairs = a.chunks(PIECE * k).zip(residual.chunks(PIECE * n));
    let pieces: Vec<Vec<f32>> = pairs.map(|(a, residual)| multiply(a, residual)).collect::<Result<_>>()?;
    let want = |row: usize| -> Vec<f32> {
        let sums = product(&a[row * k..][..k], &weights, k).into_iter().zip(&bias).zip(&residual[row * n..]);
        sums.map(|((sum, b), r)| (sum + *b as f64 + *r as f64).max(0.0) as f32).collect()
    };
    compare(found, &format!("{m} x {n} x {k}"), (&whole, &pieces.concat()), n, (want, tolerance(gpu)));
    Ok(())
}

fn convolution(gpu: &Gpu, found: &mut Findings) -> Result<()> {
    let windows = Windows { height: 9, width: 7, kernel: 3, stride: 1, padding: 1 };
    let ((m, outputs), inputs) = (sizes(gpu)?, 8);
    let area = windows.height * windows.width;
    let images = m.div_ceil(area);
    let pixels = exact(images * area * inputs, 1);
    let (weight, bias) = (exact(outputs * 9 * inputs, 2), exact(outputs, 3));
    let filters = Filters { outputs, inputs, kernel: 3, stride: 1, padding: 1 };
    let convolution = Convolution::new(&filters_of(&weight, inputs, 9), filters, Some(bias.clone()), &compute(gpu))?;
    let convolution = convolution.with(Activation::Relu);
    let convolve = |pixels: &[f32]| -> Result<Vec<f32>> {
        let x = Maps { rows: Tensor::of_rows(pixels.to_vec(), inputs)?, height: windows.height, width: windows.width };
        Ok(convolution.forward(&x)?.rows.into_host()?.to_vec())
    };
    let whole = convolve(&pixels)?;
    let image = area * inputs;
    let pieces: Vec<Vec<f32>> = pixels.chunks(image).map(convolve).collect::<Result<_>>()?;
    // Matrix of images here and there.
    let want = |row: usize| -> Vec<f32> {
        let sums = convolved((1, inputs), windows, &pixels[row / area * image..][..image], (&weight, &bias));
        sums[row % area * outputs..][..outputs].iter().map(|x| x.max(0.0) as f32).collect()
    };
    let what = format!("{images} images, {inputs} to {outputs}");
    compare(found, &what, (&whole, &pieces.concat()), outputs, (want, tolerance(gpu)));
    Ok(())
}

fn decoder_product(gpu: &Gpu, kind: Kind, found: &mut Findings) -> Result<()> {
    let Kind { precision, element, integers } = kind;
    let (m, n) = sizes(gpu)?;
    let k = if decoder::coded(precision) { 128 } else { 40 };
    let (codes, scales, exact) = encoded(precision, n, k, 1)?;
    let weight = DeviceWeight::upload(gpu, precision, k, &[(&codes, &scales)])?.with_integers(integers);
    let gates = DeviceWeight::in_turn(gpu, precision, k, (&codes, &scales), (&codes, &scales))?.with_integers(integers);
    let x = rounded(&values(m * k, 2, 24), element);
    let multiply = |x: &[f32]| -> Result<[Vec<f32>; 2]> {
        let x = Tensor::upload(gpu, "activations", x, k, element)?.into();
        Ok([weight.multiply_wide(&x)?.read()?.to_vec(), gates.gated(&x)?.read()?.to_vec()])
    };
    let [whole, gated] = multiply(&x)?;
    let (mut pieces, mut gated_pieces) = (Vec::new(), Vec::new());
    for x in x.chunks(PIECE * k) {
        let [piece, gated] = multiply(x)?;
        pieces.extend(piece);
        gated_pieces.extend(gated);
    }
    let multiplied = kind.multiplied(&x, k);
    let sums = |row: usize| product(&multiplied[row * k..][..k], &exact, k);
    let want = |row: usize| -> Vec<f32> { sums(row).into_iter().map(|x| x as f32).collect() };
    let (wide, factors) = kind.bounds(m);
    let what = format!("{m} x {n} x {k}");
    compare(found, &what, (&whole, &pieces), n, (want, wide));
    let want = |row: usize| -> Vec<f32> { sums(row).into_iter().map(|x| (decoder::silu(x) * x) as f32).collect() };
    compare(found, &format!("{what}, gated"), (&gated, &gated_pieces), n, (want, factors));
    Ok(())
}
