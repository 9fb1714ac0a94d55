//! The decoder's kernels on devices against their definitions, at odd sizes.

use std::collections::BTreeSet;

use bytemuck::cast_slice;
use fissfuse::device::Gpu;
use fissfuse::device::cpu::matrix::{Bits, dequantize, quantize};
use fissfuse::device::cpu::{Draw, choose};
use fissfuse::device::cuda::llama::{Element, Format, Gates, Heads, PAGE, Page, Rows, Sequences, Tile, Weight};
use fissfuse::device::cuda::{Arithmetic, Ptr};
use half::{bf16, f16};

use crate::support;

/// Runs the body of a test of this file on a device.
fn on_device(test: &str, body: impl Fn(&Gpu)) {
    support::on_device(&format!("llama_kernels::{test}"), || body(&Gpu::open(0, Arithmetic::Mixed).unwrap()));
}

/// Values from -1 to 1 that look random.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// As activations of this type hold them.
fn rounded(values: &[f32], element: Element) -> Vec<f32> {
    let round = |x: &f32| match element {
        Element::F32 => *x,
        Element::Bf16 => bf16::from_f32(*x).to_f32(),
        Element::F16 => f16::from_f32(*x).to_f32(),
    };
    values.iter().map(round).collect()
}

/// What rounding a result once leaves, relative to the largest: half a unit of 8 or 11 bits; and sums in another order.
fn tolerance(element: Element) -> f32 {
    match element {
        Element::F32 => 1e-5,
        Element::Bf16 => 4e-3 + 1e-5,
        Element::F16 => 5e-4 + 1e-5,
    }
}

fn agrees(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance * largest, "{what}: [{i}] is {got}, should be {want} of {largest}");
    }
}

/// The numbers and scales of a matrix (rows, columns) in a format, and what they really are.
fn encoded(format: Format, rows: usize, columns: usize, seed: u32) -> (Vec<u8>, Vec<u8>, Vec<f32>) {
    let wide = values(rows * columns, seed);
    let bits = |bits: Bits| {
        let groups = columns / bits.group(columns).unwrap();
        let (mut codes, mut scales) = (vec![0; rows * bits.bytes(columns)], vec![bf16::ZERO; rows * groups]);
        let mut exact = vec![0.0; wide.len()];
        let rows = codes.chunks_exact_mut(bits.bytes(columns)).zip(scales.chunks_exact_mut(groups));
        for (((codes, scales), row), exact) in rows.zip(wide.chunks(columns)).zip(exact.chunks_mut(columns)) {
            quantize(bits, row, codes, scales);
            dequantize(bits, codes, scales, exact);
        }
        (codes, cast_slice(&scales).to_vec(), exact)
    };
    match format {
        Format::F32 => (cast_slice(&wide).to_vec(), vec![], wide.clone()),
        Format::Bf16 => {
            let narrow: Vec<bf16> = wide.iter().map(|x| bf16::from_f32(*x)).collect();
            (cast_slice(&narrow).to_vec(), vec![], rounded(&wide, Element::Bf16))
        }
        Format::F16 => {
            let narrow: Vec<f16> = wide.iter().map(|x| f16::from_f32(*x)).collect();
            (cast_slice(&narrow).to_vec(), vec![], rounded(&wide, Element::F16))
        }
        Format::Int8 => bits(Bits::Eight),
        Format::Int4 => bits(Bits::Four),
    }
}

/// A matrix (rows, columns) in a format, on the device and as its numbers really are. Two parts, one below the other.
fn weight(gpu: &Gpu, format: Format, rows: usize, columns: usize, seed: u32) -> (Weight, Vec<f32>) {
    let (codes, scales, exact) = encoded(format, rows, columns, seed);
    let (first, first_scales) = (rows / 3 * (codes.len() / rows), rows / 3 * (scales.len() / rows));
    let parts = [(&codes[..first], &scales[..first_scales]), (&codes[first..], &scales[first_scales..])];
    (Weight::upload(gpu, format, columns, &parts).unwrap(), exact)
}

fn product(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum::<f64>() as f32;
    x.chunks_exact(k).flat_map(|x| w.chunks_exact(k).map(|w| dot(x, w))).collect()
}

/// What is multiplied by what.
const KINDS: [(Format, Element); 9] = [
    (Format::F32, Element::F32),
    (Format::Bf16, Element::F32),
    (Format::F16, Element::F32),
    (Format::Int8, Element::F32),
    (Format::Int4, Element::F32),
    (Format::Bf16, Element::Bf16),
    (Format::F16, Element::F16),
    (Format::Int8, Element::Bf16),
    (Format::Int4, Element::Bf16),
];

