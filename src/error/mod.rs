//! Every way to fail: one variant each, saying what was expected, what was found and what to do.

mod class;

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use class::Category;

use crate::wording::counted;

/// The result of everything in this crate that can fail.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A cause from below that this crate does not interpret.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An input could not be opened or read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    InputUnreadable {
        /// The input.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder holds no image.
    #[error("no image in {}: expected files ending in .jpg, .jpeg, .png, .bmp or .webp; name the files themselves if they end otherwise", path.display())]
    FolderWithoutImages {
        /// The folder.
        path: PathBuf,
    },
    /// A folder is too large or too deep to walk.
    #[error("{} has more than {limit} {what}; classify its parts separately", path.display())]
    FolderTooLarge {
        /// The folder.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// A name leads out of the folder it belongs to.
    #[error("{name:?} is refused as a file of {}: {reason}", folder.display())]
    PathOutside {
        /// The folder.
        folder: PathBuf,
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A model folder is not one that can be imported.
    #[error("cannot import {}: {what} is {found}, expected {expected}", path.display())]
    Import {
        /// The file or folder.
        path: PathBuf,
        /// The part.
        what: String,
        /// What can be imported.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A folder that should be made is there already.
    #[error("{} exists already; remove it or choose another folder", path.display())]
    OutputExists {
        /// The folder.
        path: PathBuf,
    },
    /// An image file of no bytes.
    #[error("the file is empty, expected an image; was it copied to its end?")]
    ImageEmpty,
    /// An image file over the byte limit.
    #[error("the file is larger than {limit} bytes; make it smaller before classifying it")]
    ImageFileTooLarge {
        /// The bound (bytes).
        limit: u64,
    },
    /// The content is no image format that is read.
    #[error(
        "the content is {found}, not a JPEG, PNG, BMP or WebP image, whatever the name says; convert it to JPEG, as with heif-convert or ImageMagick"
    )]
    ImageFormatUnknown {
        /// What it is by its first bytes.
        found: &'static str,
    },
    /// The image claims sides that are 0 or past the limits.
    #[error(
        "the image claims {width}×{height} pixels, expected sides of 1 to {side_max} and at most {pixels_max} pixels in all; make it smaller"
    )]
    ImageSize {
        /// Claimed columns.
        width: u32,
        /// Claimed rows.
        height: u32,
        /// Largest side (pixels).
        side_max: u32,
        /// Largest area (pixels).
        pixels_max: u64,
    },
    /// The image is damaged or cut short.
    #[error("the image cannot be decoded: {source}; it is damaged or cut short, get it again")]
    ImageCorrupt {
        /// What the decoder said.
        source: Cause,
    },
    /// The encoder gave NaN or infinity for a view.
    #[error(
        "the features of view {view} are not finite (dimension {dimension} is {value}); the model is damaged or overflows, run `rtpt bundle check`"
    )]
    FeaturesNotFinite {
        /// Index of the view.
        view: usize,
        /// Index of the first such dimension.
        dimension: usize,
        /// What was found there.
        value: f32,
    },
    /// The encoder gave an embedding of length 0.
    #[error("the features of view {view} are all zero and have no direction; run `rtpt bundle check`")]
    FeaturesZero {
        /// Index of the view.
        view: usize,
    },

    /// Nobody waits for the result any more.
    #[error("the work was cancelled: the client hung up or its deadline passed")]
    Cancelled,

    /// No bundle was named and none was found.
    #[error("no bundle found; give one with --bundle DIR or RTPT_BUNDLE (looked in: {})", tried.join(", "))]
    BundleNotFound {
        /// The folders that were looked in.
        tried: Vec<String>,
    },
    /// The bundle path is not a folder with a manifest.
    #[error("{} is not a bundle: {reason}; expected a folder with a manifest.json", path.display())]
    BundleNotFolder {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// A file of the bundle could not be read.
    #[error("cannot read {} of the bundle: {source}; copy the bundle again", path.display())]
    BundleFileUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the bundle is over its limit.
    #[error("{} is {found} bytes long, expected at most {limit}; this is not a bundle this version can read", path.display())]
    BundleFileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size (bytes).
        found: u64,
        /// The bound (bytes).
        limit: u64,
    },
    /// The manifest is not the JSON it should be.
    #[error("{} is not a valid manifest: {source}; copy or export the bundle again", path.display())]
    ManifestSyntax {
        /// The manifest.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The manifest is of another format version.
    #[error("the bundle has format version {found}, expected {supported}; export it again or use the matching rtpt")]
    ManifestVersion {
        /// Version in the manifest.
        found: u64,
        /// Version of this program.
        supported: u64,
    },
    /// A value of the manifest makes no sense.
    #[error("the manifest's {field} is {found}, expected {expected}; export the bundle again")]
    ManifestValue {
        /// Name of the field.
        field: String,
        /// What is allowed.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A file named by the manifest, or needed, is not there.
    #[error("{} is missing from the bundle; copy the bundle again, with all its files", path.display())]
    BundleFileMissing {
        /// The file.
        path: PathBuf,
    },
    /// A file of the bundle has other bytes than the manifest says.
    #[error("{} has {what} {found}, the manifest says {expected}; the file is damaged or was changed, copy the bundle again", path.display())]
    BundleFileDiffers {
        /// The file.
        path: PathBuf,
        /// `size` or `BLAKE3 digest`.
        what: &'static str,
        /// From the manifest.
        expected: String,
        /// From the file.
        found: String,
    },
    /// A tensor file is malformed, or a tensor is not as it should be.
    #[error("{file}: {what} is {found}, expected {expected}; get the file again, or export it again")]
    Tensor {
        /// File name.
        file: String,
        /// The tensor or part.
        what: String,
        /// What is allowed.
        expected: String,
        /// What was there.
        found: String,
    },
    /// Something was asked for that only a text tower can do.
    #[error(
        "the bundle {bundle} has no text tower, so it knows only its own classes under its own prompt; use --labels with names from `rtpt bundle info --classes`, or a bundle with a text tower"
    )]
    NoTextTower {
        /// Its name.
        bundle: String,
    },
    /// The bundle has no default labels and none were given.
    #[error("the bundle {bundle} has no labels of its own; give some with --labels FILE, one a line")]
    NoLabels {
        /// Its name.
        bundle: String,
    },
    /// A tokenizer's file cannot be used with the text tower.
    #[error("the tokenizer {file} cannot be used: {problem}; take the one that belongs to the model")]
    Tokenizer {
        /// File name.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// The text tower gave NaN, infinity or nothing for a label.
    #[error(
        "the text tower gives {label:?} an embedding that is not finite or has no direction; the model is damaged or overflows, run `rtpt bundle check`"
    )]
    EmbeddingNotFinite {
        /// The label.
        label: String,
    },
    /// The encoder could not be loaded.
    #[error("the image encoder cannot be {stage}: {source}; the file is damaged or uses operators tract does not run")]
    EncoderLoad {
        /// Which step failed.
        stage: &'static str,
        /// What tract said.
        source: Cause,
    },
    /// The encoder's input or output has another shape than the manifest says.
    #[error("the image encoder's {what} is {found}, expected {expected} from the manifest; export the bundle again")]
    EncoderShape {
        /// `input` or `output`.
        what: &'static str,
        /// From the manifest.
        expected: String,
        /// From the model.
        found: String,
    },
    /// The encoder failed while running.
    #[error("the image encoder failed: {source}; run `rtpt bundle check`")]
    EncoderRun {
        /// What tract said.
        source: Cause,
    },
    /// The bundle's own goldens were not reproduced on this device.
    #[error(
        "the bundle's goldens are not reproduced: {stage} differs by {difference:e}, tolerance {tolerance:e}; do not trust this bundle on this device"
    )]
    GoldenMismatch {
        /// First stage that is off.
        stage: &'static str,
        /// Largest absolute difference.
        difference: f32,
        /// What is allowed.
        tolerance: f32,
    },

    /// The labels file could not be read.
    #[error("cannot read the labels file {}: {source}; {}", path.display(), labels_hint(path))]
    LabelsUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The labels file is not text, or too large.
    #[error("the labels file {} {problem}; expected UTF-8 text, one label a line", path.display())]
    LabelsMalformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Too few or too many labels.
    #[error("{} given, expected {min} to {max}: one label alone cannot be told from anything", counted(*found, "label"))]
    LabelCount {
        /// How many were given.
        found: usize,
        /// Fewest.
        min: usize,
        /// Most.
        max: usize,
    },
    /// A label is given twice.
    #[error("the label {label:?} is given twice (entries {first} and {second}); remove one")]
    LabelDuplicate {
        /// The label.
        label: String,
        /// First entry, from 1.
        first: usize,
        /// Second entry, from 1.
        second: usize,
    },
    /// The bundle has no embedding for a label.
    #[error("the bundle has no class named {label:?}{}; `rtpt bundle info --classes` lists them", suggest(nearest))]
    LabelUnknown {
        /// The label.
        label: String,
        /// The most similar class name, if one is near.
        nearest: Option<String>,
    },
    /// A label's prompt has more tokens than the text tower takes.
    #[error("the label {label:?} makes a prompt of {tokens} tokens, expected at most {limit}; shorten it")]
    LabelTooLong {
        /// The label.
        label: String,
        /// Tokens of its prompt, start and end included.
        tokens: usize,
        /// The tower's context length.
        limit: usize,
    },
    /// A text has no usable tokens.
    #[error("the text {text:?} {problem}")]
    TextTokens {
        /// The text.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// A data set is not what it should be; everything that is wrong is listed, up to a bound.
    #[error("the data set {} cannot be used, nothing was encoded; {}:{}", path.display(), counted(*count, "problem"), listed(shown, *count))]
    DataSet {
        /// The file or folder.
        path: PathBuf,
        /// How many problems there are.
        count: usize,
        /// The first of them, with file and line.
        shown: Vec<String>,
    },
    /// The results of an evaluation cannot be continued or put together.
    #[error("the results in {} cannot be used: {problem}", path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A setting is out of its range.
    #[error("{what} is {found}, expected {expected}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// What is allowed.
        expected: String,
        /// What was asked.
        found: String,
    },

    /// A label is no words.
    #[error("the label {label:?} {problem}; a label is words, such as \"sea horse\"")]
    LabelNotWords {
        /// The label.
        label: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A configuration file cannot be used.
    #[error("the configuration {} {problem}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// What was named as a source of frames is none.
    #[error("the source {spec:?} {problem}")]
    SourceSpec {
        /// As it was given.
        spec: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A recording cannot be used.
    #[error("the recording in {} {problem}", path.display())]
    Recording {
        /// Its folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },

    /// Another daemon has a socket or a folder.
    #[error("another daemon has {}{}; stop it, or give this one its own with {flag}", path.display(), by(holder))]
    InUse {
        /// The socket or folder.
        path: PathBuf,
        /// The other's process.
        holder: Option<String>,
        /// The flag that names another.
        flag: &'static str,
    },
    /// A daemon cannot listen.
    #[error(
        "cannot listen on {address}: {source}; is the folder there, may it be written, or has another program the port?"
    )]
    Listen {
        /// Socket file or TCP address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// No daemon answers.
    #[error("no daemon answers on {}: {problem}; start one with `rtpt serve`, or name its socket with --socket", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What happened.
        problem: String,
    },
    /// A daemon's socket may not be used.
    #[error("this user may not use the daemon's socket {}; ask with sudo, or let the group video ask, with rtpt.socket", path.display())]
    SocketDenied {
        /// The socket.
        path: PathBuf,
    },
    /// A daemon refused a request.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its name of the error.
        kind: String,
        /// Its message.
        message: String,
    },

    /// A caller's own input or output failed, as in `std::fs::read`.
    #[error("cannot read or write: {0}")]
    Io(#[from] io::Error),
    /// A file could not be written.
    #[error("cannot write {}: {source}; check the folder, its permissions and free space", path.display())]
    OutputUnwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn suggest(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or(String::new(), |name| format!(", did you mean {name:?}?"))
}

/// What to do about a labels file that is not there; who wrote labels instead of a file's name is shown how to make one.
fn labels_hint(path: &Path) -> String {
    let name = path.to_string_lossy();
    if !name.contains(',') || name.contains('/') {
        return "a labels file is UTF-8 text, one label a line".into();
    }
    let lines: String = name.split(',').map(|label| label.trim().replace('\'', "'\\''") + "\\n").collect();
    format!("this takes a file with one label a line: make it with  printf '{lines}' > my.txt  and name my.txt")
}

fn by(holder: &Option<String>) -> String {
    holder.as_ref().map_or(String::new(), |holder| format!(" ({holder})"))
}

fn listed(problems: &[String], count: usize) -> String {
    let mut text: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    if count > problems.len() {
        text += &format!("\n  and {} more", count - problems.len());
    }
    text
}
