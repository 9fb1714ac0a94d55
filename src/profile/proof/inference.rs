//! Operations that serve inference alone, of the table of operations, against the host in f32.

use super::encoder::compute;
use super::{Check, SUMS};
use crate::device::cuda::Arithmetic;
use crate::ops::cases::inference::{Inference, small};
use crate::tensor::{Compute, Precision};

pub fn checks() -> Vec<Check> {
    small().into_iter().map(against_host).collect()
}

fn against_host(case: Inference) -> Check {
    Check::new(case.name.clone(), move |gpu, found| {
        let want = case.open(&Compute { precision: Precision::F32, gpu: None })?.run()?.into_host()?;
        let got = case.open(&compute(gpu))?.run()?.into_host()?;
        let bound = match gpu.arithmetic() {
            Arithmetic::F32 => case.bound.min(SUMS),
            Arithmetic::Mixed | Arithmetic::Bf16 => case.bound,
        };
        found.near("output", &got, &want, bound);
        Ok(())
    })
}
