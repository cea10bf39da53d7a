//! From what was found to what it means and what to do: no measuring here, so that every case can be tested.

use std::path::Path;

use crate::bundle::{Bundle, BundleError};
use crate::cache::{FOLDER_NAME, disk_usage};
use crate::check::Deviation;
use crate::cli::bundle::signature_line;
#[cfg(feature = "daemon")]
use crate::cli::client::ClientError;
use crate::device::{Memory, Processor, Slowed};
use crate::error::{Error, Result};
use crate::signing::SignedFacts;
use crate::wording::counted;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use serde::Serialize;

use super::speed::Speed;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// Topic of the finding, a word.
    pub topic: &'static str,
    /// Severity of the finding.
    pub verdict: Verdict,
    /// Observation, in words.
    pub found: String,
    /// Advice to the user.
    pub advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// It is as it should be.
    Ok,
    /// It works, and could be better.
    Warning,
    /// It does not work.
    Problem,
}

use Verdict::{Ok as Fine, Problem, Warning};

const NOTHING: &str = "nothing to do";
/// Temperature that calls for cooling (°C): Raspberry Pis slow down at 80 to 85, Jetsons at 95 to 100.
const HOT_C: f64 = 75.0;
/// Least free room on the disk for the cache and a recording (bytes).
const DISK_LOW: u64 = 256 << 20;
/// Frames a second that make a camera feel live.
const LIVE: f64 = 1.0;

fn finding(topic: &'static str, verdict: Verdict, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { topic, verdict, found: found.into(), advice: advice.into() }
}

pub(crate) fn processor(processor: &Processor) -> Finding {
    let those = |there: bool| {
        let names = processor.features.iter().filter(|(_, has)| *has == there).map(|(name, _)| *name);
        let names: Vec<&str> = names.collect();
        if names.is_empty() { "nothing".into() } else { names.join(", ") }
    };
    let board = processor.board.as_ref().map_or_else(String::new, |board| format!(" ({board})"));
    let Processor { model, cores, architecture, .. } = processor;
    let cores = counted(*cores, "core");
    let found = format!("{model}{board}, {cores}, {architecture}; has {}; lacks {}", those(true), those(false));
    let has = |name: &str| processor.features.contains(&(name, true));
    let lacks = |name: &str| processor.features.contains(&(name, false));
    // The worst first; one verdict is given.
    if lacks("neon") {
        let advice = "every kernel runs without vector instructions; use a board whose processor has NEON";
        finding("processor", Problem, found, advice)
    } else if processor.half_used {
        let advice =
            "this is a 64-bit processor with a 32-bit program; a 64-bit system and the arm64 package have more kernels";
        finding("processor", Warning, found, advice)
    } else if lacks("avx2") || lacks("fma") {
        finding("processor", Warning, found, "without AVX2 and FMA the encoder is slow; use few --views")
    } else if has("fp16") || has("dotprod") || has("i8mm") {
        // Nothing that is measured here would be faster with them: models are f32.
        finding("processor", Fine, found, format!("{NOTHING}; models in f32 do not use fp16, dotprod and i8mm"))
    } else {
        finding("processor", Fine, found, NOTHING)
    }
}

pub(crate) fn kernels(kernels: &[String]) -> Finding {
    let found = if kernels.is_empty() { "no matrix product in this encoder".into() } else { kernels.join(", ") };
    // Portable kernels, the engine's and ours, use no vector instructions.
    if kernels.iter().any(|name| name.starts_with("generic") || name.ends_with("portable")) {
        let advice =
            "the engine has no fast kernel for this processor; use few --views, and report the processor's model";
        return finding("kernels", Warning, found, advice);
    }
    finding("kernels", Fine, found, NOTHING)
}

pub(crate) fn memory(memory: Option<&Memory>, peak: Option<u64>) -> Finding {
    let Some(memory) = memory else {
        return finding("memory", Warning, "not reported by the system", "see that /proc is mounted");
    };
    let found = format!("{} available of {}", mebibytes(memory.available), mebibytes(memory.total));
    match peak {
        Some(peak) if memory.available < peak => {
            let advice = format!("the doctor took {}: end other programs, or use a smaller model", mebibytes(peak));
            finding("memory", Warning, found, advice)
        }
        Some(peak) => finding("memory", Fine, format!("{found}; the doctor took {}", mebibytes(peak)), NOTHING),
        None => finding("memory", Fine, found, NOTHING),
    }
}

