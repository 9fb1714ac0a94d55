//! Fat binaries, in which nvcc wraps PTX and machine code for several architectures.

/// What a fat binary begins with.
pub const MAGIC: [u8; 4] = [0x50, 0xed, 0x55, 0xba];

/// Bytes at its start that say how long it is.
pub const HEADER: usize = 16;

/// Kinds of entries.
mod kind {
    pub const PTX: u16 = 1;
    pub const MACHINE_CODE: u16 = 2;
}

/// Of an entry's flags: how it is compressed.
const COMPRESSED: u64 = 0x2000 | 0x8000;

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    word(bytes, at).map(u16::from_le_bytes)
}

fn int(bytes: &[u8], at: usize) -> Option<usize> {
    word(bytes, at).map(|word| u32::from_le_bytes(word) as usize)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    word(bytes, at).map(u64::from_le_bytes)
}

/// Bytes of a whole fat binary, given its first [`HEADER`]; `None` if it is none.
pub fn size(header: &[u8]) -> Option<usize> {
    if !header.starts_with(&MAGIC) {
        return None;
    }
    let own = usize::from(short(header, 6)?);
    own.checked_add(usize::try_from(long(header, 8)?).ok()?)
}

/// An entry.
struct Entry<'a> {
    kind: u16,
    /// The architecture that it is for.
    arch: usize,
    compressed: bool,
    payload: &'a [u8],
}

/// The entries, up to the first that makes no sense.
fn entries(image: &[u8]) -> Vec<Entry<'_>> {
    let mut entries = vec![];
    let mut at = short(image, 6).map_or(0, usize::from);
    let mut read = || {
        let header = image.get(at..)?;
        let (kind, own, payload) = (short(header, 0)?, int(header, 4)?, usize::try_from(long(header, 8)?).ok()?);
        let end = own.checked_add(payload)?;
        let compressed = long(header, 0x28)? & COMPRESSED != 0;
        let entry = Entry { kind, arch: int(header, 0x1c)?, compressed, payload: header.get(own..end)? };
        at = at.checked_add(end).filter(|_| end > 0)?;
        Some(entry)
    };
    while let Some(entry) = read() {
        entries.push(entry);
    }
    entries
}

/// The PTX of a fat binary for the newest architecture that a device of this one can run; why there is none if there is none.
pub fn ptx(image: &[u8], target: u32) -> Result<&str, String> {
    let entries = entries(image);
    let texts = || entries.iter().filter(|entry| entry.kind == kind::PTX);
    if texts().next().is_none() {
        let code = entries.iter().any(|entry| entry.kind == kind::MACHINE_CODE);
        let what = if code { "machine code only" } else { "nothing that can be read" };
        return Err(format!(
            "a fat binary that holds {what}; let nvcc embed PTX: -gencode arch=compute_80,code=compute_80"
        ));
    }
    let Some(best) = texts().filter(|entry| entry.arch <= target as usize).max_by_key(|entry| entry.arch) else {
        let archs: Vec<String> = texts().map(|entry| format!("sm_{}", entry.arch)).collect();
        return Err(format!("a fat binary whose PTX is for {}; the device is sm_{target}", archs.join(", ")));
    };
    if best.compressed {
        return Err("a fat binary whose PTX is compressed; compile with nvcc --no-compress".to_string());
    }
    let end = best.payload.iter().position(|byte| *byte == 0).unwrap_or(best.payload.len());
    std::str::from_utf8(&best.payload[..end]).map_err(|_| "a fat binary whose PTX is no text".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fat binary of entries: kind, architecture, flags, payload.
    fn fat(entries: &[(u16, u32, u64, &str)]) -> Vec<u8> {
        let mut body = vec![];
        for (kind, arch, flags, payload) in entries {
            let mut header = [0u8; 0x50];
            header[..2].copy_from_slice(&kind.to_le_bytes());
            header[4..8].copy_from_slice(&0x50u32.to_le_bytes());
            header[8..16].copy_from_slice(&(payload.len() as u64 + 1).to_le_bytes());
            header[0x1c..0x20].copy_from_slice(&arch.to_le_bytes());
            header[0x28..0x30].copy_from_slice(&flags.to_le_bytes());
            body.extend(header);
            body.extend(payload.bytes().chain([0]));
        }
        let mut image = MAGIC.to_vec();
        image.extend([1, 0, 16, 0]);
        image.extend((body.len() as u64).to_le_bytes());
        image.extend(body);
        image
    }

    #[test]
    fn the_newest_ptx_that_fits_is_taken() {
        let image =
            fat(&[(2, 80, 0, "code"), (1, 80, 0x11, "eighty"), (1, 90, 0x11, "ninety"), (1, 100, 0x11, "hundred")]);
        assert_eq!(size(&image[..HEADER]), Some(image.len()));
        assert_eq!(ptx(&image, 86), Ok("eighty"));
        assert_eq!(ptx(&image, 90), Ok("ninety"));
        assert!(ptx(&image, 75).unwrap_err().contains("sm_80, sm_90, sm_100; the device is sm_75"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for flags in [0x2011, 0x8011] {
            assert!(ptx(&fat(&[(1, 80, flags, "text")]), 86).unwrap_err().contains("--no-compress"));
        }
        assert!(ptx(&fat(&[(2, 86, 0, "code")]), 86).unwrap_err().contains("machine code only"));
        let whole = fat(&[(1, 80, 0x11, "eighty"), (1, 86, 0x11, "more")]);
        for end in 0..whole.len() {
            let _ = (ptx(&whole[..end], 86), size(&whole[..end.min(HEADER)]));
        }
        let mut endless = whole.clone();
        endless[HEADER + 4..HEADER + 16].fill(0xff);
        assert!(ptx(&endless, 86).is_err());
    }
}
