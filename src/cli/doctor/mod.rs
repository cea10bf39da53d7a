//! `rtpt doctor`: what this device can do, what is wrong with it, and what to do about it.

mod findings;
mod speed;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::bundle::Bundle;
use crate::check::{Deviation, check_goldens, require_goldens};
use crate::device::{Memory, Processor, Slowed, pi_firmware, rss_peak, slowed, temperature_at};
use crate::error::Error;
use crate::extractor::worker_pool;
use crate::limits::THREADS_MAX;
use clap::Args;
use serde::Serialize;

#[cfg(feature = "daemon")]
use super::client::SocketArgument;
use super::printer::json_line;
use super::settings::{BundleArgument, cache_folder, whole};
use super::{Completion, Outcome};
use findings::{Finding, Verdict};
use speed::Speed;

/// Version of the JSON.
const SCHEMA: u32 = 1;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bundle: BundleArgument,
    /// Worker threads of the timing [default: one per core]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, THREADS_MAX))]
    threads: Option<usize>,
    /// Leave out the timing and its forecast
    #[arg(long)]
    no_timing: bool,
    /// Folder of the features on disk [default: the cache folder]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    #[cfg(feature = "daemon")]
    #[command(flatten)]
    socket: SocketArgument,
    /// A camera to look at beside /dev/video…
    #[cfg(feature = "daemon")]
    #[arg(long = "camera", value_name = "DEVICE")]
    cameras: Vec<PathBuf>,
    /// One JSON object instead of a list
    #[arg(long)]
    json: bool,
}

/// Everything that was found.
#[derive(Serialize)]
struct Report {
    schema: u32,
    version: &'static str,
    /// The worst of the findings.
    verdict: Verdict,
    processor: ProcessorRecord,
    memory: Option<MemoryRecord>,
    temperature_c: Option<f64>,
    /// Reasons for running slowly: `undervoltage`, `undervoltage_before`, `heat`, `heat_before`, `governor`.
    slowed: Vec<&'static str>,
    bundle: Option<BundleRecord>,
    speed: Option<Speed>,
    #[cfg(feature = "daemon")]
    cameras: Vec<CameraRecord>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct ProcessorRecord {
    model: String,
    board: Option<String>,
    cores: usize,
    architecture: &'static str,
    features: Vec<&'static str>,
    missing: Vec<&'static str>,
}

#[derive(Serialize)]
struct MemoryRecord {
    total_bytes: u64,
    available_bytes: u64,
    /// Peak of the doctor's own memory.
    peak_bytes: Option<u64>,
}

#[derive(Serialize)]
struct BundleRecord {
    folder: String,
    id: String,
    goldens: Vec<DriftRecord>,
}

#[derive(Serialize)]
struct DriftRecord {
    stage: &'static str,
    /// Largest difference; `None` for NaN, which JSON does not have.
    difference: Option<f32>,
    tolerance: f32,
    passes: bool,
}

#[cfg(feature = "daemon")]
#[derive(Serialize)]
struct CameraRecord {
    device: String,
    name: Option<String>,
    formats: Vec<FormatRecord>,
    problem: Option<String>,
}

#[cfg(feature = "daemon")]
#[derive(Serialize)]
struct FormatRecord {
    format: String,
    understood: bool,
    /// Columns and rows (pixels).
    sizes: Vec<(u32, u32)>,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    // A wrong flag is refused before anything is run.
    worker_pool(arguments.threads)?;
    let root = Path::new("/");
    let processor = Processor::of(root);
    let mut findings = vec![findings::processor(&processor)];
    let mut goldens = Vec::new();
    let mut speed = None;
    let opened = arguments.bundle.open_signed(None);
    findings.extend(opened.as_ref().ok().map(|opened| findings::trust(opened.signed.as_ref())));
    let opened = opened.map(|opened| opened.bundle);
    // Kept until the report is printed: whatever fails, the other findings are still worth reading.
    let mut broken = match &opened {
        Ok(bundle) => examine(bundle, arguments, &mut goldens, &mut speed, &mut findings).err(),
        Err(error) => {
            findings.push(findings::bundle_missing(error));
            None
        }
    };
    // After the timing, so that it has been hot and has used its memory.
    let (memory, peak, temperature, reasons) = (Memory::of(root), rss_peak(), temperature_at(root), slowed(root));
    findings.push(findings::memory(memory.as_ref(), peak));
    findings.push(findings::temperature(temperature));
    let is_pi = processor.board.as_ref().is_some_and(|board| board.contains("Raspberry Pi"));
    findings.push(findings::slowed(&reasons, is_pi && pi_firmware(root).is_none()));
    #[cfg(feature = "daemon")]
    let cameras = look_at_cameras(&arguments.cameras, &mut findings);
    findings.push(findings::cache(arguments.cache_dir.clone().or_else(cache_folder).as_deref()));
    #[cfg(feature = "daemon")]
    findings.push(findings::daemon(&arguments.socket.client()?, arguments.socket.is_named()));

