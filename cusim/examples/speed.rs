use cusim::sandbox::{Arg, Sandbox};
use std::time::Instant;
fn main() {
    let threads: usize = std::env::args()
        .nth(1)
        .and_then(|t| t.parse().ok())
        .unwrap_or(1);
    let ptx = std::fs::read_to_string("/tmp/speed.ptx").unwrap();
    let mut s = Sandbox::new(threads);
    let image = s.load(&ptx).unwrap();
    let time = |name: &str, lane_insts: f64, f: &mut dyn FnMut()| {
        f();
        let t = Instant::now();
        let n = 3;
        for _ in 0..n {
            f()
        }
        let dt = t.elapsed().as_secs_f64() / n as f64;
        println!(
            "{name}: {:.3} ms  {:.2} G lane-instr/s",
            dt * 1e3,
            lane_insts / dt / 1e9
        );
    };
    let p = s.kernel(&image, "fma_loop").unwrap();
    let out = s.reserve(64 * 256 * 4);
    time("fma", 64.0 * 256.0 * 1000.0 * 5.0, &mut || {
        s.launch(
            &p,
            [64, 1, 1],
            [256, 1, 1],
            0,
            &[Arg::U64(out), Arg::U32(1000), Arg::F32(0.5), Arg::F32(1.0)],
        )
        .unwrap()
    });
    let (m, n, k) = (256usize, 256usize, 256usize);
    let a: Vec<f32> = (0..m * k)
        .map(|i| ((i * 7 % 13) as f32 - 6.0) / 8.0)
        .collect();
    let b: Vec<f32> = (0..k * n)
        .map(|i| ((i * 5 % 11) as f32 - 5.0) / 8.0)
        .collect();
    let want = |i: usize, j: usize| (0..k).map(|x| a[i * k + x] * b[x * n + j]).sum::<f32>();
    let (da, db) = (s.upload(&a), s.upload(&b));
    let dc = s.reserve((m * n * 4) as u64);
    let p = s.kernel(&image, "gemm_f32").unwrap();
    println!(
        "registers {} bytes per warp, {} insts",
        p.register_bytes,
        p.code.len()
    );
    let grid = [(n / 64) as u32, (m / 64) as u32, 1];
    let args = |c| {
        vec![
            Arg::U64(da),
            Arg::U64(db),
            Arg::U64(c),
            Arg::U32(m as u32),
            Arg::U32(n as u32),
            Arg::U32(k as u32),
        ]
    };
    time("gemm_f32", (m * n * k) as f64 / 16.0 * 18.0, &mut || {
        s.launch(&p, grid, [256, 1, 1], 0, &args(dc)).unwrap()
    });
    let c: Vec<f32> = s.download(dc, m * n);
    for (i, j) in [(0, 0), (3, 77), (255, 255)] {
        println!("  {} {}", c[i * n + j], want(i, j));
    }
    let bf = |v: &[f32]| {
        v.iter()
            .map(|x| (x.to_bits() >> 16) as u16)
            .collect::<Vec<_>>()
    };
    let (ba, bb) = (s.upload(&bf(&a)), s.upload(&bf(&b)));
    let p = s.kernel(&image, "gemm_bf16").unwrap();
    println!(
        "registers {} bytes per warp, {} insts",
        p.register_bytes,
        p.code.len()
    );
    let args = vec![
        Arg::U64(ba),
        Arg::U64(bb),
        Arg::U64(dc),
        Arg::U32(m as u32),
        Arg::U32(n as u32),
        Arg::U32(k as u32),
    ];
    time("gemm_bf16 (flops)", (2 * m * n * k) as f64, &mut || {
        s.launch(&p, grid, [128, 1, 1], 0, &args).unwrap()
    });
    let c: Vec<f32> = s.download(dc, m * n);
    for (i, j) in [(0, 0), (3, 77), (255, 255)] {
        println!("  {} {}", c[i * n + j], want(i, j));
    }
    let queries = 2000usize;
    let offsets: Vec<i32> = (0..=queries).map(|i| (i * 40) as i32).collect();
    let f: Vec<f32> = (0..queries * 40 * 128)
        .map(|i| ((i * 31 % 17) as f32 - 8.0) / 32.0)
        .collect();
    let (dq, df, doff) = (
        s.upload(&f[..queries * 128]),
        s.upload(&f),
        s.upload(&offsets),
    );
    let dout = s.reserve((queries * 128 * 4) as u64);
    let p = s.kernel(&image, "attention").unwrap();
    time(
        "attention",
        (queries * 40) as f64 * 32.0 * 35.0,
        &mut || {
            s.launch(
                &p,
                [500, 1, 1],
                [128, 1, 1],
                0,
                &[
                    Arg::U64(dq),
                    Arg::U64(df),
                    Arg::U64(doff),
                    Arg::U64(dout),
                    Arg::U32(queries as u32),
                ],
            )
            .unwrap()
        },
    );
    let o: Vec<f32> = s.download(dout, 4);
    println!("{o:?}");
    let p = s.kernel(&image, "fma_loop").unwrap();
    let t = Instant::now();
    for _ in 0..10000 {
        s.launch(
            &p,
            [1, 1, 1],
            [32, 1, 1],
            0,
            &[Arg::U64(out), Arg::U32(1), Arg::F32(0.5), Arg::F32(1.0)],
        )
        .unwrap();
    }
    println!("launch {:.2} us", t.elapsed().as_secs_f64() * 1e6 / 1e4);
}
