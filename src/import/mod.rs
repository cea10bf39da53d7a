//! Import of published models as bundles: Hugging Face's and OpenCLIP's folders, or an ONNX encoder with class
//! embeddings computed elsewhere.

mod classes;
mod config;
mod error;
mod goldens;
mod source;
mod text_onnx;
mod tower;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::bundle::BundleError;
use crate::bundle::{Bundle, BundleWriter, ClassesSection, FORMAT, ImageSection, Manifest, PromptSection, TextFiles};
use crate::check::{Deviation, check_goldens, require_goldens};
use crate::encoder::{EncoderModel, EncoderShape, OnnxFile, OnnxValue};
use crate::error::{Error, Result};
use crate::files::{FileError, read_range};
use crate::labels::{Labels, read_labels};
use crate::limits::{BUNDLE_FILE_BYTES_MAX, RESOLUTION_RANGE};
use crate::method::{Method, MethodSettings};
use crate::text::{Prompt, TextModel, embed};
use crate::views::{Augment, Pixels, ViewSettings};
pub(crate) use classes::read_classes;
pub(crate) use config::read_configs;
use config::{ImageConfig, image_config};
pub(crate) use error::ImportError;
pub(crate) use source::Source as ImportSource;
use source::Source;
use text_onnx::ImportedOnnxText;
use tower::{ImportedTower, has_checkpoint};

/// File names inside an imported bundle.
const ENCODER: &str = "image_encoder.onnx";
const PROJECTION: &str = "image_projection.safetensors";
const TOWER: &str = "text_encoder.safetensors";
const TEXT_ONNX: &str = "text_encoder.onnx";
const CLASSES: &str = "classes.safetensors";
const LABELS: &str = "labels.txt";
const GOLDENS: &str = "goldens.safetensors";

/// What the model's own input side is called in messages.
pub(crate) const RESOLUTION: &str = "its input side (pixels)";

/// Input side of OpenAI's CLIP (pixels), which its configurations leave out.
const CLIP_RESOLUTION: usize = 224;

/// The model to import, and the values that its files leave out.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImportRequest {
    /// The model's folder.
    pub source: PathBuf,
    /// The vision model, if it is not in the folder under a usual name.
    pub image_onnx: Option<PathBuf>,
    /// Class embeddings computed elsewhere; then no text tower is taken.
    pub classes: Option<PathBuf>,
    /// The names of those embeddings, one a line, if the file has none.
    pub names: Option<PathBuf>,
    /// The bundle's default labels.
    pub labels: Option<PathBuf>,
    /// The prompt's context; "a photo of a" if nothing is said.
    pub context: Option<String>,
    /// A photo for the goldens; a drawn image if none is given.
    pub image: Option<Pixels>,
    /// The bundle's name; the folder's if nothing is said.
    pub name: Option<String>,
    /// One sentence about the model.
    pub description: Option<String>,
    /// Licence of the weights.
    pub license: Option<String>,
    /// Input side (pixels), if no file says it.
    pub resolution: Option<usize>,
    /// Logit scale s, if no file says it.
    pub logit_scale: Option<f32>,
}

/// A bundle that was imported and has passed its own check.
pub(crate) struct Imported {
    /// The bundle.
    pub bundle: Bundle,
    /// Distances of its check from the goldens that were just made.
    pub deviations: Vec<Deviation>,
}

