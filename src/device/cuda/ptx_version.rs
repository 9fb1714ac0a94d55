//! The version that a PTX file asks its driver for: build.rs lowers what nvcc writes to the lowest that holds.
//!
//! A driver refuses PTX of a newer version than its own (`CUDA_ERROR_UNSUPPORTED_PTX_VERSION`), whatever is in it, and nvcc
//! always writes its own release's. This file is compiled into build.rs, and into the library only for its tests.

use std::fmt;

/// A version of the PTX instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// What the drivers of 2021 read (release 470, CUDA 11.4).
pub const OLDEST: Version = Version(7, 4);

/// Instructions, modifiers and directives that are newer than [`OLDEST`], by the version that brought them (PTX ISA, "Changes"
/// and "Release notes" of each instruction). What is missing here, ptxas finds in the tests.
const NEWER: &[(&str, Version)] = &[
    ("szext", Version(7, 6)),
    ("bmsk", Version(7, 6)),
    ("cluster", Version(7, 8)),
    ("mapa", Version(7, 8)),
    ("getctarank", Version(7, 8)),
    ("griddepcontrol", Version(7, 8)),
    ("try_wait", Version(7, 8)),
    ("stmatrix", Version(7, 8)),
    ("reqnctapercluster", Version(7, 8)),
    ("maxclusterrank", Version(7, 8)),
    ("e4m3x2", Version(7, 8)),
    ("e5m2x2", Version(7, 8)),
    ("expect_tx", Version(8, 0)),
    ("bulk", Version(8, 0)),
    ("wgmma", Version(8, 0)),
    ("setmaxnreg", Version(8, 0)),
    ("elect", Version(8, 0)),
    ("multimem", Version(8, 1)),
    ("b128", Version(8, 3)),
    ("tcgen05", Version(8, 6)),
    ("f32x2", Version(8, 6)),
];

/// Architectures that PTX knows only from a version on.
const TARGETS: &[(&str, Version)] = &[
    ("sm_89", Version(7, 8)),
    ("sm_90", Version(7, 8)),
    ("sm_90a", Version(8, 0)),
    ("sm_100", Version(8, 6)),
    ("sm_100a", Version(8, 6)),
    ("sm_120", Version(8, 7)),
    ("sm_120a", Version(8, 7)),
];

/// Hints that older drivers do not know, and that change no result.
const HINTS: &[&str] = &["\"used_bytes_mask"];

/// The words of an instruction: what its dots, blanks and colons part.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The version that a line needs.
fn needed(line: &str) -> Version {
    let known =
        |table: &[(&str, Version)], word| table.iter().find(|(name, _)| *name == word).map(|(_, version)| *version);
    let trimmed = line.trim_start();
    if let Some(target) = trimmed.strip_prefix(".target") {
        return words(target).filter_map(|word| known(TARGETS, word)).max().unwrap_or(OLDEST);
    }
    // Names and tables of debug sections are no instructions.
    let spoken = !trimmed.starts_with(".file") && !trimmed.starts_with(".b8");
    words(line).filter(|_| spoken).filter_map(|word| known(NEWER, word)).max().unwrap_or(OLDEST)
}

/// PTX at the lowest version that holds for what it uses, without hints that older drivers refuse.
///
/// Fails if it needs more than `limit`; the error names the line that does.
pub fn lowered(text: &str, limit: Version) -> Result<String, String> {
    let mut version = OLDEST;
    let mut lowered = String::with_capacity(text.len());
    let mut header = None;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with(".pragma") && HINTS.iter().any(|hint| line.contains(hint)) {
            continue;
        }
        if line.starts_with(".version ") {
            header = Some(lowered.len());
            continue;
        }
        let needs = needed(line);
        if needs > limit {
            let (number, line) = (number + 1, line.trim());
            return Err(format!("line {number} of its PTX needs version {needs}, and {limit} is the limit: {line}"));
        }
        version = version.max(needs);
        lowered.push_str(line);
        lowered.push('\n');
    }
    let header = header.ok_or("its PTX has no line .version")?;
    lowered.insert_str(header, &format!(".version {version}\n"));
    Ok(lowered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ptx(target: &str, body: &str) -> String {
        format!("//\n.version 9.0\n.target {target}\n.address_size 64\n.entry k()\n{{\n{body}\n}}\n")
    }

    #[test]
    fn the_version_is_the_lowest_that_holds() {
        let version = |target: &str, body: &str| {
            let lowered = lowered(&ptx(target, body), Version(9, 0)).unwrap();
            lowered.lines().find(|line| line.starts_with(".version")).unwrap().to_string()
        };
        assert_eq!(version("sm_80", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1};"), ".version 7.4");
        assert_eq!(version("sm_80", "ld.global.nc.L1::no_allocate.L2::128B.f32 %f1, [%rd1];"), ".version 7.4");
        assert_eq!(version("sm_90", "ret;"), ".version 7.8");
        assert_eq!(version("sm_90a", "wgmma.fence.sync.aligned;"), ".version 8.0");
        assert_eq!(version("sm_90", "griddepcontrol.wait; // wgmma"), ".version 7.8");
        assert_eq!(version("sm_80", "ld.shared.b128 %rq1, [%r1];"), ".version 8.3");
    }

    #[test]
    fn hints_that_older_drivers_refuse_are_left_out() {
        let text = ptx("sm_80", "\t.pragma \"used_bytes_mask 15\";\n\t.pragma \"nounroll\";");
        let lowered = lowered(&text, OLDEST).unwrap();
        assert!(!lowered.contains("used_bytes_mask") && lowered.contains("nounroll"), "{lowered}");
    }

    #[test]
    fn what_needs_more_is_refused_with_its_line() {
        let error = lowered(&ptx("sm_80", "ret;\n\tgriddepcontrol.wait;"), OLDEST).unwrap_err();
        assert!(error.contains("line 8") && error.contains("7.8") && error.contains("griddepcontrol.wait"), "{error}");
        assert!(lowered("ret;\n", OLDEST).unwrap_err().contains(".version"));
    }
}
