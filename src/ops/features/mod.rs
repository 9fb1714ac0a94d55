//! Rows of frozen features as a tensor: no inputs -> (n, width) in f32, for layers that are trained on them. No
//! gradient.

use rayon::prelude::*;

use super::{arity, gather};
use crate::autograd::{Cost, Op};
use crate::device::Gpu;
use crate::device::cpu::Buffer;
use crate::error::Result;
use crate::tensor::{FeatureRows, Tensor};

const NAME: &str = "features";

/// Rows one task copies.
const ROWS: usize = 32;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Features {
    /// The rows, in the order wanted.
    pub rows: FeatureRows,
    /// Where they are wanted: on a device, or with `None` on the host.
    pub gpu: Option<Gpu>,
}

impl Op for Features {
    type Saved = ();

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "none"
    }

    fn cost(&self, _: &[&[usize]]) -> Cost {
        let values = self.rows.len() * self.rows.table.width();
        Cost { forward_bytes: (values * (self.rows.table.value_bytes() + 4)) as u64, ..Cost::default() }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, ())> {
        let [] = arity(NAME, inputs)?;
        let FeatureRows { table, rows, .. } = &self.rows;
        table.check(rows)?;
        let (n, width) = (rows.len(), table.width());
        if let Some(gpu) = &self.gpu {
            let (table, rows) = self.rows.on(gpu)?;
            return Ok((gather::gather_rows(NAME, &table, &rows)?, ()));
        }
        let mut out = Buffer::scratch(n * width);
        out.par_chunks_mut((ROWS * width).max(1))
            .zip(rows.par_chunks(ROWS))
            .for_each(|(out, rows)| table.gather(rows, out));
        Ok((Tensor::new([n, width], out)?, ()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use half::f16;

    use super::*;
    use crate::autograd::Tape;
    use crate::tensor::RowTable;

    #[test]
    fn rows_come_in_the_order_wanted() {
        let mut table = RowTable::from_f32(2, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        table.push_f16(vec![f16::from_f32(5.0), f16::from_f32(6.0)].into()).unwrap();
        let table = Arc::new(table);
        let apply = |rows: Vec<u32>| {
            Tape::recording().apply(Features { rows: FeatureRows::new(table.clone(), rows), gpu: None }, &[])
        };
        let out = apply(vec![2, 0, 2]).unwrap().into_tensor();
        assert_eq!((out.shape(), out.data()), (&[3, 2][..], &[5.0, 6.0, 1.0, 2.0, 5.0, 6.0][..]));
        assert!(apply(vec![3]).unwrap_err().to_string().contains("row 3 of 3"));
    }
}
