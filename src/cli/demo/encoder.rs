//! The demo's encoder, which is part of the program: a small CLIP that `make demo-encoder` trained.

use std::path::Path;

use fissfuse::error::Result;
use fissfuse::files;

macro_rules! shipped {
    ($($name:literal),+) => {
        [$(($name, include_bytes!(concat!("../../../weights/demo-clip/", $name)))),+]
    };
}

/// Names and contents; the configuration last, so that a directory that was cut short has none.
const FILES: [(&str, &[u8]); 4] =
    shipped!["model.safetensors", "tokenizer.json", "preprocessor_config.json", "config.json"];

/// Writes its Hugging Face directory.
pub fn write(folder: &Path) -> Result<()> {
    FILES.iter().try_for_each(|(name, bytes)| files::write_new(&folder.join(name), bytes))
}
