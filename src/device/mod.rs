//! Description, key and condition of this device: memory, heat, and what slows it.

#[cfg(feature = "cli")]
mod condition;
#[cfg(feature = "cli")]
mod processor;

use std::fs;
use std::path::Path;

use nix::sys::resource::{UsageWho, getrusage};

#[cfg(feature = "cli")]
pub(crate) use condition::{Memory, Slowed, pi_firmware, slowed, temperature_at};
#[cfg(feature = "cli")]
pub(crate) use processor::Processor;

/// Revision of the arithmetic of encoder and text tower. One more with every change after which features may have other bits.
const ARITHMETIC: u32 = 4;

/// Key of this kind of device (16 hex digits), made of the program's version and arithmetic, and the processor's model and features.
///
/// Results that hold for one kind of processor are remembered under it.
pub(crate) fn device_key() -> String {
    let mut device = blake3::Hasher::new();
    device.update(env!("CARGO_PKG_VERSION").as_bytes());
    device.update(&ARITHMETIC.to_le_bytes());
    device.update(std::env::consts::ARCH.as_bytes());
    // Without the lines that change from moment to moment.
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let lasting = ["model name", "flags", "Features", "CPU part", "CPU implementer", "Hardware", "Model"];
    for line in cpu.lines().filter(|line| lasting.iter().any(|name| line.starts_with(name))) {
        device.update(line.as_bytes());
    }
    device.finalize().to_hex()[..16].to_string()
}

/// Resident memory now (bytes), where the kernel tells.
pub(crate) fn rss_now() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// The most resident memory so far (bytes).
pub(crate) fn rss_peak() -> Option<u64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    // Linux counts in kibibytes.
    u64::try_from(usage.max_rss()).ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(feature = "cli")]
/// The hottest of the device's temperature sensors (°C), where there is one.
pub(crate) fn temperature() -> Option<f64> {
    temperature_at(Path::new("/"))
}
