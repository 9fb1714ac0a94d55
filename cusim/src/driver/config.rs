//! Settings, all from the environment. A value that makes no sense is an error, never ignored.

use std::path::PathBuf;

use super::device::Model;
use super::release::Release;
use crate::check::Checks;
use crate::exec::order::Order;

/// When asynchronous work is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asynchrony {
    /// At once.
    #[default]
    Eager,
    /// When the program waits for it.
    Late,
    /// At random moments, by this seed.
    Seed(u64),
}

/// Failures to order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Which allocation runs out of memory.
    pub alloc: Option<u64>,
    /// Which launch fails.
    pub launch: Option<u64>,
    /// Which launch meets an uncorrectable memory error.
    pub ecc: Option<u64>,
    /// Bytes of device memory.
    pub memory: Option<u64>,
}

/// All settings.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Name of the device model.
    pub device: Option<String>,
    /// Number of devices.
    pub devices: u32,
    /// Whether devices have memory pools.
    pub pools: bool,
    /// Order of blocks and warps.
    pub order: Order,
    /// When asynchronous work is done.
    pub asynchrony: Asynchrony,
    /// Checks beyond bounds.
    pub checks: Checks,
    /// Whether what the checks beyond bounds find fails the launch.
    pub findings_fail: bool,
    /// Where reports are written.
    pub report: Option<PathBuf>,
    /// Where counts are written.
    pub count: Option<PathBuf>,
    /// Failures to order.
    pub failures: Failures,
    /// Host threads, if not one per processor.
    pub threads: Option<usize>,
}

