//! What the files of a run's folder are called.

/// A training's best weights.
pub const BEST: &str = "best.safetensors";
/// A training's checkpoint.
pub const LAST: &str = "last.safetensors";
/// A training's epochs, a line each; also a dataset's mentions to train on.
pub const TRAIN_LOG: &str = "train.jsonl";
/// A pre-training's epochs, a line each.
pub const PRETRAIN_LOG: &str = "pretrain.jsonl";
/// A training's settings.
pub const TRAINING: &str = "train.json";
/// An evaluation's metrics.
pub const METRICS: &str = "metrics.json";
/// Rankings, a mention a line.
pub const RUN: &str = "run.jsonl";