    let bundle = opened.as_ref().ok().map(|bundle| BundleRecord {
        folder: bundle.folder.display().to_string(),
        id: bundle.id(),
        goldens: goldens.iter().map(DriftRecord::new).collect(),
    });
    let report = Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        verdict: findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok),
        processor: ProcessorRecord::new(&processor),
        memory: memory.map(|memory| MemoryRecord {
            total_bytes: memory.total,
            available_bytes: memory.available,
            peak_bytes: peak,
        }),
        temperature_c: temperature,
        slowed: reasons.iter().copied().map(slowed_name).collect(),
        bundle,
        speed,
        #[cfg(feature = "daemon")]
        cameras,
        findings,
    };
    let mut out = io::stdout().lock();
    if arguments.json {
        json_line(&mut out, &report)?;
    } else {
        print(&mut out, &report)?;
    }
    // The exit code is that of the first thing that fails, a bundle's before a finding's.
    if broken.is_none() {
        broken = require_goldens(&goldens).err();
    }
    if let Some(error) = opened.err().or(broken) {
        return Err(error.into());
    }
    Ok(if report.verdict == Verdict::Problem { Completion::SomeFailed } else { Completion::All })
}

/// Runs the bundle on this device: its goldens, then the clock.
fn examine(
    bundle: &Bundle,
    arguments: &Arguments,
    goldens: &mut Vec<Deviation>,
    speed: &mut Option<Speed>,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let checked = check_goldens(bundle);
    findings.push(findings::goldens(bundle, &checked));
    *goldens = checked?;
    if arguments.no_timing {
        return Ok(());
    }
    let measured =
        speed::measure(bundle, arguments.threads).inspect_err(|error| findings.push(findings::speed_unknown(error)))?;
    findings.push(findings::kernels(&measured.kernels));
    findings.push(findings::speed(&measured));
    *speed = Some(measured);
    Ok(())
}

#[cfg(feature = "daemon")]
fn look_at_cameras(named: &[PathBuf], findings: &mut Vec<Finding>) -> Vec<CameraRecord> {
    use crate::source::{look_at_camera, video_devices};
    let devices = video_devices().into_iter().chain(named.iter().cloned());
    let reports: Vec<_> = devices.map(|device| look_at_camera(&device)).collect();
    findings.extend(findings::cameras(&reports));
    reports.into_iter().map(CameraRecord::new).collect()
}

fn slowed_name(reason: Slowed) -> &'static str {
    match reason {
        Slowed::Undervoltage => "undervoltage",
        Slowed::UndervoltageBefore => "undervoltage_before",
        Slowed::Heat => "heat",
        Slowed::HeatBefore => "heat_before",
        Slowed::Governor => "governor",
    }
}

impl ProcessorRecord {
    fn new(processor: &Processor) -> Self {
        let those = |there: bool| {
            processor.features.iter().filter(move |(_, has)| *has == there).map(|(name, _)| *name).collect()
        };
        Self {
            model: processor.model.clone(),
            board: processor.board.clone(),
            cores: processor.cores,
            architecture: processor.architecture,
            features: those(true),
            missing: those(false),
        }
    }
}

impl DriftRecord {
    fn new(deviation: &Deviation) -> Self {
        let &Deviation { stage, difference, tolerance } = deviation;
        let finite = difference.is_finite().then_some(difference);
        Self { stage, difference: finite, tolerance, passes: deviation.passes() }
    }
}

#[cfg(feature = "daemon")]
impl From<crate::source::OfferedFormat> for FormatRecord {
    fn from(offered: crate::source::OfferedFormat) -> Self {
        Self { format: offered.code, understood: offered.understood, sizes: offered.sizes }
    }
}

#[cfg(feature = "daemon")]
impl CameraRecord {
    fn new(report: crate::source::CameraReport) -> Self {
        let device = report.device.display().to_string();
        match report.found {
            Ok(offered) => Self {
                device,
                name: Some(offered.name),
                formats: offered.formats.into_iter().map(FormatRecord::from).collect(),
                problem: None,
            },
            Err(error) => Self { device, name: None, formats: Vec::new(), problem: Some(error.to_string()) },
        }
    }
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    for Finding { topic, verdict, found, advice } in &report.findings {
        let mark = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "WARNING",
            Verdict::Problem => "PROBLEM",
        };
        let mut lines = found.lines();
        writeln!(out, "{topic:12} {mark:8} {}", lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(out, "{:21} {line}", "")?;
        }
        writeln!(out, "{:21} → {advice}", "")?;
    }
    Ok(())
}