/// Imports a model as the bundle `target`.
///
/// Nothing outside the source folder is read but the files that the request names. What was made is opened and checked
/// like any bundle before it gets its name.
///
/// # Errors
/// A file is missing, malformed, of another kind of model, or leads out of the folder; sizes contradict one another; or
/// the target exists or cannot be written.
pub(crate) fn import(request: &ImportRequest, target: &Path) -> Result<Imported> {
    let source = Source::open(&request.source)?;
    // Before anything is read: a target that exists is refused at once.
    let mut writer = BundleWriter::new(target)?;
    // Where there are no weights to be read, a text model in ONNX will do.
    let is_closed = request.classes.is_none() && !has_checkpoint(&source)?;
    let closed = if is_closed { ImportedOnnxText::find(&source)? } else { None };
    let (config, tower) = match (&request.classes, &closed) {
        (Some(_), _) | (None, Some(_)) => (image_config(&source, request.resolution)?, None),
        (None, None) => {
            let (text, image) = read_configs(&source)?;
            (image, Some(ImportedTower::read(&source, &text)?))
        }
    };
    let table = request.classes.as_deref().map(|path| class_table(path, request)).transpose()?;
    let embedding = match (&tower, &closed, &table) {
        (Some(tower), ..) => tower.shape.embedding,
        (None, Some(closed), _) => closed.embedding,
        (None, None, Some((_, embeddings))) => embeddings.ncols(),
        (None, None, None) => unreachable!("without class embeddings there is a tower"),
    };
    let logit_scale = logit_scale(request, tower.as_ref())?;
    let logit_bias = tower.as_ref().map(ImportedTower::logit_bias).transpose()?.flatten();
    let (image, encoder) = import_encoder(request, &source, config, tower.as_ref(), &mut writer)?;
    let text = tower.as_ref().map(|tower| tower.write(&mut writer)).transpose()?;
    let text_onnx = closed.as_ref().map(|closed| closed.write(&mut writer)).transpose()?;
    // From the bundle's own copy, so that classes and goldens come from what is shipped.
    let text_model = match (&text, &text_onnx) {
        (Some(section), _) => Some(TextFiles::open(writer.folder(), section, writer.files())?.load(embedding)?),
        (None, Some(section)) => Some(TextFiles::open_onnx(writer.folder(), section, writer.files())?.load(embedding)?),
        (None, None) => None,
    };
    let context = request.context.clone().unwrap_or_else(|| "a photo of a".into());
    let classes = classes_of(request, table, text_model.as_ref(), &context)?;
    let section = classes.as_ref().map(|classes| classes.write(&mut writer)).transpose()?;
    goldens::write(
        request.image.as_ref(),
        &goldens::Stages {
            encoder: &encoder,
            shape: EncoderShape { resolution: image.resolution, embedding },
            preprocessing: image.preprocessing(),
            logit_scale,
            classes: classes.as_ref().map(|classes| &classes.default_embeddings),
            text: text_model.as_ref(),
        },
        &mut writer,
    )?;
    // A source such as `.` has no name before it is resolved.
    let folder = request.source.canonicalize().unwrap_or_else(|_| request.source.clone());
    let folder = folder.file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned());
    writer.seal(&Manifest {
        format: FORMAT,
        name: request.name.clone().unwrap_or_else(|| folder.clone()),
        description: request.description.clone().unwrap_or_else(|| format!("Imported from {folder}.")),
        license: request.license.clone().unwrap_or_else(|| "not stated".into()),
        embedding,
        logit_scale,
        logit_bias,
        image,
        text,
        text_onnx,
        prompt: PromptSection { context },
        classes: section,
        examples: None,
        // R-TPT's views; AugMix is its choice for fine-grained label sets, and takes several times as long to make.
        views: ViewSettings { count: 64, augment: Augment::Crop, seed: 0 },
        method: MethodSettings::of(Method::default()),
        goldens: GOLDENS.into(),
        files: writer.files().clone(),
    })?;
    let bundle = Bundle::open(writer.folder())?;
    let deviations = check_goldens(&bundle)?;
    require_goldens(&deviations)?;
    // A bundle holds its encoder's bytes, and two of them may not fit.
    drop(bundle);
    Ok(Imported { bundle: Bundle::open(&writer.publish()?)?, deviations })
}

