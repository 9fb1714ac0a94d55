//! Matrix products (kernels/matmul.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::cuda::{Arithmetic, DeviceBuffer, Launches, Ptr, Target};
use crate::error::Result;
use crate::ops::reduce::Sums;

mod work;

pub use work::{summed, written};

/// The most products that one launch computes.
const PRODUCTS: usize = 28;

const TILE: usize = 64;

/// Values of k that a tile takes at a time on tensor cores, filled up with zeros.
const DEPTH: usize = 64;

/// Values of a sector, the unit in which device memory is moved.
const SECTOR: usize = 8;

/// Blocks of a product that is split along k, at least. They fill a large device, as a launch has several products; and each part
/// is written and read once more.
const ENOUGH_BLOCKS: usize = 128;

/// The shortest part of k that is worth a block of its own.
const SHORTEST_PART: usize = 256;

/// Parts of k that blocks share of as many sums over k of these sizes.
fn splits_of(batches: usize, [m, n, k]: [usize; 3]) -> usize {
    let blocks = m.div_ceil(TILE) * n.div_ceil(TILE) * batches;
    ENOUGH_BLOCKS.div_ceil(blocks.max(1)).min(k.div_ceil(SHORTEST_PART)).max(1)
}

/// An f32 matrix in device memory: element (i, j) lies `i * row + j * column` values from `at`; in a batch, the next
/// matrix `batch` values further.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    pub at: Ptr,
    pub row: usize,
    pub column: usize,
    pub batch: usize,
}

impl Operand {
    /// Row-major with `row` values from one row to the next.
    pub fn rows(at: Ptr, row: usize) -> Operand {
        Operand { at, row, column: 1, batch: 0 }
    }

    /// The transposed matrix.
    pub fn t(self) -> Operand {
        Operand { row: self.column, column: self.row, ..self }
    }

    /// In a batch, the next matrix lies `batch` values further.
    pub fn every(self, batch: usize) -> Operand {
        Operand { batch, ..self }
    }
}

/// C = alpha A B, or what the builder's methods add to it.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    a: Operand,
    b: Operand,
    size: [usize; 3],
    batches: usize,
    alpha: f32,
    bias: (Ptr, usize),
    mask: Option<Operand>,
    row_sums: (Target, usize),
    accumulate: bool,
    relu: bool,
    exact: bool,
}

/// Products that run at once, in one launch where they are not many: none reads what another writes, but those that add to the
/// same matrix run one after the other.
pub struct Products<'a> {
    gpu: &'a Gpu,
    launches: Launches<'a, Gemm>,
    exact: bool,
    /// Results that nobody wants, but that are written.
    unwanted: Vec<DeviceBuffer<f32>>,
}

/// A product as the kernels take it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Gemm {
    a: Ptr,
    b: Ptr,
    c: Ptr,
    bias: Ptr,
    mask: Ptr,
    row_sums: Ptr,
    a_row: i32,
    a_col: i32,
    b_row: i32,
    b_col: i32,
    c_row: i32,
    mask_row: i32,
    a_batch: i32,
    b_batch: i32,
    c_batch: i32,
    bias_batch: i32,
    row_sums_batch: i32,
    c_split: i32,
    m: i32,
    n: i32,
    k: i32,
    splits: i32,
    alpha: f32,
    accumulate: i32,
    relu: i32,
    batches: i32,
    row_sums_add: i32,
    padding: i32,
}

impl Product {
    /// A (m, k) times B (k, n).
    pub fn new(a: Operand, b: Operand, [m, n, k]: [usize; 3]) -> Product {
        let (size, bias, row_sums) = ([m, n, k], (Ptr::NULL, 0), (Target::NULL, 0));
        let (accumulate, relu, exact) = (false, false, false);
        Product { a, b, size, batches: 1, alpha: 1.0, bias, mask: None, row_sums, accumulate, relu, exact }
    }

    /// As many products, whose operands lie apart by their `batch`.
    pub fn batches(self, batches: usize) -> Product {
        Product { batches, ..self }
    }

    /// Scaled.
    pub fn scaled(self, alpha: f32) -> Product {
        Product { alpha, ..self }
    }

    /// Plus a bias per column; in a batch, the next lies `batch` values further.
    pub fn bias(self, at: Ptr, batch: usize) -> Product {
        Product { bias: (at, batch), ..self }
    }

    /// Added to what C holds.
    pub fn accumulate(self, accumulate: bool) -> Product {
        Product { accumulate, ..self }
    }

    /// Negative results become 0.
    pub fn relu(self, relu: bool) -> Product {
        Product { relu, ..self }
    }

    /// 0 where the output of a ReLU, which lies as C does, is 0: the gradient of what went into it.
    pub fn relu_backward(self, output: Operand) -> Product {
        Product { mask: Some(output), ..self }
    }

    /// Beside C, sums A's rows over k into an array of m values, in a batch into the next, `batch` values further; not if it
    /// is null. Where the product is the gradient of a layer's weight, those are the gradient of its bias. A
    /// must be the transposed of a row-major matrix.
    pub fn row_sums(self, to: Target, batch: usize) -> Product {
        debug_assert!(self.a.row == 1, "row sums of a matrix that is not transposed");
        Product { row_sums: (to, batch), ..self }
    }

