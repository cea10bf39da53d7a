//! Condition of the device: memory, heat, and whether it runs slower than it could.

use std::fs;
use std::path::Path;

/// Memory of the device (bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Total memory, or the limit of this program's control group, if that is less.
    pub total: u64,
    /// Memory that programs can still get without swapping.
    pub available: u64,
}

impl Memory {
    /// Memory, as `/proc/meminfo` and the control group below `root` report it.
    pub(crate) fn of(root: &Path) -> Option<Self> {
        let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
        };
        let mut memory = Self { total: field("MemTotal")?, available: field("MemAvailable")? };
        // `max`, which stands where there is no limit, is no number.
        let group = |name: &str| number(&root.join("sys/fs/cgroup").join(name));
        if let Some(limit) = group("memory.max").filter(|&limit| limit < memory.total) {
            memory.total = limit;
            memory.available = memory.available.min(limit.saturating_sub(group("memory.current").unwrap_or(0)));
        }
        Some(memory)
    }
}

/// Reason that the device runs slower than it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slowed {
    /// The supply gives too little voltage now.
    Undervoltage,
    /// It did since the device was started.
    UndervoltageBefore,
    /// It is too hot now.
    Heat,
    /// It was since the device was started.
    HeatBefore,
    /// The clock is held low by the system's choice.
    Governor,
}

/// Reasons that the device is slowed, as `/sys` below `root` tells: the Raspberry Pi's firmware, the kernel's cooling
/// devices, the counters of x86, and the governor of the clock.
pub(crate) fn slowed(root: &Path) -> Vec<Slowed> {
    let mut found = Vec::new();
    let flags = pi_firmware(root).unwrap_or(0);
    // Bit 0 is low voltage; bits 1 to 3 are a capped clock, throttling and the soft limit of temperature. Sixteen bits
    // higher they say that it has happened.
    let reasons = [
        (0x1, Slowed::Undervoltage),
        (0xe, Slowed::Heat),
        (0x1_0000, Slowed::UndervoltageBefore),
        (0xe_0000, Slowed::HeatBefore),
    ];
    found.extend(reasons.iter().filter(|(mask, _)| flags & mask != 0).map(|&(_, reason)| reason));
    if cooled(root) {
        found.push(Slowed::Heat);
    }
    let processors = root.join("sys/devices/system/cpu");
    let counted = entries(&processors, "cpu").iter().any(|processor| {
        number(&processor.join("thermal_throttle/core_throttle_count")).is_some_and(|count| count > 0)
    });
    if counted {
        found.push(Slowed::HeatBefore);
    }
    let saving = |processor: &std::path::PathBuf| {
        let governor = fs::read_to_string(processor.join("cpufreq/scaling_governor")).unwrap_or_default();
        governor.trim() == "powersave" && !driver_scales_itself(processor)
    };
    if entries(&processors, "cpu").iter().any(saving) {
        found.push(Slowed::Governor);
    }
    // Hot now says more than hot before.
    let (heat, voltage) = (found.contains(&Slowed::Heat), found.contains(&Slowed::Undervoltage));
    found.retain(|reason| match reason {
        Slowed::HeatBefore => !heat,
        Slowed::UndervoltageBefore => !voltage,
        _ => true,
    });
    // Firmware and kernel may both tell of the same heat.
    let mut seen = std::collections::HashSet::new();
    found.retain(|reason| seen.insert(*reason));
    found
}