pub(crate) fn temperature(celsius: Option<f64>) -> Finding {
    match celsius {
        None => finding("temperature", Fine, "no temperature sensor found", NOTHING),
        Some(celsius) if celsius >= HOT_C => {
            let advice =
                "give it a heat sink, a fan or a case with holes, or use fewer --views; past 80 °C boards slow down";
            finding("temperature", Warning, format!("{celsius:.1} °C"), advice)
        }
        Some(celsius) => finding("temperature", Fine, format!("{celsius:.1} °C"), NOTHING),
    }
}

/// Finding about throttling; `silent` is true of a board whose firmware would know and does not tell the kernel.
pub(crate) fn slowed(reasons: &[Slowed], silent: bool) -> Finding {
    if reasons.is_empty() && silent {
        let advice = "ask it: vcgencmd get_throttled; throttled=0x0 is well, anything else is voltage or heat";
        return finding("throttling", Warning, "this board's firmware reports nothing to the kernel", advice);
    }
    if reasons.is_empty() {
        return finding("throttling", Fine, "none reported", NOTHING);
    }
    let explained = reasons.iter().map(|reason| match reason {
        Slowed::Undervoltage => (
            "the supply's voltage is too low now",
            "use the power supply made for the board, and a short cable",
        ),
        Slowed::UndervoltageBefore => (
            "the supply's voltage was too low since the start",
            "use the power supply made for the board, and a short cable",
        ),
        Slowed::Heat => ("it is slowed by heat now", "cool it"),
        Slowed::HeatBefore => ("it was slowed by heat since the start", "cool it"),
        Slowed::Governor => (
            "its clock is held low (governor powersave)",
            "write performance or ondemand to /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor; on a Jetson: nvpmodel, jetson_clocks",
        ),
    });
    let (found, advice): (Vec<&str>, Vec<&str>) = explained.unzip();
    let mut advice = advice;
    advice.dedup();
    finding("throttling", Warning, found.join("\n"), advice.join("; "))
}

pub(crate) fn bundle_missing(error: &Error) -> Finding {
    let advice = match error {
        Error::Bundle(BundleError::NotFound { .. } | BundleError::NotFolder { .. }) => {
            "name one with --bundle or RTPT_BUNDLE; make one with rtpt bundle import"
        }
        _ => "copy it again, whole, or install its package again",
    };
    finding("bundle", Problem, error.to_string(), advice)
}

pub(crate) fn goldens(bundle: &Bundle, deviations: &Result<Vec<Deviation>>) -> Finding {
    let head = format!("{} in {}", bundle.id(), bundle.folder.display());
    let deviations = match deviations {
        Err(error) => {
            let advice = "the model cannot run on this device; copy the bundle again, or export it again";
            return finding("bundle", Problem, format!("{head}: {error}"), advice);
        }
        Ok(deviations) => deviations,
    };
    let stages: Vec<String> = deviations
        .iter()
        .map(|deviation| format!("{} {:.1e} of {:.0e}", deviation.stage, deviation.difference, deviation.tolerance))
        .collect();
    let found = format!("{head}\ndeviation from the goldens: {}", stages.join(", "));
    if deviations.iter().all(Deviation::passes) {
        return finding("bundle", Fine, found, NOTHING);
    }
    let advice = "this device computes something else than the model's maker: do not trust its answers; copy the bundle \
        again, then try another board, and report the processor and the kernels";
    finding("bundle", Problem, found, advice)
}

pub(crate) fn trust(signed: Option<&SignedFacts>) -> Finding {
    match signed {
        Some(signed) => finding("trust", Fine, format!("the bundle is {}", signature_line(signed)), NOTHING),
        None => {
            let advice = "to open signed bundles alone, name their makers' keys with --trusted-keys";
            finding("trust", Fine, "no keys are trusted: whoever can write the bundle can change the model", advice)
        }
    }
}

pub(crate) fn speed_unknown(error: &Error) -> Finding {
    finding("speed", Problem, error.to_string(), "run rtpt bundle check, and rtpt classify on a photo")
}

