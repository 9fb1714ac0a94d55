//! Fragments of matrices, as `wmma` holds them in registers and memory.

/// A fragment: its matrix's extent and its elements.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) bits: u32,
    pub(super) doubled: bool,
    packed: bool,
}

impl Part {
    /// The fragment of this role (`a`, `b`, `c` or `d`) and element type.
    pub fn new((m, n, k): (u32, u32, u32), role: &str, ty: &str) -> Option<Self> {
        let (rows, columns) = match role {
            "a" => (m, k),
            "b" => (k, n),
            _ => (m, n),
        };
        if matches!(ty, "s4" | "u4") {
            // Words of eight, of which rows of A and columns of B consist.
            let (rows, columns) = if role == "a" { (m, k / 8) } else { (n, k / 8) };
            let valid = (m, n, k) == (8, 8, 32) && matches!(role, "a" | "b");
            return valid.then_some(Self { rows, columns, bits: 32, doubled: false, packed: true });
        }
        let wide = matches!((m, n, k), (16, 16, 16) | (32, 8, 16) | (8, 32, 16));
        let multiplicand = matches!(role, "a" | "b");
        let (bits, valid) = match (ty, multiplicand) {
            ("f16", _) => (16, wide),
            ("bf16", true) => (16, wide),
            ("f32", false) => (32, wide || (m, n, k) == (16, 16, 8)),
            ("tf32", true) => (32, (m, n, k) == (16, 16, 8)),
            ("s8" | "u8", true) => (8, wide),
            ("s32", false) => (32, wide || (m, n, k) == (8, 8, 32)),
            ("f64", _) => (64, (m, n, k) == (8, 8, 4)),
            _ => return None,
        };
        let doubled = multiplicand && ty == "f16" && wide;
        valid.then_some(Self { rows, columns, bits, doubled, packed: false })
    }

    fn per_lane(&self) -> usize {
        (self.rows * self.columns / 32) as usize
    }

    /// Registers of the fragment.
    pub fn registers(&self) -> usize {
        if self.doubled {
            // Eight, whatever the shape.
            return 8;
        }
        (self.per_lane() * self.bits as usize).div_ceil(self.register_bits() as usize)
    }

    /// Bits of each register.
    pub fn register_bits(&self) -> u32 {
        self.bits.max(32)
    }

    /// Bytes of an element in memory.
    pub fn element_bytes(&self) -> u32 {
        self.bits / 8
    }

    /// Whether its elements are half-bytes, eight in a word; then A must lie in rows and B in columns.
    pub fn is_packed(&self) -> bool {
        self.packed
    }

    /// Distance of rows, or of columns, where the instruction names none.
    pub fn default_stride(&self, columns: bool) -> u32 {
        match (self.packed, columns) {
            (true, _) => 8 * self.columns,
            (false, true) => self.rows,
            (false, false) => self.columns,
        }
    }
}