/// Voltage and heat flags of a Raspberry Pi's firmware, as `vcgencmd get_throttled` gives them, if it tells the kernel.
/// See <https://www.raspberrypi.com/documentation/computers/os.html#get_throttled>.
pub(crate) fn pi_firmware(root: &Path) -> Option<u32> {
    // The folders' names differ from board to board, as `soc/soc:firmware`.
    let folders = entries(&root.join("sys/devices/platform"), "soc");
    let mut inner = folders.iter().flat_map(|folder| entries(folder, "soc"));
    let text = inner.find_map(|path| fs::read_to_string(path.join("get_throttled")).ok())?;
    u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

/// True if the kernel holds the processor's clock down because of heat.
fn cooled(root: &Path) -> bool {
    entries(&root.join("sys/class/thermal"), "cooling_device").iter().any(|device| {
        let kind = fs::read_to_string(device.join("type")).unwrap_or_default();
        let kind = kind.to_ascii_lowercase();
        // Fans are cooling devices as well, and slow nothing. `Processor` is ACPI's name for the clock of x86.
        (kind.contains("cpufreq") || kind.trim() == "processor")
            && number(&device.join("cur_state")).is_some_and(|state| state > 0)
    })
}

/// True if Intel's or AMD's own driver sets the clock: there "powersave" is the normal choice, and does raise it.
fn driver_scales_itself(processor: &Path) -> bool {
    let driver = fs::read_to_string(processor.join("cpufreq/scaling_driver")).unwrap_or_default();
    ["intel_pstate", "amd-pstate-epp", "amd_pstate_epp"].contains(&driver.trim())
}

/// The hottest of the device's temperature sensors below `root` (°C), where there is one.
pub(crate) fn temperature_at(root: &Path) -> Option<f64> {
    let readings = entries(&root.join("sys/class/thermal"), "thermal_zone").into_iter().filter_map(|zone| {
        let millidegrees = fs::read_to_string(zone.join("temp")).ok()?;
        let celsius = millidegrees.trim().parse::<f64>().ok()? / 1e3;
        // Sensors that are switched off say nonsense.
        (-50.0..200.0).contains(&celsius).then_some(celsius)
    });
    readings.max_by(f64::total_cmp)
}

/// The folders in `folder` whose names begin so.
fn entries(folder: &Path, prefix: &str) -> Vec<std::path::PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = found.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.map(|entry| entry.path()).collect()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device whose `/proc` and `/sys` say this.
    fn device(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const FIRMWARE: &str = "sys/devices/platform/soc/soc:firmware/get_throttled";

    #[test]
    fn the_firmware_is_found_whatever_its_folders_are_called() {
        assert_eq!(pi_firmware(device(&[(FIRMWARE, "50005\n")]).path()), Some(0x5_0005));
        let newer = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled";
        assert_eq!(pi_firmware(device(&[(newer, "0\n")]).path()), Some(0));
        assert_eq!(pi_firmware(device(&[("sys/devices/platform/soc/uevent", "")]).path()), None);
    }

    #[test]
    fn a_pi_tells_of_voltage_and_heat() {
        for (flags, expected) in [
            ("0\n", vec![]),
            ("1\n", vec![Slowed::Undervoltage]),
            ("50005\n", vec![Slowed::Undervoltage, Slowed::Heat]),
            ("0x50000\n", vec![Slowed::UndervoltageBefore, Slowed::HeatBefore]),
            ("80008\n", vec![Slowed::Heat]),
            ("2\n", vec![Slowed::Heat]),
            ("nonsense", vec![]),
        ] {
            assert_eq!(slowed(device(&[(FIRMWARE, flags)]).path()), expected, "{flags}");
        }
    }

    #[test]
    fn kernels_tell_of_cooling_counters_and_governors() {
        let cooling = "sys/class/thermal/cooling_device3/";
        let kind = format!("{cooling}type");
        let state = format!("{cooling}cur_state");
        let cooled = |kind_is, state_is| slowed(device(&[(&kind, kind_is), (&state, state_is)]).path());
        assert_eq!(cooled("cpufreq-cpu0\n", "2\n"), [Slowed::Heat]);
        assert_eq!(cooled("cpufreq-cpu0\n", "0\n"), []);
        assert_eq!(cooled("pwm-fan\n", "2\n"), [], "a fan that turns does not slow");
        let count = "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count";
        assert_eq!(slowed(device(&[(count, "7\n")]).path()), [Slowed::HeatBefore]);
        let governor = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
        let driver = "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver";
        assert_eq!(slowed(device(&[(governor, "powersave\n")]).path()), [Slowed::Governor]);
        assert_eq!(slowed(device(&[(governor, "ondemand\n")]).path()), []);
        let other = "sys/devices/system/cpu/cpu5/cpufreq/scaling_governor";
        assert_eq!(slowed(device(&[(governor, "ondemand\n"), (other, "powersave\n")]).path()), [Slowed::Governor]);
        assert_eq!(slowed(device(&[(governor, "powersave\n"), (driver, "intel_pstate\n")]).path()), []);
        // Hot now, and counted before: once.
        assert_eq!(slowed(device(&[(count, "7\n"), (&kind, "cpufreq\n"), (&state, "1\n")]).path()), [Slowed::Heat]);
    }

    #[test]
    fn memory_is_what_the_control_group_allows() {
        let meminfo = "MemTotal:        8000000 kB\nMemFree:          100 kB\nMemAvailable:    6000000 kB\n";
        let whole = Memory { total: 8_000_000 << 10, available: 6_000_000 << 10 };
        assert_eq!(Memory::of(device(&[("proc/meminfo", meminfo)]).path()), Some(whole));
        let (max, current) = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current");
        let unlimited = device(&[("proc/meminfo", meminfo), (max, "max\n")]);
        assert_eq!(Memory::of(unlimited.path()), Some(whole));
        let limited = device(&[("proc/meminfo", meminfo), (max, "1073741824\n"), (current, "73741824\n")]);
        assert_eq!(Memory::of(limited.path()), Some(Memory { total: 1 << 30, available: 1_000_000_000 }));
        assert_eq!(Memory::of(device(&[("proc/meminfo", "MemTotal: 1 kB\n")]).path()), None);
    }

    #[test]
    fn the_hottest_sensor_counts_and_nonsense_does_not() {
        let zone = |number: u32| format!("sys/class/thermal/thermal_zone{number}/temp");
        let root = device(&[(&zone(0), "48312\n"), (&zone(1), "61000\n"), (&zone(2), "-274000\n"), (&zone(3), "")]);
        let nonsense = device(&[(&zone(0), "48312\n"), (&zone(1), "999000\n")]);
        assert_eq!(temperature_at(nonsense.path()), Some(48.312));
        assert_eq!(temperature_at(root.path()), Some(61.0));
        assert_eq!(temperature_at(device(&[]).path()), None);
    }
}
