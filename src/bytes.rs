//! Numbers of bytes for people: all of this program's are decimal, as those of disks and data sheets are.

use std::fmt;

/// A number of bytes, shown in kB (10³), MB (10⁶) or GB (10⁹).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Of what lies in memory.
    pub fn of(count: usize) -> Bytes {
        Bytes(count as u64)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (unit, name, digits) = match self.0 {
            0..1_000 => return write!(f, "{} bytes", self.0),
            1_000..1_000_000 => (1e3, "kB", 1),
            1_000_000..1_000_000_000 => (1e6, "MB", 1),
            _ => (1e9, "GB", 2),
        };
        let number = format!("{:.digits$}", self.0 as f64 / unit);
        write!(f, "{} {name}", number.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_decimal_units() {
        let shown = [0, 999, 1_500, 16_000_000, 1 << 20, 100_000_000, 15_826_000_000].map(|n| Bytes(n).to_string());
        assert_eq!(shown, ["0 bytes", "999 bytes", "1.5 kB", "16 MB", "1 MB", "100 MB", "15.83 GB"]);
    }
}
