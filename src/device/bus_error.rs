//! What is said where a mapped file is cut short while it is read: the system answers such a read with SIGBUS.

use std::fs::File;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::sync::Once;

use signal_hook::consts::SIGBUS;
use signal_hook::low_level;
use signal_hook_registry::register_sigaction;

/// Where Linux lists what is mapped: a range of addresses, and the file's path at the end of the line.
const MAPS: &str = "/proc/self/maps";

/// Longest line of that list that is read: its numbers, and a path of 4096 bytes.
const LONGEST: usize = 4300;

const CUT_SHORT: &[u8] =
    b" was cut short, or its disk failed, while it was read: a feature store or a model that is in use \
                           must not be written over; write it again, then start again\n";

/// From now on a read behind the end of a file that was cut short while it was mapped ends the process with a message.
pub fn explain_bus_errors() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: of a SIGBUS the system says at which address it was. The handler makes a few system calls (open, read,
        // close, write, _exit) and works on its stack; it neither allocates, locks nor panics.
        let registered = unsafe { register_sigaction(SIGBUS, |info| explain(info.si_addr() as usize)) };
        if let Err(error) = registered {
            tracing::debug!("a mapped file that is cut short will end the process without a message: {error}");
        }
    });
}

/// Says which file is mapped at an address that cannot be read, and ends the process.
fn explain(address: usize) -> ! {
    let mut message = Text { bytes: [0; 2 * LONGEST], used: 0 };
    message.push(b"error: ");
    let before = message.used;
    if let Ok(maps) = File::open(MAPS) {
        mapped_at(address, maps, &mut message);
    }
    message.push(if message.used > before { b":" } else { b"a mapped file" });
    message.push(CUT_SHORT);
    // SAFETY: 2 is standard error for as long as the process lives; it is never closed through this value.
    let stderr = ManuallyDrop::new(unsafe { File::from_raw_fd(2) });
    let _ = (&*stderr).write_all(message.bytes());
    low_level::exit(1);
}

/// A text that needs no allocation. What does not fit is left out.
struct Text<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Text<N> {
    fn push(&mut self, more: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.used).zip(more) {
            *place = *byte;
            self.used += 1;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}

/// Appends the path of the file that is mapped at an address; nothing if none is.
fn mapped_at<const N: usize>(address: usize, mut maps: impl Read, path: &mut Text<N>) {
    let mut line = Text { bytes: [0; LONGEST], used: 0 };
    let mut block = [0; 512];
    while let Ok(read @ 1..) = maps.read(&mut block) {
        for byte in block.iter().take(read) {
            if *byte != b'\n' {
                line.push(&[*byte]);
                continue;
            }
            if let Some(found) = path_if_at(address, line.bytes()) {
                return push_printable(found, path);
            }
            line.used = 0;
        }
    }
}

/// The path at the end of a line of [`MAPS`], such as `7f00-7fff r--p 00000000 08:01 42 /a/file`, if it is about this address.
fn path_if_at(address: usize, line: &[u8]) -> Option<&[u8]> {
    let range = std::str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?;
    let (start, end) = range.split_once('-')?;
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    let within = (number(start)?..number(end)?).contains(&address);
    line.get(line.iter().position(|byte| *byte == b'/')?..).filter(|_| within)
}

/// Appends a path without what would steer a terminal.
fn push_printable<const N: usize>(path: &[u8], to: &mut Text<N>) {
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            to.push(if c.is_control() { '?' } else { c }.encode_utf8(&mut [0; 4]).as_bytes());
        }
        if !chunk.invalid().is_empty() {
            to.push(b"?");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_at_an_address_is_found_among_what_is_mapped() {
        let long = "x".repeat(2000);
        let maps = format!(
            "1000-2000 r--p 00000000 08:01 42    /a/first file.bin\n\
             3000-4000 rw-p 00000000 00:00 0\n\
             4000-5000 r--p 00000000 08:01 43    /b/{long}\n\
             5000-6000 r--p 00000000 08:01 44    /c/\u{1b}[31mé (deleted)\n\
             7000-8000 rw-p 00000000 00:00 0     [stack]\n"
        );
        let found = |address: usize| {
            let mut path = Text { bytes: [0; 3000], used: 0 };
            mapped_at(address, maps.as_bytes(), &mut path);
            String::from_utf8(path.bytes().to_vec()).unwrap()
        };
        for (address, path) in [
            (0x1000, "/a/first file.bin"),
            (0x1fff, "/a/first file.bin"),
            (0x2000, ""),
            (0x3500, ""),
            (0x4000, &format!("/b/{long}")),
            (0x5abc, "/c/?[31mé (deleted)"),
            (0x7000, ""),
            (0x9000, ""),
        ] {
            assert_eq!(found(address), path, "{address:x}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut text = Text { bytes: [0; 4], used: 0 };
        text.push(b"abc");
        text.push(b"def");
        assert_eq!(text.bytes(), b"abcd");
    }
}