pub(crate) fn speed(speed: &Speed) -> Finding {
    let measured: Vec<String> =
        speed.measured.iter().map(|timed| format!("{} views in {:.0} ms", timed.views, timed.total_ms)).collect();
    let forecast: Vec<String> = speed
        .forecast
        .iter()
        .map(|forecast| format!("{} at {} views", two_digits(forecast.frames_per_second), forecast.views))
        .collect();
    let found = format!(
        "{} (640×480, {}, batch {})\nforecast, frames per second: {}",
        measured.join(", "),
        counted(speed.threads, "thread"),
        speed.batch,
        forecast.join(", ")
    );
    // The most views that keep up: more are steadier.
    let fast = speed.forecast.iter().rev().find(|forecast| forecast.frames_per_second >= LIVE);
    match fast {
        Some(best) => {
            let advice = format!("{NOTHING}; --views {} keeps up with {LIVE} frame per second", best.views);
            finding("speed", Fine, found, advice)
        }
        None => {
            let advice = "use --views 8 or a smaller model for a camera, or accept a frame every few seconds";
            finding("speed", Warning, found, advice)
        }
    }
}

#[cfg(feature = "daemon")]
pub(crate) fn cameras(reports: &[crate::source::CameraReport]) -> Vec<Finding> {
    if reports.is_empty() {
        let advice = "nothing to do without a camera; a USB camera shows here when it is plugged in, and a Pi's or Jetson's own is read by a \
            program, as with --source 'exec:rpicam-vid …'";
        return vec![finding("camera", Fine, "no /dev/video* device found", advice)];
    }
    reports.iter().map(camera).collect()
}

#[cfg(feature = "daemon")]
fn camera(report: &crate::source::CameraReport) -> Finding {
    use std::io::ErrorKind;

    use crate::source::CameraError;
    let device = report.device.display();
    let offered = match &report.found {
        Ok(offered) => offered,
        Err(error) => {
            let (verdict, advice) = match error {
                CameraError::NoFrames { .. } => (Fine, "nothing to do: not a device to take frames from"),
                CameraError::NotVideo { .. } => (Problem, "name one that is, such as /dev/video0"),
                CameraError::Unopened { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                    (Problem, "let this user use cameras: sudo usermod -aG video $USER, then log in again")
                }
                CameraError::Unopened { .. } => (Problem, "plug it in again, and look at what dmesg says"),
            };
            return finding("camera", verdict, error.to_string(), advice);
        }
    };
    let formats: Vec<String> = offered
        .formats
        .iter()
        .map(|format| match format.sizes.iter().max() {
            Some((width, height)) => format!("{} up to {width}×{height}", format.code),
            None => format.code.clone(),
        })
        .collect();
    let found = format!("{device}, {}: {}", offered.name, formats.join(", "));
    if offered.formats.iter().any(|format| format.understood) {
        finding("camera", Fine, found, format!("{NOTHING}; use it with --source {device}"))
    } else {
        let advice = "none of its formats is understood; use --source 'exec:rpicam-vid …' on a Pi, 'exec:gst-launch-1.0 …' on a Jetson, \
            or 'exec:ffmpeg …', which can convert";
        finding("camera", Warning, found, advice)
    }
}

pub(crate) fn cache(folder: Option<&Path>) -> Finding {
    let Some(folder) = folder else {
        let advice = "set XDG_CACHE_HOME or HOME: without it labels are embedded at every start";
        return finding("cache", Warning, "there is no cache folder", advice);
    };
    let shown = folder.display();
    // The first use of the cache makes the folder; what is there of its path decides whether it may.
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let writable = if there.is_dir() { access(there, AccessFlags::W_OK) } else { Err(Errno::ENOTDIR) };
    if let Err(problem) = writable {
        let advice = "make it writable for this user, or set XDG_CACHE_HOME to a folder that is";
        return finding("cache", Warning, format!("{shown} cannot be written: {}", problem.desc()), advice);
    }
    let free = nix::sys::statvfs::statvfs(there).ok();
    // The types differ from system to system.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    // In fragments, as POSIX counts the blocks of `statvfs`.
    let free = free.map(|room| room.blocks_available() as u64 * room.fragment_size() as u64);
    let room = free.map_or_else(String::new, |bytes| format!(", {} free", mebibytes(bytes)));
    if let Some(free) = free.filter(|&free| free < DISK_LOW) {
        let advice = "make room on the disk: rtpt cache clear, or --cache-max-mb and --record-max-mb";
        return finding("cache", Warning, format!("{shown} has {} free", mebibytes(free)), advice);
    }
    match disk_usage(folder) {
        Ok(None) => finding("cache", Fine, format!("{shown}: no features are cached{room}"), NOTHING),
        Ok(Some(usage)) => {
            let images = counted(usage.entries as usize, "image");
            let found = format!("{shown}: {images}, {}{room}", mebibytes(usage.bytes));
            finding("cache", Fine, found, NOTHING)
        }
        Err(problem) => {
            let path = folder.join(FOLDER_NAME);
            let advice = "rtpt cache clear, or remove it";
            finding("cache", Warning, format!("{} cannot be used: {problem}", path.display()), advice)
        }
    }
}

