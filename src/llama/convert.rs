//! A GGUF file as a Hugging Face directory, and a directory as a file.

use std::path::Path;

use serde_json::{Value, json};

use super::quantize::write_weights;
use super::{Calibration, Checkpoint, Precision, Source, gguf};
use crate::error::{Error, Result};
use crate::files;
use crate::tensor::gguf::EXTENSION;
use crate::tokenizer::{self, Tokenizer};

/// Writes the model of a GGUF file to the directory `out`, whole or not at all, as transformers reads it: its weights in f32,
/// f16 or bf16, its tokenizer and chat template, its configuration; and that of a directory to the GGUF file `out`, whose
/// weights may be in blocks too, rounded as a calibration says. `on_layer` hears of each layer (done, all).
///
/// Fails if the precision has no place in what is written, or if a directory's tokenizer has none in a GGUF file, or if
/// a calibration is given for weights that do not become blocks.
pub fn convert(
    source: &Source,
    out: &Path,
    precision: Precision,
    calibration: Option<Calibration>,
    on_layer: impl Fn(usize, usize) + Sync,
) -> Result<()> {
    let file = match source {
        Source::Gguf(file) if out.extension().is_some_and(|end| end == EXTENSION) => {
            let reason = format!("becomes a Hugging Face directory; --out {} ends as a file does", out.display());
            return Err(Error::file(file.path(), reason + ". Convert to a directory, and that to a GGUF file"));
        }
        Source::Gguf(file) => file,
        Source::Folder(folder) if out.extension().is_some_and(|end| end == EXTENSION) => {
            return gguf::export(folder, out, precision, calibration, on_layer);
        }
        Source::Folder(folder) => {
            let reason = format!("is a Hugging Face directory and becomes a GGUF file; let --out end in .{EXTENSION}");
            return Err(Error::file(folder, reason));
        }
    };
    if !matches!(precision, Precision::F32 | Precision::F16 | Precision::Bf16) {
        let reason = format!("{precision} has no place in such a directory; convert to f32, f16 or bf16");
        return Err(Error::invalid(format!("{reason}, then `fissfuse llm quantize` packs it")));
    }
    if calibration.is_some() {
        return Err(Error::invalid(
            "a calibration serves the blocks of GGUF files; a Hugging Face directory has floats",
        ));
    }
    let checkpoint = Checkpoint::open(source, Some(precision))?;
    let (own, mut settings) = (gguf::tokenizer(file)?, gguf::tokenizer_settings(file)?);
    let beside = file.path().with_file_name(tokenizer::FILE);
    let words = match beside.is_file() {
        true => {
            let tokens = Tokenizer::open(file.path().parent().unwrap_or(Path::new(".")))?.vocabulary();
            let rows = checkpoint.config().vocab_size;
            if tokens > rows {
                return Err(Error::file(
                    beside,
                    format!("has {tokens} tokens, the embedding {rows}; is it this model's?"),
                ));
            }
            crate::fields::read_json(&beside)?
        }
        false => own,
    };
    settings.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    let end = gguf::generation(file)?.end;
    let mut config = checkpoint.config().to_json();
    config["torch_dtype"] = dtype(precision).into();
    let start = file.whole("tokenizer.ggml.bos_token_id")?;
    let generation = json!({"bos_token_id": start, "eos_token_id": end});
    for key in ["bos_token_id", "eos_token_id"] {
        config[key] = generation[key].clone();
    }
    files::write_folder_whole(out, |out| {
        let write = |name: &str, value: &Value| files::write_whole(&out.join(name), |to| writeln!(to, "{value:#}"));
        write_weights(&checkpoint, out, &on_layer)?;
        write(tokenizer::FILE, &words)?;
        write("tokenizer_config.json", &Value::Object(settings.clone()))?;
        write("generation_config.json", &generation)?;
        write("config.json", &config)
    })
}

/// As transformers names a type.
fn dtype(precision: Precision) -> &'static str {
    match precision {
        Precision::F16 => "float16",
        Precision::Bf16 => "bfloat16",
        _ => "float32",
    }
}
