//! `rtpt bundle`: what is in a bundle, and whether it works on this device.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::bundle::{Bundle, locate_bundle};
use crate::calibration::{Calibration, RoundsCalibration};
use crate::check::{Deviation, check_goldens, require_goldens};
use crate::encoder::Layers;
use crate::setting::SettingError;
use crate::signing::{Opened, SignedFacts, make_keys, open_bundle, sign_bundle};
use crate::wording::counted;
use clap::{Args, Subcommand};
use jiff::civil::Date;

use super::settings::BundleArgument;
#[cfg(feature = "daemon")]
use super::slots;
use super::{Completion, Outcome, import, quantize};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Verify every file, and run the bundle's own goldens (reference results) on this device
    Check(Folder),
    /// Install a bundle into the slot that is not in force, and try it
    #[cfg(feature = "daemon")]
    #[command(after_help = slots::INSTALL_EXAMPLES)]
    Install(slots::InstallArguments),
    /// Show which slot is in force, and whether it is on trial
    #[cfg(feature = "daemon")]
    Slots(slots::ShowArguments),
    /// Keep the bundle that is on trial
    #[cfg(feature = "daemon")]
    Confirm(slots::SlotsArgument),
    /// Go back to the bundle before
    #[cfg(feature = "daemon")]
    Rollback(slots::SlotsArgument),
    /// Make a pair of keys to sign bundles with: NAME.key, the secret one, and NAME.pub
    Keygen(KeygenArguments),
    /// Sign a bundle, so that devices can tell whose it is and which version
    #[command(after_help = SIGN_EXAMPLES)]
    Sign(SignArguments),
    /// Make a bundle of a published CLIP model
    #[command(after_help = import::EXAMPLES)]
    Import(Box<import::Arguments>),
    /// Make a smaller and faster bundle of another: weights in int8 or f16, and how far its features are
    #[command(after_help = quantize::EXAMPLES)]
    Quantize(quantize::Arguments),
    /// Show what the bundle holds
    Info {
        #[command(flatten)]
        folder: Folder,
        /// List the class names, one per line, and nothing else
        #[arg(long)]
        classes: bool,
    },
}

const SIGN_EXAMPLES: &str = "\
Examples:
  rtpt bundle keygen maker
  rtpt bundle sign --key maker.key --bundle-version 3 my-bundle
  minisign -Sm my-bundle/manifest.json -t 'rtpt name=my-bundle version=3'";

#[derive(Args)]
struct KeygenArguments {
    /// Do not encrypt the secret key: whoever has the file can sign
    #[arg(long)]
    no_password: bool,
    /// Path of the two files without their endings
    #[arg(value_name = "NAME")]
    name: PathBuf,
}

#[derive(Args)]
struct SignArguments {
    /// Secret key, as `rtpt bundle keygen` or minisign makes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Version of the bundle; a device opens none that is lower than the highest it has had under this name
    #[arg(long, value_name = "N")]
    bundle_version: u64,
    /// Last day on which devices may open the bundle, as 2027-12-31; also after a restart
    #[arg(long, value_name = "DATE")]
    expires: Option<Date>,
    /// Folder of the bundle
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Args)]
pub(crate) struct Folder {
    /// The bundle's folder, as --bundle names it too [default: the everyday bundle]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    bundle: BundleArgument,
}