impl Config {
    /// Reads the environment.
    pub fn from_env() -> Result<Self, String> {
        Self::read(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// Reads settings by name.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let mut config = Self { devices: 1, pools: true, findings_fail: true, ..Self::default() };
        let release = match get("CUSIM_DRIVER") {
            Some(value) => Release::find(&value).ok_or_else(|| invalid("CUSIM_DRIVER", &value, &Release::names()))?,
            None => Release::standard(),
        };
        if let Some(value) = get("CUSIM_DEVICE") {
            let model = Model::find(&value).ok_or_else(|| invalid("CUSIM_DEVICE", &value, &Model::names()))?;
            if !model.works_with(release) {
                let valid = Model::all().filter(|model| model.works_with(release)).map(|model| model.key);
                let valid = valid.collect::<Vec<_>>().join(", ");
                let why = format!("driver {} is older than the device; valid: {valid}", release.key);
                return Err(format!("CUSIM_DEVICE={value} with CUSIM_DRIVER={} does not work: {why}", release.key));
            }
            config.device = Some(value);
        }
        if let Some(value) = get("CUSIM_POOLS") {
            config.pools = match value.as_str() {
                "on" => true,
                "off" => false,
                _ => return Err(invalid("CUSIM_POOLS", &value, "on, off")),
            };
        }
        if let Some(value) = get("CUSIM_DEVICES") {
            config.devices = match value.parse() {
                Ok(count @ 1..=16) => count,
                _ => return Err(invalid("CUSIM_DEVICES", &value, "1 to 16")),
            };
        }
        if let Some(value) = get("CUSIM_ORDER") {
            config.order = match (value.as_str(), seed(&value)) {
                ("forward", _) => Order::Forward,
                ("reverse", _) => Order::Reverse,
                (_, Some(seed)) => Order::Seed(seed),
                _ => return Err(invalid("CUSIM_ORDER", &value, "forward, reverse, seed:N")),
            };
        }
        if let Some(value) = get("CUSIM_ASYNC") {
            config.asynchrony = match (value.as_str(), seed(&value)) {
                ("eager", _) => Asynchrony::Eager,
                ("late", _) => Asynchrony::Late,
                (_, Some(seed)) => Asynchrony::Seed(seed),
                _ => return Err(invalid("CUSIM_ASYNC", &value, "eager, late, seed:N")),
            };
        }
        if let Some(value) = get("CUSIM_CHECK") {
            for name in value.split(',') {
                match name.trim() {
                    // Bounds are always checked.
                    "mem" => {}
                    "init" => config.checks.init = true,
                    "race" => config.checks.race = true,
                    "sync" => config.checks.sync = true,
                    "all" => config.checks = Checks::ALL,
                    _ => {
                        return Err(invalid("CUSIM_CHECK", &value, "a list of mem, init, race, sync, or all"));
                    }
                }
            }
        }
        if let Some(value) = get("CUSIM_FINDINGS") {
            config.findings_fail = match value.as_str() {
                "fail" => true,
                "report" => false,
                _ => return Err(invalid("CUSIM_FINDINGS", &value, "fail, report")),
            };
        }
        if let Some(value) = get("CUSIM_THREADS") {
            config.threads = match value.parse() {
                Ok(count @ 1..=1024) => Some(count),
                _ => return Err(invalid("CUSIM_THREADS", &value, "1 to 1024")),
            };
        }
        config.report = get("CUSIM_REPORT").map(PathBuf::from);
        config.count = get("CUSIM_COUNT").map(PathBuf::from);
        if let Some(value) = get("CUSIM_FAIL") {
            config.failures = failures(&value)?;
        }
        Ok(config)
    }
}

fn invalid(name: &str, value: &str, valid: &str) -> String {
    format!("{name}={value} is not understood; valid: {valid}")
}

fn seed(value: &str) -> Option<u64> {
    value.strip_prefix("seed:")?.parse().ok()
}

fn failures(value: &str) -> Result<Failures, String> {
    let mut failures = Failures::default();
    for part in value.split(',') {
        let wrong = || invalid("CUSIM_FAIL", value, "a list of alloc:N, launch:N, ecc:N, memory=SIZE (such as 2GiB)");
        if let Some(size) = part.strip_prefix("memory=") {
            failures.memory = Some(size_in_bytes(size).ok_or_else(wrong)?);
            continue;
        }
        let (name, number) = part.split_once(':').ok_or_else(wrong)?;
        let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
        match name.trim() {
            "alloc" => failures.alloc = Some(number),
            "launch" => failures.launch = Some(number),
            "ecc" => failures.ecc = Some(number),
            _ => return Err(wrong()),
        }
    }
    Ok(failures)
}

fn size_in_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &'static str) -> Result<Config, String> {
        Config::read(|asked| (asked == name).then(|| value.to_string()))
    }

    #[test]
    fn malformed_values_are_errors_that_list_the_valid_ones() {
        for (name, value) in [
            ("CUSIM_DEVICE", "rtx9"),
            ("CUSIM_DEVICES", "0"),
            ("CUSIM_DRIVER", "471"),
            ("CUSIM_POOLS", "none"),
            ("CUSIM_ORDER", "seed:x"),
            ("CUSIM_ASYNC", "lazy"),
            ("CUSIM_CHECK", "mem,rice"),
            ("CUSIM_FINDINGS", "ignore"),
            ("CUSIM_FAIL", "alloc"),
            ("CUSIM_FAIL", "memory=2XB"),
            ("CUSIM_FAIL", "alloc:0"),
            ("CUSIM_THREADS", "many"),
        ] {
            let error = read(name, value).unwrap_err();
            assert!(error.contains(name) && error.contains("valid:"), "{error}");
        }
    }

    #[test]
    fn a_device_newer_than_the_driver_is_an_error() {
        let settings = |asked: &str| match asked {
            "CUSIM_DEVICE" => Some("h200".to_string()),
            "CUSIM_DRIVER" => Some("470".to_string()),
            _ => None,
        };
        let error = Config::read(settings).unwrap_err();
        assert!(error.contains("CUSIM_DEVICE=h200") && error.ends_with("valid: rtx3090, a100"), "{error}");
        assert_eq!(read("CUSIM_DEVICE", "h200").unwrap().device.as_deref(), Some("h200"));
    }

    #[test]
    fn well_formed_values() {
        assert!(read("CUSIM_DRIVER", "470").unwrap().pools && !read("CUSIM_POOLS", "off").unwrap().pools);
        assert_eq!(read("CUSIM_CHECK", "mem,init").unwrap().checks, Checks { init: true, ..Checks::default() });
        assert!(read("CUSIM_FINDINGS", "fail").unwrap().findings_fail);
        assert!(!read("CUSIM_FINDINGS", "report").unwrap().findings_fail);
        assert_eq!(read("CUSIM_ORDER", "seed:7").unwrap().order, Order::Seed(7));
        let failures = read("CUSIM_FAIL", "alloc:7,memory=2GiB").unwrap().failures;
        assert_eq!((failures.alloc, failures.memory), (Some(7), Some(2 << 30)));
    }
}
