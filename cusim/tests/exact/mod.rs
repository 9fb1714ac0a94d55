//! Exact arithmetic on floats of any format, slow and simple: the definition that operations are tested against.

/// A float format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of exponent.
    pub exponent: u32,
    /// Bits of fraction.
    pub fraction: u32,
}

pub const F16: Format = Format { exponent: 5, fraction: 10 };
pub const BF16: Format = Format { exponent: 8, fraction: 7 };
pub const F32: Format = Format { exponent: 8, fraction: 23 };
pub const F64: Format = Format { exponent: 11, fraction: 52 };

/// A rounding mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Nearest,
    Zero,
    Down,
    Up,
}

impl Mode {
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::Nearest, "rn"), (Self::Zero, "rz"), (Self::Down, "rm"), (Self::Up, "rp")];
}

const LIMBS: usize = 72;
/// Numbers are multiples of 2^-UNIT, small enough for products of two f64.
const UNIT: i64 = 2160;

/// A sign and a magnitude.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exact {
    negative: bool,
    magnitude: [u64; LIMBS],
}

impl Format {
    fn bias(self) -> i64 {
        (1 << (self.exponent - 1)) - 1
    }

    /// The pattern of infinity.
    pub fn infinity(self) -> u64 {
        ((1 << self.exponent) - 1) << self.fraction
    }

    pub fn sign(self) -> u64 {
        1 << (self.exponent + self.fraction)
    }

    pub fn is_nan(self, bits: u64) -> bool {
        bits & (self.sign() - 1) > self.infinity()
    }

    pub fn is_infinite(self, bits: u64) -> bool {
        bits & (self.sign() - 1) == self.infinity()
    }

    fn is_zero(self, bits: u64) -> bool {
        bits & (self.sign() - 1) == 0
    }

    pub fn is_negative(self, bits: u64) -> bool {
        bits & self.sign() != 0
    }

    pub fn is_subnormal(self, bits: u64) -> bool {
        !self.is_zero(bits) && bits & self.infinity() == 0
    }

    /// Integer and power of two of a finite pattern; infinity's stands for the next power of two after the largest.
    fn parts(self, bits: u64) -> (u64, i64) {
        let exponent = (bits & (self.sign() - 1)) >> self.fraction;
        let fraction = bits & ((1 << self.fraction) - 1);
        let shift = -self.bias() - i64::from(self.fraction);
        if exponent == 0 { (fraction, shift + 1) } else { (fraction | 1 << self.fraction, shift + exponent as i64) }
    }

    pub fn exact(self, bits: u64) -> Exact {
        let (integer, power) = self.parts(bits);
        Exact::new(self.is_negative(bits), u128::from(integer), power)
    }

