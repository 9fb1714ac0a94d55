//! What each of KAR's savings is worth: the same mentions re-ranked with and without it.

use std::path::Path;

use indicatif::ProgressBar;

use crate::data::{Dataset, Ranking, Run, Skipped, Split, Tolerance};
use crate::device::Gpu;
use crate::error::Result;
use crate::kar::llama::{Batching, Decoder};
use crate::kar::{Scoring, Settings, Spent, Template, instructions, rerank};
use crate::llama::{LlamaConfig, Precision, write_random};

/// Rankings and a random Llama to re-rank them.
pub struct KarBench {
    dataset: Dataset,
    rankings: Vec<Ranking>,
    decoder: Decoder,
    /// Holds the Llama's files, which stay mapped.
    _folder: tempfile::TempDir,
}

impl KarBench {
    /// Reads the first mentions of a test split's run file and draws a Llama whose tokenizer knows their words.
    pub fn new(
        data: &Path,
        run: &Path,
        mentions: usize,
        config: &LlamaConfig,
        precision: Precision,
        seed: u64,
        gpu: Option<&Gpu>,
    ) -> Result<KarBench> {
        let mut skipped = Skipped::default();
        let dataset = Dataset::open(data, Tolerance::Strict, &mut skipped)?;
        let all = dataset.mentions(Split::Test, &mut skipped)?;
        let mut rankings = Run::read(run, &dataset, &all, Tolerance::Strict, &mut skipped)?.rankings;
        rankings.truncate(mentions);
        let folder = tempfile::tempdir().map_err(crate::Error::io(std::env::temp_dir(), "create"))?;
        let texts = instructions(&rankings, &dataset, &Settings::default())?;
        write_random(folder.path(), config, precision, seed, texts.iter().map(String::as_str))?;
        let decoder = Decoder::open(folder.path(), None, gpu, false, Batching::default())?;
        Ok(KarBench { dataset, rankings, decoder, _folder: folder })
    }

    /// Whose mentions they are.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Mentions that were read.
    pub fn mentions(&self) -> usize {
        self.rankings.len()
    }

    /// Ways to re-rank, with whether prefixes are shared: by texts of so many tokens and by logits, then with the gate and with
    /// debiasing.
    pub fn ways(max_new_tokens: impl Iterator<Item = usize>, gate: f32) -> Vec<(String, Settings, bool)> {
        // A random model's letters are improbable, and compared all the same.
        let letters = Settings { least_share: 0.0, ..Settings::default() };
        let by_text = max_new_tokens.flat_map(|most| {
            let text = Settings { scoring: Scoring::Generate, max_new_tokens: most, ..Settings::default() };
            [("nothing", false), ("prefix", true)]
                .map(|(what, share)| (format!("generate {most} tokens, {what} shared"), text.clone(), share))
        });
        let by_logits = [
            ("logits, nothing shared".into(), letters.clone(), false),
            ("logits, prefix shared".into(), letters.clone(), true),
            (format!("the same, gate {gate}"), Settings { gate: Some(gate), ..letters.clone() }, true),
            // Nor does it matter here what its letters do to the ranking.
            (
                "the same, no gate, debiased on 5 %".into(),
                Settings { debias: Some(0.05), allow_worse: true, ..letters },
                true,
            ),
        ];
        by_text.chain(by_logits).collect()
    }

    /// Re-ranks the first mentions, at most as many as were read, in one of the [`KarBench::ways`].
    pub fn run(&mut self, mentions: usize, settings: &Settings, share: bool) -> Result<Spent> {
        self.decoder.set_batching(Batching { share, ..Batching::default() });
        let template = Template::built_in(settings.strategy)?;
        let bar = ProgressBar::hidden();
        let decoder = &mut self.decoder;
        let rankings = &self.rankings[..mentions.min(self.rankings.len())];
        Ok(rerank(rankings, &self.dataset, &template, settings, decoder, None, &bar)?.spent)
    }
}