impl Folder {
    pub(crate) fn open(&self) -> crate::error::Result<Opened> {
        // What stands on the command line is meant before what stands in the environment.
        let environment = std::env::var_os("RTPT_BUNDLE").map(PathBuf::from);
        if let (Some(folder), Some(other)) = (&self.folder, &self.bundle.bundle)
            && environment.as_ref() != Some(other)
        {
            let found = format!("{}, beside the folder {}", other.display(), folder.display());
            return Err(SettingError { what: "--bundle", expected: "one of the two".into(), found }.into());
        }
        let folder = locate_bundle(self.folder.as_deref().or(self.bundle.bundle.as_deref()))?;
        open_bundle(&folder, self.bundle.trust.keys()?.as_ref())
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Command::Check(folder) => check(&folder.open()?),
        #[cfg(feature = "daemon")]
        Command::Install(arguments) => slots::install(arguments),
        #[cfg(feature = "daemon")]
        Command::Slots(arguments) => slots::show(arguments),
        #[cfg(feature = "daemon")]
        Command::Confirm(place) => slots::confirm(place),
        #[cfg(feature = "daemon")]
        Command::Rollback(place) => slots::roll_back(place),
        Command::Keygen(arguments) => keygen(arguments),
        Command::Sign(arguments) => sign(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Quantize(arguments) => quantize::run(arguments),
        Command::Info { folder, classes: false } => info(&folder.open()?),
        Command::Info { folder, classes: true } => list_classes(&folder.open()?.bundle),
    }
}

fn check(opened: &Opened) -> Outcome {
    let bundle = &opened.bundle;
    let mut out = io::stdout().lock();
    let files = counted(bundle.manifest.files.len(), "file");
    writeln!(out, "{}: {files}, sizes and digests as recorded", bundle.id())?;
    if let Some(signed) = &opened.signed {
        writeln!(out, "signed: {}", signature_line(signed))?;
    }
    let deviations = check_goldens(bundle)?;
    print_deviations(&mut out, &deviations)?;
    require_goldens(&deviations)?;
    writeln!(out, "the bundle gives its golden results on this device")?;
    Ok(Completion::All)
}

/// A table of how far each stage is from its golden.
pub(crate) fn print_deviations(out: &mut impl Write, deviations: &[Deviation]) -> io::Result<()> {
    writeln!(out, "{:10} {:>20} {:>12}", "stage", "largest difference", "tolerance")?;
    for deviation in deviations {
        let verdict = if deviation.passes() { "ok" } else { "FAILED" };
        writeln!(
            out,
            "{:10} {:>20.3e} {:>12.0e}  {verdict}",
            deviation.stage, deviation.difference, deviation.tolerance
        )?;
    }
    Ok(())
}

fn info(opened: &Opened) -> Outcome {
    let mut out = io::stdout().lock();
    print_info(&mut out, &opened.bundle)?;
    if let Some(signed) = &opened.signed {
        writeln!(out, "{:14} {}", "signed", signature_line(signed))?;
    }
    Ok(Completion::All)
}

/// What a signature says, in words.
pub(crate) fn signature_line(signed: &SignedFacts) -> String {
    let expires = signed.expires.map_or(String::new(), |date| format!(", valid to {date}"));
    format!("version {}, by the key {}{expires}", signed.version, signed.key)
}

fn keygen(arguments: &KeygenArguments) -> Outcome {
    let password = if arguments.no_password {
        None
    } else {
        let failed = |error| SettingError {
            what: "the password",
            expected: "one that is typed twice, or --no-password".into(),
            found: format!("none ({error})"),
        };
        let password = rpassword::prompt_password("Password for the secret key: ").map_err(failed)?;
        let again = rpassword::prompt_password("Password again: ").map_err(failed)?;
        if password != again || password.is_empty() {
            let found = if password.is_empty() { "an empty one" } else { "two that differ" };
            let expected = "the same password twice, or --no-password".into();
            return Err(SettingError { what: "the password", expected, found: found.into() }.into());
        }
        Some(password)
    };
    let files = make_keys(&arguments.name, password)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}: the secret key. Keep it to yourself, and keep a copy", files.secret.display())?;
    writeln!(out, "{}: the public key. Copy it into the trusted keys of the devices", files.public.display())?;
    Ok(Completion::All)
}

fn sign(arguments: &SignArguments) -> Outcome {
    let SignArguments { key, bundle_version, expires, folder } = arguments;
    let password = || rpassword::prompt_password("Password of the secret key: ");
    let signed = sign_bundle(folder, key, *bundle_version, *expires, password)?;
    let expires = signed.expires.map_or(String::new(), |date| format!(", valid to {date}"));
    let mut out = io::stdout().lock();
    writeln!(out, "{} is signed as version {} of {:?}{expires}", folder.display(), signed.version, signed.name)?;
    Ok(Completion::All)
}