/// The logit scale that was asked for, else the checkpoint's.
fn logit_scale(request: &ImportRequest, tower: Option<&ImportedTower>) -> Result<f32> {
    let tower_scale = tower.map(ImportedTower::logit_scale).transpose()?.flatten();
    request.logit_scale.or(tower_scale).ok_or_else(|| ImportError::NoLogitScale { path: request.source.clone() }.into())
}

/// Copies the vision model, decides which output is used, and adds the projection that may be missing.
fn import_encoder(
    request: &ImportRequest,
    source: &Source,
    config: ImageConfig,
    tower: Option<&ImportedTower>,
    writer: &mut BundleWriter,
) -> Result<(ImageSection, EncoderModel)> {
    let names = ["onnx/vision_model.onnx", "vision_model.onnx"];
    let path = match &request.image_onnx {
        Some(path) => path.clone(),
        None => {
            let path = source.folder().into();
            source.find(&names)?.ok_or(ImportError::NoVisionModel { path })?
        }
    };
    let onnx = read_onnx(&path)?;
    let declared = declared_resolution(&path, &onnx)?;
    if let (Some(asked), Some(declared)) = (request.resolution, declared)
        && asked != declared
    {
        return Err(wrong(&path, RESOLUTION, &format!("{asked}, as was asked for"), declared));
    }
    let outputs = onnx.outputs();
    let named = |name: &str| outputs.iter().any(|output| output.name == name);
    // `image_embeds` is the projected embedding; `pooler_output` still lacks the projection.
    let (output, projection) = if named("image_embeds") {
        (Some("image_embeds".to_string()), None)
    } else if let Some(tower) = tower.filter(|_| named("pooler_output")) {
        // SigLIP pools what is the embedding already.
        (Some("pooler_output".to_string()), tower.visual_projection()?)
    } else if outputs.len() == 1 {
        (None, None)
    } else {
        let found: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
        return Err(wrong(&path, "the list of outputs", "image_embeds, pooler_output, or one alone", found.join(", ")));
    };
    if let Some(projection) = &projection {
        let bytes: Vec<u8> = projection.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.add(PROJECTION, &tensor_file("projection", projection.shape(), &bytes, None))?;
    }
    // Where files contradict one another, loading the encoder says so.
    let resolution = request.resolution.or(config.resolution).or(declared).unwrap_or(CLIP_RESOLUTION);
    let (least, most) = RESOLUTION_RANGE;
    if !(least..=most).contains(&resolution) {
        return Err(wrong(
            source.folder(),
            "the side of its images (pixels)",
            &format!("{least} to {most}"),
            resolution,
        ));
    }
    let section = ImageSection {
        file: ENCODER.into(),
        resolution,
        mean: config.mean,
        std: config.std,
        interpolation: config.interpolation,
        arithmetic: config.arithmetic,
        squaring: config.squaring,
        output: output.clone(),
        projection: projection.as_ref().map(|_| PROJECTION.into()),
    };
    let bytes = onnx.into_bytes();
    writer.add(ENCODER, &bytes)?;
    let model = EncoderModel { onnx: bytes.into(), output, projection };
    Ok((section, model))
}

