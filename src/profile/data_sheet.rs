//! What NVIDIA's data sheets say of cards that the engine is likely to meet, to hold measured ceilings against.

use serde::Serialize;

/// Figures of a card's data sheet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DataSheet {
    /// FLOPs per second of bf16 tensor cores with f32 sums, without sparsity.
    pub bf16_flops: f64,
    /// Bytes per second of its memory.
    pub bytes_per_second: f64,
}

/// Names as drivers give them, dense TFLOP/s of bf16 with f32 sums, GB/s.
const CARDS: [(&str, f64, f64); 17] = [
    ("NVIDIA A100-SXM4-40GB", 312.0, 1555.0),
    ("NVIDIA A100-SXM4-80GB", 312.0, 2039.0),
    ("NVIDIA A100-PCIE-40GB", 312.0, 1555.0),
    ("NVIDIA A100 80GB PCIe", 312.0, 1935.0),
    ("NVIDIA H100 80GB HBM3", 989.0, 3350.0),
    ("NVIDIA H100 PCIe", 756.0, 2000.0),
    ("NVIDIA H100 NVL", 835.0, 3900.0),
    ("NVIDIA H200", 989.0, 4800.0),
    ("NVIDIA H200 NVL", 835.0, 4800.0),
    ("NVIDIA A10", 125.0, 600.0),
    ("NVIDIA A40", 149.7, 696.0),
    ("NVIDIA RTX A6000", 154.8, 768.0),
    ("NVIDIA L4", 121.0, 300.0),
    ("NVIDIA L40S", 362.0, 864.0),
    ("NVIDIA GeForce RTX 3090", 71.0, 936.0),
    ("NVIDIA GeForce RTX 3090 Ti", 80.0, 1008.0),
    ("NVIDIA GeForce RTX 4090", 165.2, 1008.0),
];

/// The data sheet of a card of exactly this name: one that is cut down or sliced has another.
pub fn data_sheet(name: &str) -> Option<DataSheet> {
    let card = CARDS.iter().find(|(known, ..)| *known == name);
    card.map(|(_, tera, giga)| DataSheet { bf16_flops: tera * 1e12, bytes_per_second: giga * 1e9 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_have_the_figures_of_their_own_data_sheet() {
        let of = |name| data_sheet(name).map(|sheet| (sheet.bf16_flops / 1e12, sheet.bytes_per_second / 1e9));
        assert_eq!(of("NVIDIA GeForce RTX 3090"), Some((71.0, 936.0)));
        assert_eq!(of("NVIDIA GeForce RTX 3090 Ti"), Some((80.0, 1008.0)));
        assert_eq!(of("NVIDIA H200"), Some((989.0, 4800.0)));
        assert_eq!(of("NVIDIA H100 80GB HBM3 MIG 1g.10gb"), None);
        assert_eq!(of("NVIDIA GeForce RTX 3090 (cusim)"), None);
    }
}