    /// The pattern nearest to a value in a mode.
    pub fn round(self, value: &Exact, mode: Mode) -> u64 {
        let sign = if value.negative { self.sign() } else { 0 };
        let size = Exact { negative: false, ..value.clone() };
        // The largest pattern not above the magnitude.
        let (mut low, mut high) = (0, self.infinity());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.exact(middle).compare(&size).is_le() { low = middle } else { high = middle }
        }
        if self.exact(low) == size {
            return low | sign;
        }
        let up = match mode {
            Mode::Zero => false,
            Mode::Down => value.negative,
            Mode::Up => !value.negative,
            Mode::Nearest => {
                let below = size.add(&self.exact(low).negate());
                let above = self.exact(low + 1).add(&size.negate());
                let order = below.compare(&above);
                order.is_gt() || order.is_eq() && low & 1 == 1
            }
        };
        (low + u64::from(up)) | sign
    }

    /// `a * b + c` rounded once; without `c` a product, without `b` a sum.
    pub fn fma(self, a: u64, b: Option<u64>, c: Option<u64>, mode: Mode) -> Option<u64> {
        let operands = [Some(a), b, c];
        if operands.iter().flatten().any(|bits| self.is_nan(*bits)) {
            return None;
        }
        let product_sign = self.is_negative(a) ^ b.is_some_and(|b| self.is_negative(b));
        let product_infinite = self.is_infinite(a) || b.is_some_and(|b| self.is_infinite(b));
        let product_zero = self.is_zero(a) || b.is_some_and(|b| self.is_zero(b));
        if product_infinite && product_zero {
            return None;
        }
        let sign = |negative| if negative { self.sign() } else { 0 };
        if let Some(c) = c.filter(|c| self.is_infinite(*c)) {
            return (!product_infinite || product_sign == self.is_negative(c)).then_some(c);
        }
        if product_infinite {
            return Some(self.infinity() | sign(product_sign));
        }
        let product = match b {
            Some(b) => self.multiply(a, b),
            None => self.exact(a),
        };
        let Some(c) = c else {
            return Some(if product_zero { sign(product_sign) } else { self.round(&product, mode) });
        };
        let sum = product.add(&self.exact(c));
        if sum.is_zero() {
            let c_sign = self.is_negative(c);
            let negative = if product_sign == c_sign { c_sign } else { mode == Mode::Down };
            return Some(sign(negative));
        }
        Some(self.round(&sum, mode))
    }

    fn multiply(self, a: u64, b: u64) -> Exact {
        let ((x, p), (y, q)) = (self.parts(a), self.parts(b));
        Exact::new(self.is_negative(a) ^ self.is_negative(b), u128::from(x) * u128::from(y), p + q)
    }

    /// Converts a finite pattern of another format.
    pub fn convert(self, from: Format, bits: u64, mode: Mode) -> u64 {
        let sign = if from.is_negative(bits) { self.sign() } else { 0 };
        if from.is_infinite(bits) {
            return self.infinity() | sign;
        }
        if from.is_zero(bits) {
            return sign;
        }
        self.round(&from.exact(bits), mode)
    }

    /// Whether `quotient` is `a / b` rounded in a mode, for finite positive normal numbers.
    pub fn is_quotient(self, a: u64, b: u64, quotient: u64, mode: Mode) -> bool {
        // The quotient lies between neighbours iff a lies between their products with b.
        let target = self.exact(a);
        let order = |pattern: u64| self.multiply(pattern, b).compare(&target);
        match mode {
            Mode::Zero | Mode::Down => order(quotient).is_le() && order(quotient + 1).is_gt(),
            Mode::Up => order(quotient).is_ge() && order(quotient - 1).is_lt(),
            Mode::Nearest => {
                let distance = |pattern: u64| {
                    let mut difference = self.multiply(pattern, b).add(&target.negate());
                    difference.negative = false;
                    difference
                };
                let own = distance(quotient);
                own.compare(&distance(quotient + 1)).is_le() && own.compare(&distance(quotient - 1)).is_le()
            }
        }
    }
}

impl Exact {
    /// `integer * 2^power`.
    pub fn new(negative: bool, integer: u128, power: i64) -> Self {
        let mut magnitude = [0; LIMBS];
        let shift = (power + UNIT) as usize;
        let (limb, bit) = (shift / 64, shift % 64);
        for (index, part) in [integer as u64, (integer >> 64) as u64].into_iter().enumerate() {
            let wide = u128::from(part) << bit;
            let mut carry = wide;
            let mut at = limb + index;
            while carry != 0 {
                let sum = u128::from(magnitude[at]) + (carry & u128::from(u64::MAX));
                magnitude[at] = sum as u64;
                carry = (carry >> 64) + (sum >> 64);
                at += 1;
            }
        }
        Self { negative, magnitude }
    }

    pub fn is_zero(&self) -> bool {
        self.magnitude.iter().all(|limb| *limb == 0)
    }

    pub fn negate(&self) -> Self {
        Self { negative: !self.negative, ..self.clone() }
    }

    fn compare_magnitude(&self, other: &Self) -> std::cmp::Ordering {
        self.magnitude.iter().rev().cmp(other.magnitude.iter().rev())
    }

    pub fn compare(&self, other: &Self) -> std::cmp::Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.compare_magnitude(other),
            (true, true) => other.compare_magnitude(self),
            (true, false) => std::cmp::Ordering::Less,
            (false, true) => std::cmp::Ordering::Greater,
        }
    }

    pub fn add(&self, other: &Self) -> Self {
        let mut magnitude = [0; LIMBS];
        if self.negative == other.negative {
            let mut carry = false;
            for (index, limb) in magnitude.iter_mut().enumerate() {
                let (sum, first) = self.magnitude[index].overflowing_add(other.magnitude[index]);
                let (sum, second) = sum.overflowing_add(u64::from(carry));
                (*limb, carry) = (sum, first || second);
            }
            return Self { negative: self.negative, magnitude };
        }
        let (large, small) = if self.compare_magnitude(other).is_ge() { (self, other) } else { (other, self) };
        let mut borrow = false;
        for (index, limb) in magnitude.iter_mut().enumerate() {
            let (rest, first) = large.magnitude[index].overflowing_sub(small.magnitude[index]);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (rest, first || second);
        }
        Self { negative: large.negative, magnitude }
    }
}