/// Finding about a daemon that gave no answer.
#[cfg(feature = "daemon")]
fn without_answer(socket: &str, error: &Error) -> Finding {
    let restart = "sudo systemctl restart rtpt, then journalctl -u rtpt";
    match error.of_program() {
        Some(ClientError::Denied { .. }) => {
            let advice = "ask with sudo; or let the group video ask, with rtpt.socket";
            finding("daemon", Warning, format!("{socket} may not be used by this user"), advice)
        }
        Some(ClientError::Unreachable { problem, .. }) => {
            let advice = format!("it died, hangs, or that is not a socket: {restart}");
            finding("daemon", Problem, format!("nobody answers on {socket}: {problem}"), advice)
        }
        _ => finding("daemon", Problem, error.to_string(), restart),
    }
}

/// Finding about the daemon; `named` is true if the user named the socket.
#[cfg(feature = "daemon")]
pub(crate) fn daemon(client: &super::super::client::Client, named: bool) -> Finding {
    let shown = client.socket().display().to_string();
    if !client.socket().exists() {
        let found = format!("none: there is no {shown}");
        let start = "rtpt serve, or sudo systemctl start rtpt";
        return if named {
            finding("daemon", Problem, found, format!("start one there: {start}; or name another socket"))
        } else {
            finding("daemon", Fine, found, format!("{NOTHING}, unless one should run: {start}"))
        };
    }
    let info = match client.info() {
        Ok(info) => info,
        Err(error) => return without_answer(&shown, &error),
    };
    let source = &info.status.source;
    let (state, name) = (&source.state, source.name.as_deref().unwrap_or("no source"));
    let found = format!("version {} on {shown}, up {} s, {name}: {state}", info.version, info.status.uptime_s);
    if let Some(problem) = &source.problem {
        let advice = "see to the source; the daemon opens it again by itself";
        return finding("daemon", Warning, format!("{found}\n{problem}"), advice);
    }
    if info.version != env!("CARGO_PKG_VERSION") {
        let advice = format!("it is not this version, {}: sudo systemctl restart rtpt", env!("CARGO_PKG_VERSION"));
        return finding("daemon", Warning, found, advice);
    }
    if info.status.ready {
        finding("daemon", Fine, found, NOTHING)
    } else {
        finding("daemon", Warning, format!("{found}, not ready yet"), "wait until the model is loaded")
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// A rate with two digits that matter.
fn two_digits(rate: f64) -> String {
    if rate >= 10.0 {
        format!("{rate:.0}")
    } else if rate >= 0.1 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::speed::{Forecast, Timed};
    use super::*;

    fn pi(features: &[(&'static str, bool)], half_used: bool) -> Processor {
        Processor {
            model: "Cortex-A72".into(),
            board: Some("Raspberry Pi 4 Model B".into()),
            cores: 4,
            architecture: "aarch64",
            half_used,
            features: features.to_vec(),
        }
    }

    #[test]
    fn processors_are_judged_by_what_the_encoder_uses() {
        let found = processor(&pi(&[("neon", true), ("fp16", false)], false));
        assert_eq!((found.verdict, found.advice.as_str()), (Fine, NOTHING));
        assert_eq!(found.found, "Cortex-A72 (Raspberry Pi 4 Model B), 4 cores, aarch64; has neon; lacks fp16");
        let newer = processor(&pi(&[("neon", true), ("fp16", true)], false));
        assert!(newer.verdict == Fine && newer.advice.contains("do not use fp16"), "{newer:?}");
        let half = processor(&pi(&[("neon", true)], true));
        assert!(half.verdict == Warning && half.advice.contains("arm64 package"), "{half:?}");
        let bare = processor(&pi(&[("neon", false)], false));
        assert!(bare.verdict == Problem && bare.advice.contains("NEON"), "{bare:?}");
        let old = processor(&pi(&[("avx2", false), ("fma", false)], false));
        assert!(old.verdict == Warning && old.advice.contains("AVX2"), "{old:?}");
    }

    #[test]
    fn slow_kernels_are_told() {
        assert_eq!(kernels(&["arm64simd_mmm_f32_8x8_gen".into()]).verdict, Fine);
        let slow = kernels(&["arm64simd_mmm_f32_8x8_gen".into(), "generic_f32_4x4".into()]);
        assert!(slow.verdict == Warning && slow.advice.contains("has no fast kernel"), "{slow:?}");
    }

    #[test]
    fn a_device_in_bad_condition_is_told_what_to_do() {
        let memory_of = |available| memory(Some(&Memory { total: 1 << 30, available }), Some(200 << 20));
        assert_eq!(memory_of(300 << 20).verdict, Fine);
        let short = memory_of(100 << 20);
        assert!(short.verdict == Warning && short.advice.contains("took 200 MiB"), "{short:?}");
        assert_eq!(memory(None, None).verdict, Warning);

        assert_eq!(temperature(Some(60.0)).verdict, Fine);
        let hot = temperature(Some(81.5));
        assert!(hot.verdict == Warning && hot.found == "81.5 °C" && hot.advice.contains("heat sink"), "{hot:?}");
        assert_eq!(temperature(None).verdict, Fine);

        assert_eq!(slowed(&[], false).verdict, Fine);
        let silent = slowed(&[], true);
        assert!(silent.verdict == Warning && silent.advice.contains("vcgencmd get_throttled"), "{silent:?}");
        let weak = slowed(&[Slowed::Undervoltage, Slowed::HeatBefore, Slowed::Governor], true);
        assert_eq!(weak.verdict, Warning);
        assert_eq!(weak.found.lines().count(), 3);
        assert!(["power supply", "cool it", "nvpmodel"].iter().all(|part| weak.advice.contains(part)), "{weak:?}");
    }

    #[test]
    fn the_forecast_says_how_many_views_keep_up() {
        let at = |rates: [f64; 4]| {
            let forecast = [8, 16, 32, 64].into_iter().zip(rates);
            speed(&Speed {
                threads: 4,
                batch: 1,
                kernels: Vec::new(),
                measured: vec![Timed { views: 8, total_ms: 401.0, encode_ms: 390.0 }],
                forecast: forecast.map(|(views, frames_per_second)| Forecast { views, frames_per_second }).collect(),
            })
        };
        let fast = at([5.0, 2.5, 1.3, 0.64]);
        assert!(fast.verdict == Fine && fast.advice.contains("--views 32"), "{fast:?}");
        assert!(fast.found.contains("8 views in 401 ms") && fast.found.contains("1.3 at 32 views"), "{fast:?}");
        let slow = at([0.5, 0.25, 0.13, 0.064]);
        assert!(slow.verdict == Warning && slow.found.contains("0.06 at 64 views"), "{slow:?}");
    }

    #[cfg(feature = "daemon")]
    #[test]
    fn a_camera_that_may_not_be_used_is_told_apart_from_a_broken_one() {
        use std::io;
        use std::path::PathBuf;

        use crate::source::{CameraError, CameraReport};
        let report = |error: CameraError| CameraReport { device: "/dev/video0".into(), found: Err(error) };
        let device = || PathBuf::from("/dev/video0");
        let unopened =
            |code| report(CameraError::Unopened { device: device(), source: io::Error::from_raw_os_error(code) });
        let denied = camera(&unopened(13));
        assert!(denied.verdict == Problem && denied.advice.contains("usermod -aG video"), "{denied:?}");
        let broken = camera(&unopened(19));
        assert!(broken.verdict == Problem && broken.advice.contains("dmesg"), "{broken:?}");
        let none = camera(&report(CameraError::NotVideo { device: device() }));
        assert!(none.verdict == Problem && none.advice.contains("/dev/video0"), "{none:?}");
        let other = camera(&report(CameraError::NoFrames { device: device() }));
        assert_eq!(other.verdict, Fine);
        assert!(cameras(&[])[0].advice.contains("rpicam-vid"));
    }
}