    /// In f32, whatever the device's arithmetic.
    pub fn exact(self) -> Product {
        Product { exact: true, ..self }
    }

    /// Writes C, whose `column` must be 1.
    pub fn write(self, gpu: &Gpu, c: Operand) -> Result<()> {
        gpu.products().write(self, c)?.run()
    }

    fn gemm(self, c: Operand, (splits, split): (usize, usize)) -> Gemm {
        let Product { a, b, size: [m, n, k], batches: _, alpha, bias, mask, row_sums, accumulate, relu, exact: _ } =
            self;
        Gemm {
            a: a.at,
            b: b.at,
            c: c.at,
            bias: bias.0,
            mask: mask.map_or(Ptr::NULL, |mask| mask.at),
            row_sums: row_sums.0.at,
            a_row: a.row as i32,
            a_col: a.column as i32,
            b_row: b.row as i32,
            b_col: b.column as i32,
            c_row: c.row as i32,
            mask_row: mask.map_or(0, |mask| mask.row) as i32,
            a_batch: a.batch as i32,
            b_batch: b.batch as i32,
            c_batch: c.batch as i32,
            bias_batch: bias.1 as i32,
            row_sums_batch: row_sums.1 as i32,
            c_split: split as i32,
            m: m as i32,
            n: n as i32,
            k: k as i32,
            splits: splits as i32,
            alpha,
            accumulate: accumulate as i32,
            relu: relu as i32,
            batches: self.batches as i32,
            row_sums_add: row_sums.0.adds as i32,
            padding: 0,
        }
    }
}

impl Gemm {
    fn blocks(&self) -> usize {
        (self.m as usize).div_ceil(TILE) * (self.n as usize).div_ceil(TILE) * (self.batches * self.splits) as usize
    }
}

impl Gpu {
    /// None yet.
    pub fn products(&self) -> Products<'_> {
        Products { gpu: self, launches: launches(self, false), exact: false, unwanted: vec![] }
    }
}

fn launches(gpu: &Gpu, exact: bool) -> Launches<'_, Gemm> {
    match gpu.arithmetic() {
        Arithmetic::Mixed if !exact => gpu.launches("matmul_tf32", PRODUCTS, 128),
        Arithmetic::Bf16 if !exact => gpu.launches("matmul_bf16", PRODUCTS, 128),
        _ => gpu.launches("matmul_f32", PRODUCTS, 256),
    }
}

impl Products<'_> {
    /// And one that writes C, whose `column` must be 1.
    pub fn write(self, product: Product, c: Operand) -> Result<Self> {
        self.queue(product, c, (1, 0))
    }

    /// And those that write each its C, whose `column` must be 1.
    pub fn write_all(self, products: Vec<(Product, Operand)>) -> Result<Self> {
        products.into_iter().try_fold(self, |all, (product, c)| all.write(product, c))
    }

    /// And one that writes C, whose `column` must be 1, if it is not null. A long sum over k is split among blocks, whose
    /// parts `sums` adds in order when it runs; so is one to a C that `sums` adds to anyway, and would write over.
    pub fn sum(self, product: Product, c: Operand, sums: &mut Sums) -> Result<Self> {
        let ([m, n, _], batches, gpu) = (product.size, product.batches, self.gpu);
        let has_sums = !product.row_sums.0.is_null();
        if c.at == Ptr::NULL {
            if !has_sums {
                return Ok(self);
            }
            let unwanted = gpu.alloc::<f32>("partial products", batches * m * n)?;
            let mut with = self.queue(product, Operand::rows(unwanted.ptr(), n).every(m * n), (1, 0))?;
            with.unwanted.push(unwanted);
            return Ok(with);
        }
        let splits = splits_of(batches, product.size);
        if splits == 1 && !sums.has(c.at) {
            return self.queue(product, c, (1, 0));
        }
        // The sums of A's rows stand behind each part's product; the next part begins with a sector of memory.
        let part = (m * n + if has_sums { m } else { 0 }).next_multiple_of(SECTOR);
        let partial = gpu.alloc::<f32>("partial products", batches * splits * part)?;
        let with = self.queue(product.accumulate(false), Operand::rows(partial.ptr(), n), (splits, part))?;
        let to = (c, product.accumulate, product.row_sums);
        sums.add_products((partial, part), splits, (m, n), batches, to);
        Ok(with)
    }

    fn queue(mut self, product: Product, c: Operand, splits: (usize, usize)) -> Result<Self> {
        if product.exact != self.exact {
            self.launches.run()?;
            (self.launches, self.exact) = (launches(self.gpu, product.exact), product.exact);
        }
        let gemm = product.gemm(c, splits);
        // Parts of k write places of their own.
        let row_sums = if splits.0 > 1 { Ptr::NULL } else { gemm.row_sums };
        self.launches.push(gemm.blocks(), gemm, &[gemm.c, row_sums])?;
        Ok(self)
    }

    /// Runs those that did not yet.
    pub fn run(self) -> Result<()> {
        self.launches.run()
    }
}