#[test]
fn products_are_those_of_the_definition() {
    on_device("products_are_those_of_the_definition", |gpu| {
        for (number, (format, element)) in KINDS.into_iter().enumerate() {
            // Groups of 128 and of 64; odd numbers of outputs where the host reads them.
            for (m, n, k) in [(1, 43, 256), (3, 24, 1088), (8, 17, 192), (9, 72, 64), (67, 136, 320)] {
                let (w, exact) = weight(gpu, format, n, k, number as u32);
                let x = rounded(&values(m * k, 50), element);
                let rows = Rows::upload(gpu, element, &x, k).unwrap();
                let want = product(&x, &exact, k);
                let what = format!("{format:?}, {element:?}, {m} x {n} x {k}");
                // On tensor cores codes become bf16.
                let tiled = m > 8 && matches!(format, Format::Int8 | Format::Int4) && element == Element::Bf16;
                let wide = if tiled { tolerance(Element::Bf16) } else { tolerance(Element::F32) };
                agrees(&what, &w.multiply_wide(&rows).unwrap().read().unwrap(), &want, wide);
                if n % 8 == 0 {
                    let got = w.multiply(&rows).unwrap();
                    assert_eq!(got.element(), element);
                    agrees(&what, &got.read().unwrap(), &want, tolerance(element).max(wide) + wide);
                    let mut sum = Rows::upload(gpu, Element::F32, &vec![0.5; m * n], n).unwrap();
                    w.add_to(&mut sum, &rows).unwrap();
                    let want: Vec<f32> = want.iter().map(|x| x + 0.5).collect();
                    agrees(&what, &sum.read().unwrap(), &want, wide);
                }
            }
        }
    });
}

