//! The first stage of a large knowledge base: nearest vectors by scans of all of them.

use std::collections::HashSet;

use anyhow::ensure;
use fissfuse::random::{Purpose, generator};
use fissfuse::search::{Candidates, Flat, Found, Int8Builder};
use rand::Rng;

use super::at_least_one;
use super::room::expect_memory;
use super::session::Session;
use super::values::{Values, combinations, value};

/// Time scans of random vectors for the nearest ones of queries, in f32 and in int8, and how much int8 finds of what f32 finds.
#[derive(clap::Args)]
pub struct ScanArgs {
    /// Vectors.
    #[arg(long, default_value = "1000000", value_name = "LIST")]
    entities: Values,

    /// Numbers of a vector: three scores of a hidden width of 100.
    #[arg(long, default_value_t = 300, value_parser = at_least_one())]
    width: usize,

    /// Queries that are asked together.
    #[arg(long, default_value = "1,128", value_name = "LIST")]
    mentions: Values,

    /// Vectors that are found for each.
    #[arg(long, default_value_t = 100, value_parser = at_least_one())]
    top: usize,

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
    let ScanArgs { width, top, .. } = args;
    session.begin("scan", None)?;
    for (name, size) in [("width", width), ("top", top)] {
        session.set(name, size);
    }
    for entities in args.entities.iter() {
        ensure!(entities > 0, "--entities: at least one vector");
        // In f32, and in int8 of 16 bits.
        expect_memory("--entities and --width", &[entities, width, 6])?;
        expect_memory("--recall-mentions and --width", &[args.recall_mentions, width, 4])?;
        let most = args.mentions.iter().max().unwrap_or(1);
        expect_memory("--mentions and --width", &[most, width, 4])?;
        let vectors = draw(entities * width, 0);
        let mut builder = Int8Builder::new(width);
        builder.add(&vectors)?;
        let refined = builder.finish()?;
        let rough = refined.clone().rough();
        let bytes = [4 * vectors.len(), refined.bytes(), refined.bytes() / 2];
        let flat = Flat::new(vectors, width)?;
        let asked = draw(args.recall_mentions * width, 1);
        let exact = flat.top_k(&asked, top)?;
        let scans: [(&str, &dyn Candidates); 3] =
            [("f32", &flat), ("int8, decided in 16 bits", &refined), ("int8 alone", &rough)];
        for ((name, scan), bytes) in scans.into_iter().zip(bytes) {
            let recall = share(&scan.top_k(&asked, top)?, &exact);
            for row in combinations(&[("entities", &Values::one(entities)), ("mentions", &args.mentions)])? {
                let mentions = value(&row, "mentions");
                let queries = draw(mentions * width, 2);
                let measured = session.measure(name, row, |_| scan.top_k(&queries, top).map(drop))?;
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
