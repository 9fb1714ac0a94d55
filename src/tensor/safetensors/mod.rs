//! Reading and writing safetensors files.

mod finite;
mod reader;
mod seal;
mod writer;

pub use finite::{Float, first_unbounded};
use half::{bf16, f16};
pub use reader::Reader;
use safetensors::Dtype;
pub use writer::Writer;

use super::DType;

/// Our metadata lives under one key, since the format keeps its keys in no order.
const METADATA_KEY: &str = "fissfuse";

/// A Rust type that files can hold.
pub trait Element: bytemuck::Pod {
    const DTYPE: DType;
}

macro_rules! elements {
    ($($t:ty => $d:ident),*) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}

elements!(u8 => U8, i64 => I64, u64 => U64, f16 => F16, bf16 => BF16, f32 => F32, f64 => F64);

fn storage(dtype: DType) -> Dtype {
    match dtype {
        DType::U8 => Dtype::U8,
        DType::I64 => Dtype::I64,
        DType::U64 => Dtype::U64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let (wide, narrow) = ([1.5f32, -2.0], [bf16::from_f32(0.5); 3]);
        let mut writer = Writer::default();
        writer.add("wide", &[2, 1], &wide).add("narrow", &[3], &narrow).metadata(&"note").unwrap();
        writer.write(&path).unwrap();
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.names().collect::<Vec<_>>(), ["narrow", "wide"]);
        assert_eq!(reader.tensor_of("wide", &[2, 1]).unwrap().data(), wide);
        assert_eq!(reader.tensor("narrow").unwrap().data(), [0.5; 3]);
        assert_eq!(reader.mapped::<f32>("wide").unwrap()[..], wide);
        assert_eq!(reader.metadata::<String>().unwrap(), "note");
        for (wrong, says) in [
            (reader.tensor_of("wide", &[2]).unwrap_err(), "has shape [2, 1], needs [2]"),
            (reader.tensor("other").unwrap_err(), "`other`: is missing"),
            (reader.values::<u64>("wide").unwrap_err(), "is F32, needs U64"),
        ] {
            assert!(wrong.to_string().contains(says), "{wrong}");
        }
    }

    #[test]
    fn weights_that_are_no_numbers_are_named_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut wide = vec![1.0f32; 100_000];
            wide[70_003] = bad;
            let [half, brain] = [f16::from_f32(bad).to_f32(), bf16::from_f32(bad).to_f32()];
            assert!(!f16::from_f32(half).bounded() && !bf16::from_f32(brain).bounded());
            Writer::default().add("w", &[wide.len()], &wide).write(&path).unwrap();
            let error = Reader::open(&path).unwrap().tensor("w").unwrap_err().to_string();
            assert!(error.contains("`w`: holds NaN or infinity (value 70003)"), "{error}");
        }
        assert_eq!(first_unbounded(&[f16::MAX, f16::MIN, f16::MIN_POSITIVE_SUBNORMAL]), None);
        assert_eq!(first_unbounded(&[bf16::MAX, bf16::MIN, bf16::ZERO]), None);
        assert_eq!(first_unbounded(&[f32::MAX, f32::MIN]), None);
    }

    #[test]
    fn any_bit_that_flips_in_a_sealed_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let mut writer = Writer::default();
        writer.add("b", &[2, 1], &[1.5f32, -2.0]).add("a", &[3], &[7u64, 8, 9]);
        writer.sealed_metadata(&BTreeMap::from([("epoch", 3)])).unwrap().write(&path).unwrap();
        let read = || Reader::open(&path)?.sealed_metadata::<BTreeMap<String, u32>>();
        assert_eq!(read().unwrap()["epoch"], 3);
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            let error = read().expect_err(&format!("bit {bit}")).to_string();
            assert!(error.contains("x.safetensors"), "{error}");
        }
        // What older versions wrote has no seal.
        let mut writer = Writer::default();
        writer.add("a", &[3], &[7u64, 8, 9]).metadata(&BTreeMap::from([("epoch", 3)])).unwrap().write(&path).unwrap();
        assert_eq!(read().unwrap()["epoch"], 3);
    }

    #[test]
    fn a_file_cut_short_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        Writer::default().add("x", &[4], &[0.0f32; 4]).write(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in [0, 4, 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(Reader::open(&path).is_err(), "{len} bytes");
        }
    }
}
