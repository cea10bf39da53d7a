//! Model of the processor and of its board, and the processor's features.

use std::fs;
use std::path::Path;

/// A processor and the board it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Processor {
    /// The processor's model, as `Cortex-A76`, or as the system calls it.
    pub model: String,
    /// The board's model, as its device tree has it.
    pub board: Option<String>,
    /// Logical processors this program may use (count).
    pub cores: usize,
    /// Architecture this program was built for.
    pub architecture: &'static str,
    /// True if the processor could run a 64-bit program, and this is a 32-bit one.
    pub half_used: bool,
    /// Features that matter to inference, and whether the processor has them.
    pub features: Vec<(&'static str, bool)>,
}

impl Processor {
    /// The processor that runs this program, as `/proc` and `/sys` below `root` describe it.
    pub(crate) fn of(root: &Path) -> Self {
        let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
        let board = fs::read_to_string(root.join("proc/device-tree/model")).ok();
        Self {
            model: model_of(&cpuinfo).unwrap_or_else(|| "unknown".into()),
            // Device trees end their strings with a zero byte.
            board: board.map(|text| text.trim_end_matches('\0').trim().to_string()).filter(|text| !text.is_empty()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            architecture: std::env::consts::ARCH,
            half_used: cfg!(target_pointer_width = "32") && value(&cpuinfo, "CPU architecture").is_some_and(is_64_bit),
            features: features(&cpuinfo),
        }
    }
}

/// The value of the first line `name : value`.
fn value<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = cpuinfo.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name)?;
    Some(value.trim())
}

/// A number, as `0xd08`.
fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// `CPU architecture: 8` is what 32-bit programs see of a 64-bit ARM.
fn is_64_bit(architecture: &str) -> bool {
    architecture.parse().is_ok_and(|version: u32| version >= 8)
}

/// Names of the kinds of core; on x86 the system's own name.
fn model_of(cpuinfo: &str) -> Option<String> {
    // 32-bit ARM kernels give the instruction set here, not the core.
    if let Some(name) = value(cpuinfo, "model name").filter(|name| !name.starts_with("ARM")) {
        return Some(name.into());
    }
    let mut names: Vec<String> = Vec::new();
    let mut implementer = 0;
    for (key, value) in cpuinfo.lines().filter_map(|line| line.split_once(':')) {
        match key.trim() {
            // The kernel lists it before the part, for each core.
            "CPU implementer" => implementer = hexadecimal(value.trim()).unwrap_or(0),
            "CPU part" => {
                let part = hexadecimal(value.trim())?;
                let name = arm_core(implementer, part)
                    .map_or_else(|| format!("ARM core {implementer:#04x}/{part:#05x}"), String::from);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            _ => {}
        }
    }
    (!names.is_empty()).then(|| names.join(" and "))
}

/// The name of an ARM core by implementer and part number, for those that boards with cameras have. The numbers are
/// those of the cores' technical reference manuals (MIDR_EL1), as `lscpu` knows them.
fn arm_core(implementer: u32, part: u32) -> Option<&'static str> {
    Some(match (implementer, part) {
        (0x41, 0xc07) => "Cortex-A7",
        (0x41, 0xc08) => "Cortex-A8",
        (0x41, 0xc09) => "Cortex-A9",
        (0x41, 0xc0f) => "Cortex-A15",
        (0x41, 0xd03) => "Cortex-A53",
        (0x41, 0xd04) => "Cortex-A35",
        (0x41, 0xd05) => "Cortex-A55",
        (0x41, 0xd07) => "Cortex-A57",
        (0x41, 0xd08) => "Cortex-A72",
        (0x41, 0xd09) => "Cortex-A73",
        (0x41, 0xd0a) => "Cortex-A75",
        (0x41, 0xd0b) => "Cortex-A76",
        (0x41, 0xd0c) => "Neoverse-N1",
        (0x41, 0xd0d) => "Cortex-A77",
        (0x41, 0xd40) => "Neoverse-V1",
        (0x41, 0xd41) => "Cortex-A78",
        (0x41, 0xd42) => "Cortex-A78AE",
        (0x41, 0xd49) => "Neoverse-N2",
        (0x4e, 0x003) => "NVIDIA Denver 2",
        (0x4e, 0x004) => "NVIDIA Carmel",
        _ => return None,
    })
}

