//! What names this device: choices and results that hold for one kind of processor are remembered under its name.

/// 16 hex digits that stand for this version of the program and the processor's model and features.
pub fn device_key() -> String {
    let mut device = blake3::Hasher::new();
    device.update(env!("CARGO_PKG_VERSION").as_bytes());
    device.update(std::env::consts::ARCH.as_bytes());
    // Without the lines that change from moment to moment.
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let lasting = ["model name", "flags", "Features", "CPU part", "CPU implementer", "Hardware", "Model"];
    for line in cpu.lines().filter(|line| lasting.iter().any(|name| line.starts_with(name))) {
        device.update(line.as_bytes());
    }
    device.finalize().to_hex()[..16].to_string()
}