/// Prints a bundle's contents, a line each.
pub(crate) fn print_info(out: &mut impl Write, bundle: &Bundle) -> io::Result<()> {
    let manifest = &bundle.manifest;
    let mut line = |name: &str, value: String| writeln!(out, "{name:14} {value}");
    line("bundle", bundle.id())?;
    line("folder", bundle.folder.display().to_string())?;
    line("description", manifest.description.clone())?;
    line("license", manifest.license.clone())?;
    let image = &manifest.image;
    line(
        "image encoder",
        format!("{}, {1}×{1} pixels to {2} numbers", image.file, image.resolution, manifest.embedding),
    )?;
    line("weights", weights_line(bundle))?;
    match (&manifest.text, &manifest.text_onnx) {
        (Some(text), _) => {
            let shape =
                format!("{} of width {}, {}", counted(text.layers, "layer"), text.width, counted(text.heads, "head"));
            line("text tower", format!("{}, {shape}, {} tokens at most", text.file, text.context_length))?;
        }
        (None, Some(text)) => {
            let tokens = format!("{} tokens at most", text.context_length);
            line("text tower", format!("{}, in ONNX, {tokens}; the method context cannot tune it", text.file))?;
        }
        (None, None) => line("text tower", "none".into())?,
    }
    line("logit scale", manifest.logit_scale.to_string())?;
    // A bundle's prompt is a context, which is one template.
    line("prompt", format!("{:?}", bundle.prompt().templates()[0]))?;
    match (&bundle.classes, &bundle.labels) {
        (Some(classes), Some(labels)) => {
            let groups = match labels.groups() {
                None => String::new(),
                Some(_) => format!(", in {}", counted(labels.names().len(), "group")),
            };
            line("classes", format!("{}, of which {} by default{groups}", classes.names.len(), labels.texts().len()))?;
        }
        _ => line("classes", "none precomputed; give --labels".into())?,
    }
    let views = &manifest.views;
    line("views", format!("{} ({:?})", views.count, views.augment).to_lowercase())?;
    if let Some(calibration) = Calibration::of(bundle) {
        let threshold = calibration.tamper.map(|tamper| format!("tamper threshold {:.3}", tamper.threshold));
        let temperature =
            calibration.temperature.as_ref().map(|fitted| format!("temperature {:.3}", fitted.temperature));
        let fitted: Vec<String> = threshold.into_iter().chain(temperature).collect();
        if !fitted.is_empty() {
            line("calibration", format!("for {}: {}", counted(calibration.views.count, "view"), fitted.join(", ")))?;
        }
        if let Some(RoundsCalibration { gate, views_max, mean_encodes, .. }) = &calibration.rounds {
            let most = counted(*views_max, "view");
            line(
                "",
                format!("rounds of up to {most}: gate {:.3}, {mean_encodes:.1} encoder runs on average", gate.bound),
            )?;
        }
    }
    line("method", manifest.method.method().to_string())?;
    for (name, value) in manifest.method.iter() {
        line("", format!("{} = {value}", name.replace('_', " ")))?;
    }
    for (name, record) in &manifest.files {
        line("file", format!("{name}, {} bytes, BLAKE3 {}", record.size, record.blake3))?;
    }
    Ok(())
}

/// What the weights are stored in, in words.
fn weights_line(bundle: &Bundle) -> String {
    // What is no model is a matter of the check.
    let Ok(layers) = Layers::of(&bundle.encoder.onnx) else { return "unknown".into() };
    let counts = [(layers.in_int8, "int8"), (layers.in_f16, "f16"), (layers.in_f32.len(), "f32")];
    let stored = counts.iter().filter(|(count, _)| *count > 0);
    let stored: Vec<String> = stored.map(|(count, kind)| format!("{} in {kind}", counted(*count, "layer"))).collect();
    if stored.is_empty() { "in no layer that is known".into() } else { stored.join(", ") }
}

fn list_classes(bundle: &Bundle) -> Outcome {
    if bundle.classes.is_none() {
        let tower = if bundle.has_text_tower() { "; it takes any labels" } else { "" };
        eprintln!("rtpt: the bundle in {} has no stored classes{tower}", bundle.folder.display());
    }
    let mut out = io::stdout().lock();
    for name in bundle.classes.iter().flat_map(|classes| &classes.names) {
        writeln!(out, "{name}")?;
    }
    Ok(Completion::All)
}