#[test]
fn gated_products_are_those_of_the_definition() {
    on_device("gated_products_are_those_of_the_definition", |gpu| {
        for (number, (format, element)) in KINDS.into_iter().enumerate() {
            for (m, inner, k) in [(1, 24, 256), (3, 8, 1088), (9, 72, 64), (67, 136, 320)] {
                let [gate, up] = [2 * number as u32, 2 * number as u32 + 1].map(|seed| encoded(format, inner, k, seed));
                let gates = Gates::upload(gpu, format, k, (&gate.0, &gate.1), (&up.0, &up.1)).unwrap();
                let x = rounded(&values(m * k, 51), element);
                let got = gates.multiply(&Rows::upload(gpu, element, &x, k).unwrap()).unwrap();
                assert_eq!((got.element(), got.width()), (element, inner));
                let silu = |g: f32| g / (1.0 + (-g).exp());
                let pairs = product(&x, &gate.2, k).into_iter().zip(product(&x, &up.2, k));
                let want: Vec<f32> = pairs.map(|(gate, up)| silu(gate) * up).collect();
                // On tensor cores codes become bf16, which rounds both factors.
                let tiled = m > 8 && matches!(format, Format::Int8 | Format::Int4) && element == Element::Bf16;
                let factors = if tiled { 2.0 * tolerance(Element::Bf16) } else { tolerance(Element::F32) };
                let what = format!("{format:?}, {element:?}, {m} x {inner} x {k}");
                agrees(&what, &got.read().unwrap(), &want, tolerance(element) + factors);
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_whatever_stands_beside_it() {
    on_device("a_row_has_the_same_bits_whatever_stands_beside_it", |gpu| {
        for (format, element) in [(Format::Int4, Element::Bf16), (Format::F16, Element::F16)] {
            let (w, _) = weight(gpu, format, 40, 192, 1);
            let x = values(8 * 192, 2);
            let multiply = |x: &[f32]| {
                let rows = Rows::upload(gpu, element, x, 192).unwrap();
                w.multiply_wide(&rows).unwrap().read().unwrap()
            };
            let all = multiply(&x);
            for row in 0..8 {
                assert_eq!(multiply(&x[row * 192..][..192]), all[row * 40..][..40]);
            }
        }
    });
}

#[test]
fn norms_and_embeddings_are_those_of_the_definition() {
    on_device("norms_and_embeddings_are_those_of_the_definition", |gpu| {
        for element in [Element::F32, Element::Bf16, Element::F16] {
            for (n, width) in [(1, 8), (3, 1032), (5, 264)] {
                let what = format!("{element:?}, {n} x {width}");
                let x = values(n * width, 3);
                let gain = values(width, 4);
                let want: Vec<f32> = x
                    .chunks(width)
                    .flat_map(|row| {
                        let squares: f64 = row.iter().map(|x| (*x as f64).powi(2)).sum();
                        let scale = 1.0 / (squares / width as f64 + 1e-5).sqrt();
                        row.iter().zip(&gain).map(move |(x, g)| (*x as f64 * scale * *g as f64) as f32)
                    })
                    .collect();
                let rows = Rows::upload(gpu, Element::F32, &x, width).unwrap();
                let gain = gpu.upload("test", &gain).unwrap();
                let got = rows.rms_norm(&gain, 1e-5, element).unwrap();
                agrees(&what, &got.read().unwrap(), &want, tolerance(element));
                let x = rounded(&x, element);
                let chosen = Rows::upload(gpu, element, &x, width).unwrap().select(&[n as u32 - 1, 0]).unwrap();
                assert_eq!(chosen.read().unwrap(), [&x[(n - 1) * width..], &x[..width]].concat());
            }
        }
        for format in [Format::F32, Format::Bf16, Format::F16, Format::Int8] {
            let (table, exact) = weight(gpu, format, 11, 192, 6);
            let tokens = gpu.upload("test", &[10u32, 0, 7, 7]).unwrap();
            let got = table.embed(tokens.ptr(), 4).unwrap().read().unwrap();
            let want: Vec<f32> = [10, 0, 7, 7].iter().flat_map(|t| exact[t * 192..][..192].to_vec()).collect();
            assert_eq!(got, want, "{format:?}");
        }
    });
}

#[test]
fn chosen_tokens_are_the_cpus() {
    on_device("chosen_tokens_are_the_cpus", |gpu| {
        let draw = |number, sharpness, top_p| Draw { number, sharpness, top_p };
        let some = 0x9e37_79b9_7f4a_7c15;
        let draws = [
            Draw::LIKELIEST,
            draw(0, 1.0, 1.0),
            draw(u64::MAX, 1.0, 1.0),
            draw(some, 1.0 / 0.7, 0.9),
            draw(u64::MAX, 1.0, 0.9),
            draw(u64::MAX, 0.3, 0.5),
            draw(u64::MAX, 1.0, 1e-30),
            draw(some, 0.01, 0.999_999),
            draw(some, f32::INFINITY, 0.5),
        ];
        let check = |what: &str, logits: &[f32], draws: &[Draw]| {
            let rows = Rows::upload(gpu, Element::F32, &logits.repeat(draws.len()), logits.len()).unwrap();
            let out = gpu.alloc::<u32>("test", draws.len()).unwrap();
            rows.choose(&gpu.upload("test", draws).unwrap(), &out).unwrap();
            let mut got = vec![0; draws.len()];
            out.read(&mut got).unwrap();
            let want: Vec<u32> = draws.iter().map(|&draw| choose(logits, draw)).collect();
            assert_eq!(got, want, "{what}, {}: {draws:?}", logits.len());
        };
        let spread = |vocabulary| values(vocabulary, 8).iter().map(|x| 12.0 * x).collect::<Vec<f32>>();
        check("spread", &spread(256_000), &draws[3..4]);
        for vocabulary in [1, 31, 257, 4097, 32_000] {
            let spread = spread(vocabulary);
            // Half of all tokens are as likely as some others; -0 is 0.
            let tied: Vec<f32> = spread.iter().map(|x| (x / 3.0).round() * 1.5).collect();
            let peaked: Vec<f32> = spread.iter().map(|x| 10.0 * x).collect();
            // Every third is no number, every third nothing; the last is as large as the largest.
            let mut holes = spread.clone();
            holes.chunks_mut(3).filter(|three| three.len() == 3).for_each(|three| {
                three[0] = f32::NAN;
                three[1] = f32::NEG_INFINITY;
            });
            holes[vocabulary - 1] = holes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let nothing = vec![f32::NEG_INFINITY; vocabulary];
            let mut endless = spread.clone();
            endless[vocabulary / 2] = f32::INFINITY;
            for (name, logits) in [
                ("spread", spread),
                ("tied", tied),
                ("equal", vec![0.25; vocabulary]),
                ("peaked", peaked),
                ("holes", holes),
                ("nothing", nothing),
                ("endless", endless),
            ] {
                // Sizes of a batch: one, three, and all.
                for draws in [&draws[3..4], &draws[..3], &draws[..]] {
                    check(name, &logits, draws);
                }
            }
        }
    });
}

#[test]
fn every_number_draws_the_cpus_token() {
    on_device("every_number_draws_the_cpus_token", |gpu| {
        // Few tokens, so that numbers fall close to the borders between them, and ties that top-p cuts.
        let logits: Vec<f32> = values(50, 9).iter().map(|x| (x * 4.0).round()).collect();
        for (sharpness, top_p) in [(1.0, 0.8), (0.5, 1.0)] {
            let draws: Vec<Draw> = (0..512u64).map(|i| Draw { number: i << 55, sharpness, top_p }).collect();
            let rows: Vec<f32> = draws.iter().flat_map(|_| logits.clone()).collect();
            let rows = Rows::upload(gpu, Element::F32, &rows, logits.len()).unwrap();
            let out = gpu.alloc::<u32>("test", draws.len()).unwrap();
            rows.choose(&gpu.upload("test", &draws).unwrap(), &out).unwrap();
            let mut got = vec![0; draws.len()];
            out.read(&mut got).unwrap();
            let want: Vec<u32> = draws.iter().map(|&draw| choose(&logits, draw)).collect();
            assert_eq!(got, want);
            let distinct: BTreeSet<u32> = got.into_iter().collect();
            assert!(distinct.len() > 4, "{distinct:?}");
        }
    });
}

#[test]
fn gathered_logits_are_those_of_the_tokens() {
    on_device("gathered_logits_are_those_of_the_tokens", |gpu| {
        let logits = values(3 * 301, 10);
        let rows = Rows::upload(gpu, Element::F32, &logits, 301).unwrap();
        let tokens: Vec<u32> = (0..130).map(|i| i * 2).chain([300, 0]).collect();
        let got = rows.gather(&tokens).unwrap().read().unwrap();
        let want: Vec<f32> = logits.chunks(301).flat_map(|row| tokens.iter().map(|&t| row[t as usize])).collect();
        assert_eq!(got, want);
        assert!(rows.gather(&[301]).is_err());
    });
}

/// A sequence whose first `cached` tokens are stored already, `shared` of them in a prefix's pages.
#[derive(Clone, Copy)]
struct Case {
    shared: usize,
    cached: usize,
    rows: usize,
}

/// Context (rows, heads · size) of new tokens, by definition. `qkv` (cached + rows, (heads + 2 kv) · size) before rotation.
fn attention(heads: &Heads, qkv: &[f32], cached: usize, turns: &[[f32; 2]]) -> Vec<f32> {
    let (size, half, width) = (heads.size, heads.size / 2, (heads.queries + 2 * heads.kv) * heads.size);
    let rows = qkv.len() / width;
    let head = |row: usize, head: usize, rotated: bool| -> Vec<f64> {
        let x = &qkv[row * width + head * size..][..size];
        let turned = |i: usize| {
            let [cos, sin] = turns[row * half + i % half];
            let (low, high) = (x[i % half], x[i % half + half]);
            rounded(&[if i < half { low * cos - high * sin } else { high * cos + low * sin }], heads.element)[0]
        };
        (0..size).map(|i| if rotated { turned(i) } else { x[i] } as f64).collect()
    };
    let mut out = Vec::new();
    for row in cached..rows {
        for query in 0..heads.queries {
            let kv = query / (heads.queries / heads.kv);
            let q = head(row, query, true);
            let weights: Vec<f64> = (0..=row)
                .map(|key| {
                    let k = head(key, heads.queries + kv, true);
                    (q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / (size as f64).sqrt()).exp()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            let mut context = vec![0.0; size];
            for (key, weight) in weights.iter().enumerate() {
                let v = head(key, heads.queries + heads.kv + kv, false);
                context.iter_mut().zip(&v).for_each(|(c, v)| *c += weight / sum * v);
            }
            out.extend(context.iter().map(|c| *c as f32));
        }
    }
    out
}

/// Runs both attention kernels over cases: first all cached tokens, then the new ones.
fn attend(gpu: &Gpu, heads: &Heads, cases: &[Case], single: bool) {
    let (width, half) = ((heads.queries + 2 * heads.kv) * heads.size, heads.size / 2);
    let layers = 2;
    let page = heads.page_bytes(layers);
    let stride = 8;
    let mut tables = Vec::new();
    let memory: Vec<_> = cases.iter().map(|_| gpu.alloc::<u8>("test", stride * page).unwrap()).collect();
    for (case, memory) in cases.iter().zip(&memory) {
        // The prefix's pages, the last of them not full, then the sequence's own.
        let mut table = Vec::new();
        for (first, end) in [(0, case.shared), (case.shared, case.cached + case.rows)] {
            for first in (first..end).step_by(PAGE) {
                let at = memory.ptr().offset::<u8>(table.len() * page);
                table.push(Page { at, first: first as i32, count: PAGE.min(end - first) as i32 });
            }
        }
        table.resize(stride, Page::NONE);
        tables.push(table);
    }
    let all: Vec<Page> = tables.concat();
    let pages = gpu.upload("test", cast_slice::<Page, u8>(&all)).unwrap();
    let data: Vec<Vec<f32>> = cases
        .iter()
        .enumerate()
        .map(|(i, case)| rounded(&values((case.cached + case.rows) * width, i as u32 + 7), heads.element))
        .collect();
    let turn = |row: usize, i: usize| {
        let angle = row as f32 / (i + 1) as f32;
        [angle.cos(), angle.sin()]
    };
    let turns = |rows: std::ops::Range<usize>| -> Vec<[f32; 2]> {
        rows.flat_map(|row| (0..half).map(move |i| turn(row, i))).collect()
    };
    let run = |ranges: &[std::ops::Range<usize>], single: bool| {
        let rows: Vec<(usize, usize)> =
            ranges.iter().enumerate().flat_map(|(s, range)| range.clone().map(move |row| (s, row))).collect();
        let qkv: Vec<f32> = rows.iter().flat_map(|&(s, row)| data[s][row * width..][..width].to_vec()).collect();
        let angles: Vec<[f32; 2]> = rows.iter().flat_map(|&(_, row)| turns(row..row + 1)).collect();
        let slot = |&(s, row): &(usize, usize)| -> Ptr {
            let page = tables[s].iter().rfind(|page| page.first as usize <= row).unwrap();
            heads.slot(page.at, row - page.first as usize)
        };
        let slots: Vec<Ptr> = rows.iter().map(slot).collect();
        let mut tiles = Vec::new();
        let mut first = 0;
        for (s, range) in ranges.iter().enumerate() {
            tiles.extend(Tile::of(s, first, range.len(), range.start));
            first += range.len();
        }
        let positions: Vec<u32> = rows.iter().map(|r| r.1 as u32).collect();
        let numbers: Vec<u32> = rows.iter().map(|r| r.0 as u32).collect();
        let angles = gpu.upload("test", cast_slice::<_, u8>(&angles)).unwrap();
        let (positions, numbers) = (gpu.upload("test", &positions).unwrap(), gpu.upload("test", &numbers).unwrap());
        let slots = gpu.upload("test", cast_slice::<_, u8>(&slots)).unwrap();
        let count = if single { 0 } else { tiles.len() };
        let tiles = gpu.upload("test", cast_slice::<_, u8>(&tiles)).unwrap();
        let sequences = Sequences {
            angles: angles.ptr(),
            positions: positions.ptr(),
            numbers: numbers.ptr(),
            slots: slots.ptr(),
            pages: pages.ptr(),
            page_stride: stride,
            tiles: (tiles.ptr(), count),
        };
        let qkv = Rows::upload(gpu, heads.element, &qkv, width).unwrap();
        heads.attend(gpu, &sequences, heads.layer(1), &qkv).unwrap().read().unwrap()
    };
    let cached: Vec<_> = cases.iter().map(|case| 0..case.cached).collect();
    if cases.iter().any(|case| case.cached > 0) {
        run(&cached, true);
    }
    let new: Vec<_> = cases.iter().map(|case| case.cached..case.cached + case.rows).collect();
    let got = run(&new, single);
    let want: Vec<f32> = cases
        .iter()
        .zip(&data)
        .flat_map(|(case, data)| attention(heads, data, case.cached, &turns(0..case.cached + case.rows)))
        .collect();
    let what = format!("{heads:?}, one by one: {single}");
    // On tensor cores the weights of the values are rounded, too.
    agrees(&what, &got, &want, if single { 1.0 } else { 2.0 } * tolerance(heads.element));
}

#[test]
fn attention_is_that_of_the_definition() {
    on_device("attention_is_that_of_the_definition", |gpu| {
        let cases = [
            Case { shared: 0, cached: 0, rows: 1 },
            Case { shared: 70, cached: 75, rows: 67 },
            Case { shared: 3, cached: 3, rows: 5 },
            Case { shared: 0, cached: 64, rows: 65 },
        ];
        let steps = cases.map(|case| Case { rows: 1, ..case });
        for (queries, kv, size) in [(2, 2, 64), (6, 2, 16), (6, 2, 100), (9, 1, 8)] {
            for element in [Element::F32, Element::Bf16, Element::F16] {
                let heads = Heads { queries, kv, size, element };
                attend(gpu, &heads, &steps, true);
                if element != Element::F32 {
                    attend(gpu, &heads, &cases, false);
                }
            }
        }
        let heads = Heads { queries: 2, kv: 1, size: 128, element: Element::F32 };
        attend(gpu, &heads, &cases, true);
    });
}