/// An ONNX file, with weights that are stored beside it brought in.
fn read_onnx(path: &Path) -> Result<OnnxFile> {
    let bytes = read_range(path, 0, None, BUNDLE_FILE_BYTES_MAX)
        .map_err(|source| FileError::Unreadable { path: path.into(), source })?;
    let mut onnx = OnnxFile::parse(bytes)?;
    // The parent of a bare file name is empty, which is no folder to the system.
    onnx.bring_in(path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")))?;
    Ok(onnx)
}

/// The side of the square images the model declares, if it does.
fn declared_resolution(path: &Path, onnx: &OnnxFile) -> Result<Option<usize>> {
    let inputs = onnx.inputs();
    // A whole CLIP takes token numbers as well.
    let [OnnxValue { shape, .. }] = &inputs[..] else {
        let names: Vec<String> = inputs.into_iter().map(|input| input.name).collect();
        let expected = "the pixels alone: the vision model, not the whole CLIP";
        return Err(wrong(path, "the list of inputs", expected, names.join(", ")));
    };
    match shape[..] {
        [_, _, height, width] => Ok(height.filter(|_| height == width)),
        _ => Ok(None),
    }
}

/// Names and unit embeddings that were computed elsewhere.
fn class_table(path: &Path, request: &ImportRequest) -> Result<(Labels, Array2<f32>)> {
    let (names, table) = read_classes(path)?;
    let list = match (names, &request.names) {
        (_, Some(file)) => read_labels(file)?,
        (Some(names), None) => Labels::with_ids(names, None)?,
        (None, None) => {
            return Err(ImportError::NoNames { path: path.into() }.into());
        }
    };
    if list.texts().len() != table.nrows() {
        return Err(wrong(path, "the number of rows", &format!("{}, one per name", list.texts().len()), table.nrows()));
    }
    Ok((list, table))
}

/// Stored classes of the future bundle, and its default labels.
struct Classes {
    all: Labels,
    /// T `[C, D]`, a row for each of `all`.
    embeddings: Array2<f32>,
    defaults: Labels,
    /// The rows of `embeddings` for `defaults`.
    default_embeddings: Array2<f32>,
}

/// Class embeddings that were given, or those of the labels by the text tower; none if neither was given.
fn classes_of(
    request: &ImportRequest,
    table: Option<(Labels, Array2<f32>)>,
    text: Option<&TextModel>,
    context: &str,
) -> Result<Option<Classes>> {
    let labels = request.labels.as_deref().map(read_labels).transpose()?;
    let (all, embeddings) = match (table, &labels, text) {
        (Some(table), _, _) => table,
        (None, Some(labels), Some(text)) => {
            let prompt = Prompt::Context(context.into());
            prompt.check()?;
            (labels.clone(), embed(text, labels.texts(), &prompt)?)
        }
        (None, _, _) => return Ok(None),
    };
    let defaults = labels.unwrap_or_else(|| all.clone());
    let rows: HashMap<&str, usize> = all.texts().iter().map(String::as_str).zip(0..).collect();
    let row_of = |name: &String| rows.get(name.as_str()).copied();
    let chosen: Option<Vec<usize>> = defaults.texts().iter().map(row_of).collect();
    let Some(chosen) = chosen else {
        let unknown = defaults.texts().iter().find(|name| row_of(name).is_none()).cloned().unwrap_or_default();
        return Err(BundleError::UnknownLabel { label: unknown, nearest: None }.into());
    };
    let default_embeddings = embeddings.select(ndarray::Axis(0), &chosen);
    Ok(Some(Classes { all, embeddings, defaults, default_embeddings }))
}

impl Classes {
    fn write(&self, writer: &mut BundleWriter) -> Result<ClassesSection> {
        let names = serde_json::to_string(self.all.texts()).expect("strings are always JSON");
        let bytes: Vec<u8> = self.embeddings.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.add(CLASSES, &tensor_file("embeddings", self.embeddings.shape(), &bytes, Some(("names", names))))?;
        writer.add(LABELS, self.defaults.to_text()?.as_bytes())?;
        Ok(ClassesSection { file: CLASSES.into(), default_labels: LABELS.into() })
    }
}

/// A safetensors file with one f32 tensor.
fn tensor_file(name: &str, shape: &[usize], bytes: &[u8], note: Option<(&str, String)>) -> Vec<u8> {
    let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("the bytes fill the shape");
    let metadata = note.map(|(key, value)| [(key.to_string(), value)].into());
    serialize([(name, view)], metadata).expect("one tensor of the right size")
}

/// An error about a file of the model.
fn wrong(path: &Path, what: &str, expected: &str, found: impl ToString) -> Error {
    ImportError::value(path, what, expected, found).into()
}
