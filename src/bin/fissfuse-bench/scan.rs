//! The first stage of a large knowledge base: nearest vectors by scans of all of them.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::ensure;
use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::random::{Purpose, generator};
use fissfuse::search::{Candidates, Flat, Found, Int8, Int8Builder, OnDevice};
use rand::Rng;

use super::at_least_one;
use super::room::expect_memory;
use super::session::Session;
use super::values::{Values, combinations, expect_few, value};

/// Time scans of random vectors for the nearest ones of queries, in f32 and in int8, and how much int8 finds of what f32 finds.
#[derive(clap::Args)]
pub struct ScanArgs {
    /// Vectors.
    #[arg(long, default_value = "1000000", value_name = "LIST")]
    entities: Values,

    /// Numbers of a vector: three scores of a hidden width of 100.
    #[arg(long, default_value = "300", value_name = "LIST")]
    width: Values,

    /// Queries that are asked together.
    #[arg(long, default_value = "1,128", value_name = "LIST")]
    mentions: Values,

    /// Vectors that are found for each.
    #[arg(long, default_value = "100", value_name = "LIST")]
    top: Values,

    /// What scans besides the CPU: cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,

    /// Queries on which recall is measured.
    #[arg(long, default_value_t = 200, value_parser = at_least_one())]
    recall_mentions: usize,
}

/// Random numbers, evenly spread between -1 and 1.
fn draw(count: usize, which: u64) -> Vec<f32> {
    let mut rng = generator(0, Purpose::Benchmark, which);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

pub fn scan(args: ScanArgs, session: &mut Session) -> anyhow::Result<()> {
    let stored = combinations(&[("entities", &args.entities), ("width", &args.width)])?;
    let asked_for = combinations(&[("mentions", &args.mentions), ("top", &args.top)])?;
    expect_few(&[("vectors", stored.len()), ("queries", asked_for.len())])?;
    let (fewest, most) = (args.entities.iter().min().unwrap_or(0), args.top.iter().max().unwrap_or(0));
    ensure!(most <= fewest, "--top {most} vectors are more than --entities {fewest}");
    let gpu = args.device.open(Arithmetic::Mixed)?;
    session.begin("scan", gpu.as_ref())?;
    for store in stored {
        let (entities, width) = (value(&store, "entities"), value(&store, "width"));
        // In f32, and in int8 of 16 bits.
        expect_memory("--entities and --width", &[entities, width, 6])?;
        expect_memory("--recall-mentions and --width", &[args.recall_mentions, width, 4])?;
        let most = args.mentions.iter().max().unwrap_or(1);
        expect_memory("--mentions and --width", &[most, width, 4])?;
        let vectors = draw(entities * width, 0);
        let mut builder = Int8Builder::new(width);
        builder.add(&vectors)?;
        let refined = Arc::new(builder.finish()?);
        let rough = Int8::clone(&refined).rough();
        let bytes = [4 * vectors.len(), refined.bytes(), refined.bytes() / 2];
        let flat = Arc::new(Flat::new(vectors, width)?);
        let asked = draw(args.recall_mentions * width, 1);
        let (f32, int8, alone) = ("f32", "int8, decided in 16 bits", "int8 alone");
        let mut scans: Vec<(String, &dyn Candidates, usize)> =
            vec![(f32.into(), &*flat, bytes[0]), (int8.into(), &*refined, bytes[1]), (alone.into(), &rough, bytes[2])];
        // Where the vectors lie twice: the host decides.
        let device = gpu.as_ref();
        let there =
            device.map(|gpu| anyhow::Ok((OnDevice::new(flat.clone(), gpu)?, OnDevice::new(refined.clone(), gpu)?)));
        let there = there.transpose()?;
        if let Some((of_f32, of_int8)) = &there {
            scans.push((format!("{f32}, on the device"), of_f32, bytes[0]));
            scans.push((format!("{int8}, on the device"), of_int8, bytes[1]));
        }
        for (name, scan, bytes) in scans {
            for row in &asked_for {
                let (mentions, top) = (value(row, "mentions"), value(row, "top"));
                let recall = share(&scan.top_k(&asked, top)?, &flat.top_k(&asked, top)?);
                let row = store.clone().into_iter().chain(row.clone()).collect();
                let queries = draw(mentions * width, 2);
                let measured = session.measure(&name, row, |_| scan.top_k(&queries, top).map(drop))?;
                let measured = measured.with_rate("mentions", mentions as f64).with("recall", recall);
                session.push(measured.with("bytes", bytes as f64));
            }
        }
    }
    Ok(())
}

/// Mean share of what was to be found.
fn share(found: &[Vec<Found>], exact: &[Vec<Found>]) -> f64 {
    let numbers = |found: &[Found]| found.iter().map(|found| found.number).collect::<HashSet<u32>>();
    let both = |(found, exact): (&Vec<Found>, &Vec<Found>)| numbers(found).intersection(&numbers(exact)).count();
    let all: usize = exact.iter().map(Vec::len).sum();
    found.iter().zip(exact).map(both).sum::<usize>() as f64 / all as f64
}
