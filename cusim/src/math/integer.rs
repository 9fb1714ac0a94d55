//! Integer operations that Rust has no name for.

/// `bfe.u64`: the field of `len` bits at `pos`.
#[inline(always)]
pub fn extract_unsigned(a: u64, pos: u32, len: u32, width: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    let shifted = if pos < width { a >> pos } else { 0 };
    if len >= 64 { shifted } else { shifted & ((1 << len) - 1) }
}

/// `bfe.s64`: sign-extended from the field's top bit, or from the number's if the field passes its end. `a` is
/// sign-extended to 64 bits.
#[inline(always)]
pub fn extract_signed(a: i64, pos: u32, len: u32, width: u32) -> i64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if len == 0 {
        return 0;
    }
    let msb = width - 1;
    let top = (pos + len - 1).min(msb);
    let sign = -(a >> top & 1);
    if pos > msb {
        return sign;
    }
    // What lies above the field's last bit is the sign.
    let kept = top + 1 - pos;
    let field = if kept >= 64 { -1 } else { ((1u64 << kept) - 1) as i64 };
    a >> pos & field | sign & !field
}

/// `bfi`: `len` bits of `a` inserted into `b` at `pos`.
#[inline(always)]
pub fn insert(a: u64, b: u64, pos: u32, len: u32, width: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if pos >= width || len == 0 {
        return b;
    }
    let field = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    let mask = field << pos;
    b & !mask | (a << pos) & mask
}

/// `bfind`: position of the highest bit that differs from the sign, -1 if none.
#[inline(always)]
pub fn find_leading(a: u64, width: u32, shift_amount: bool) -> u32 {
    if a == 0 {
        return u32::MAX;
    }
    let position = 63 - a.leading_zeros();
    if shift_amount { width - 1 - position } else { position }
}

/// `fns`: position of the n-th set bit from `base`, upward for positive n and downward for negative.
#[inline(always)]
pub fn find_nth_set(mask: u32, base: u32, offset: i32) -> u32 {
    let base = base & 31;
    if offset == 0 {
        return if mask >> base & 1 != 0 { base } else { u32::MAX };
    }
    let mut left = offset.unsigned_abs();
    let mut position = base as i32;
    while (0..32).contains(&position) {
        if mask >> position & 1 != 0 {
            left -= 1;
            if left == 0 {
                return position as u32;
            }
        }
        position += offset.signum();
    }
    u32::MAX
}

/// `prmt.b32` in its default mode: each nibble of the selector picks a byte, or its sign.
#[inline(always)]
pub fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let mut result = 0;
    for i in 0..4 {
        let nibble = selector >> (4 * i);
        let byte = (bytes >> (8 * (nibble & 7))) as u32 & 0xff;
        let sign = if byte & 0x80 != 0 { 0xff } else { 0 };
        result |= (if nibble & 8 != 0 { sign } else { byte }) << (8 * i);
    }
    result
}

/// The selector that a mode of `prmt` (f4e, b4e, rc8, ecl, ecr, rc16) stands for.
#[inline(always)]
pub fn permute_selector(mode: u8, selector: u32) -> u32 {
    let c = selector & 3;
    let index = |i: u32| match mode {
        0 => (c + i) & 7,
        1 => c.wrapping_sub(i) & 7,
        2 => c,
        3 => i.max(c),
        4 => i.min(c),
        _ => (c & 1) * 2 + (i & 1),
    };
    index(0) | index(1) << 4 | index(2) << 8 | index(3) << 12
}

/// `lop3.b32`: any function of three bits, given by its truth table.
#[inline(always)]
pub fn logic3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let mut result = 0;
    for row in 0..8 {
        let pick = |value: u32, bit: u32| if row >> bit & 1 != 0 { value } else { !value };
        let term = pick(a, 2) & pick(b, 1) & pick(c, 0);
        result |= if table >> row & 1 != 0 { term } else { 0 };
    }
    result
}

/// `dp4a`: four products of bytes, summed.
#[inline(always)]
pub fn dot4(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool) -> u32 {
    let byte = |value: u32, i: u32, signed: bool| {
        let byte = (value >> (8 * i)) as u8;
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    };
    (0..4).fold(c, |sum, i| sum.wrapping_add((byte(a, i, a_signed) * byte(b, i, b_signed)) as u32))
}

/// `dp2a`: two products of 16-bit values and bytes, summed; `high` takes the upper bytes.
#[inline(always)]
pub fn dot2(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool, high: bool) -> u32 {
    let word = |i: u32| {
        let word = (a >> (16 * i)) as u16;
        if a_signed { i32::from(word as i16) } else { i32::from(word) }
    };
    let byte = |i: u32| {
        let byte = (b >> (8 * (i + 2 * u32::from(high)))) as u8;
        if b_signed { i32::from(byte as i8) } else { i32::from(byte) }
    };
    (0..2).fold(c, |sum, i| sum.wrapping_add(word(i).wrapping_mul(byte(i)) as u32))
}