/// Features of the processor, as the kernel reports them to programs.
#[cfg(target_arch = "aarch64")]
fn features(_cpuinfo: &str) -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected as has;
    vec![
        ("neon", has!("neon")),
        ("fp16", has!("fp16")),
        ("dotprod", has!("dotprod")),
        ("i8mm", has!("i8mm")),
        ("sve", has!("sve")),
    ]
}

/// Features of the processor, from the kernel's list: the standard library does not detect them on this target.
#[cfg(target_arch = "arm")]
fn features(cpuinfo: &str) -> Vec<(&'static str, bool)> {
    let listed: Vec<&str> = value(cpuinfo, "Features").unwrap_or_default().split_whitespace().collect();
    // The kernel's names. A 64-bit kernel says `asimd` for NEON.
    [("neon", "neon"), ("vfpv4", "vfpv4"), ("fp16", "fphp"), ("dotprod", "asimddp"), ("i8mm", "i8mm")]
        .map(|(name, flag)| (name, listed.contains(&flag) || (name == "neon" && listed.contains(&"asimd"))))
        .to_vec()
}

/// Features of the processor, as its instruction `CPUID` reports them.
#[cfg(target_arch = "x86_64")]
fn features(_cpuinfo: &str) -> Vec<(&'static str, bool)> {
    vec![
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        // The same instructions exist with and without AVX-512.
        ("vnni", is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni")),
    ]
}

/// Features of other processors: none are known.
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm", target_arch = "x86_64")))]
fn features(_cpuinfo: &str) -> Vec<(&'static str, bool)> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PI_4: &str = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n\
        CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n\
        processor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n";

    #[test]
    fn cores_are_called_by_their_names() {
        assert_eq!(model_of(PI_4).unwrap(), "Cortex-A72");
        let mixed = "CPU implementer : 0x4e\nCPU part : 0x003\n\nCPU implementer : 0x41\nCPU part : 0xd07\n";
        assert_eq!(model_of(mixed).unwrap(), "NVIDIA Denver 2 and Cortex-A57");
        assert_eq!(model_of("CPU implementer: 0x61\nCPU part: 0x022\n").unwrap(), "ARM core 0x61/0x022");
        assert_eq!(model_of("model name\t: AMD EPYC 9B45\n").unwrap(), "AMD EPYC 9B45");
        // 32-bit kernels say which instructions it runs, not which core it is.
        let old = "model name\t: ARMv7 Processor rev 4 (v7l)\nCPU implementer\t: 0x41\nCPU part\t: 0xc07\n";
        assert_eq!(model_of(old).unwrap(), "Cortex-A7");
        assert_eq!(model_of(""), None);
        assert_eq!(model_of("CPU part : d08\n"), None);
    }

    #[test]
    fn a_board_tells_its_name() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/device-tree")).unwrap();
        fs::write(root.path().join("proc/cpuinfo"), PI_4).unwrap();
        fs::write(root.path().join("proc/device-tree/model"), "Raspberry Pi 4 Model B Rev 1.4\0").unwrap();
        let processor = Processor::of(root.path());
        assert_eq!(processor.board.as_deref(), Some("Raspberry Pi 4 Model B Rev 1.4"));
        assert_eq!(processor.model, "Cortex-A72");
        assert!(processor.cores >= 1);
        let bare = Processor::of(&root.path().join("nowhere"));
        assert_eq!((bare.model.as_str(), bare.board), ("unknown", None));
    }

    #[test]
    fn a_64_bit_core_is_known_under_a_32_bit_program() {
        assert!(is_64_bit("8"));
        assert!(!is_64_bit("7"));
        assert!(!is_64_bit("AArch64"));
    }
}
