use cusim::sandbox::{Arg, Sandbox};
use std::time::Instant;
fn main() {
    let ptx = std::fs::read_to_string("/tmp/speed.ptx").unwrap();
    let mut s = Sandbox::new(1);
    let image = s.load(&ptx).unwrap();
    let which = std::env::args().nth(1).unwrap();
    let (m, n, k) = (128usize, 128usize, 256usize);
    let a = vec![0.5f32; m * k];
    let (da, db) = (s.upload(&a), s.upload(&a));
    let dc = s.reserve((m * n * 4) as u64);
    let p = s.kernel(&image, &which).unwrap();
    let args = [
        Arg::U64(da),
        Arg::U64(db),
        Arg::U64(dc),
        Arg::U32(m as u32),
        Arg::U32(n as u32),
        Arg::U32(k as u32),
    ];
    let t = Instant::now();
    let reps = 50;
    for _ in 0..reps {
        s.launch(
            &p,
            [2, 2, 1],
            [if which == "gemm_f32" { 256 } else { 128 }, 1, 1],
            0,
            &args,
        )
        .unwrap();
    }
    let dt = t.elapsed().as_secs_f64() / reps as f64;
    println!(
        "{which} {:.3} ms, {:.2} GFLOP/s",
        dt * 1e3,
        (2 * m * n * k) as f64 / dt / 1e9
    );
}
