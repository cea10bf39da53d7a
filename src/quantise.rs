//! A bundle whose towers have their weights stored in fewer bits, made from another, and how far its features are from that one's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ndarray::{Array2, Array4, ArrayView4, Axis};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::bundle::{Bundle, BundleError, BundleWriter, GOLDEN_NAMES_IN_F32, Manifest};
use crate::check::{Deviation, check_goldens, golden_features, require_goldens};
use crate::encoder::{Encoder, EncoderModel, EncoderShape, INT8_OPERATORS_MIN, Layer, Layers, StoredIn, stored_in};
use crate::error::{Category, Class, ProgramLayer, Result};
use crate::files::FileError;
use crate::label_set::LabelSet;
use crate::products::scaled_products;
use crate::rows::dot;
use crate::text::{Prompt, TextModel, TextTower, Tower, TowerBits, WeightsFile, embed, tower_in};
use crate::views::clean_view_array;

/// Images on which layers are compared with one another.
const COMPARED_IMAGES: usize = 8;
/// Labels whose embeddings are compared, at most.
const COMPARED_LABELS: usize = 256;

/// A bundle that cannot be stored in less.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuantiseError {
    /// A model without weights in f32.
    #[error("no product of the image encoder has its weights in f32, expected a bundle as it was imported")]
    NothingInF32,
    /// A model of an older ONNX.
    #[error(
        "the image encoder is of version {found} of ONNX's operators, expected {INT8_OPERATORS_MIN} or later for weights in int8; export it again"
    )]
    Operators {
        /// Version of the model.
        found: i64,
    },
    /// A layer that is not there.
    #[error("no layer's name begins with {name:?}, expected one of {}", layers.join(", "))]
    UnknownLayer {
        /// The name.
        name: String,
        /// Those that there are.
        layers: Vec<String>,
    },
    /// Features that are too far from the first bundle's.
    #[error(
        "the features would be off by {found:.1e} (1 - cosine) with {what}, expected at most {limit:.1e}; nothing was written"
    )]
    Deviation {
        /// What was tried last.
        what: String,
        /// Deviation of the worst image.
        found: f32,
        /// The bound.
        limit: f32,
    },
}

impl ProgramLayer for QuantiseError {
    fn class(&self) -> Class {
        match self {
            Self::NothingInF32 | Self::Operators { .. } => (Category::Bundle, "quantize"),
            Self::UnknownLayer { .. } => (Category::Usage, "setting"),
            Self::Deviation { .. } => (Category::Bundle, "quantize_deviation"),
        }
    }
}

/// What to store a bundle's weights in, and how far its features may be from it.
#[derive(Clone, Debug)]
pub(crate) struct QuantiseRequest {
    /// What weights are stored in.
    pub stored: StoredIn,
    /// Beginnings of the names of layers that stay in f32.
    pub keep: Vec<String>,
    /// Largest 1 - cosine of an image's features.
    pub max_deviation: f32,
    /// Clean views `[N, 3, R, R]` of the images to measure on; those of the golden image if there are none.
    pub views: Option<Array4<f32>>,
}

/// A layer, and what it costs to store it in less.
#[derive(Clone, Debug)]
pub(crate) struct LayerCost {
    /// The layer.
    pub layer: Layer,
    /// Largest 1 - cosine of an image's features with this layer alone stored in less.
    pub cost: f32,
}

/// Distance of features from those of another encoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FeatureChange {
    /// Images that it was measured on.
    pub images: usize,
    /// Least cosine.
    pub least: f32,
    /// Mean cosine.
    pub mean: f32,
    /// Share of images with the same best class, if the bundle has classes.
    pub agreement: Option<f64>,
}

/// A bundle that was stored in less and has passed its own check.
pub(crate) struct Quantised {
    /// The bundle.
    pub bundle: Bundle,
    /// Distances of its check from the goldens that were just made.
    pub deviations: Vec<Deviation>,
    /// Layers and their costs, the most costly first; empty where costs were not measured.
    pub costs: Vec<LayerCost>,
    /// Names of the layers that stayed in f32.
    pub kept: Vec<String>,
    /// Number of layers that are stored in less.
    pub stored: usize,
    /// Distance of the features from the first bundle's.
    pub change: FeatureChange,
    /// Distance of the text tower's embeddings, if there is one that was not to be kept.
    pub texts: Option<TextChange>,
}

/// Distance of texts' embeddings from those of another text tower.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextChange {
    /// Texts that it was measured on.
    pub texts: usize,
    /// Least cosine.
    pub least: f32,
    /// True if it is within the bound, so that the tower is stored in less.
    pub is_stored: bool,
}

/// A text tower that is stored in less.
struct SmallTower {
    bytes: Vec<u8>,
    model: TextModel,
    change: TextChange,
}

/// Stores the weights of a bundle's encoder in less, as the bundle `target`.
///
/// Where the features are past the bound, the layers that cost most stay in f32. `advance` is called with the number of encoders that were
/// measured and, as far as it is known, of all.
///
/// # Errors
/// The encoder has nothing to be stored in less, a layer to keep is not there, the features are past the bound whatever is kept, or the target
/// exists or cannot be written.
pub(crate) fn quantise(
    bundle: &Bundle,
    request: &QuantiseRequest,
    target: &Path,
    advance: &mut dyn FnMut(usize, usize),
) -> Result<Quantised> {
    let writer = BundleWriter::new(target)?;
    let layers = Layers::of(&bundle.encoder.onnx)?;
    if request.stored == StoredIn::Int8 && layers.operators < INT8_OPERATORS_MIN {
        return Err(QuantiseError::Operators { found: layers.operators }.into());
    }
    // The text tower is one layer, by the name of its file.
    let tower = bundle.manifest.text.as_ref().map(|section| section.file.clone());
    let names: Vec<String> = layers.in_f32.iter().map(|layer| layer.name.clone()).chain(tower.clone()).collect();
    if let Some(unknown) = request.keep.iter().find(|keep| !names.iter().any(|name| name.starts_with(keep.as_str()))) {
        return Err(QuantiseError::UnknownLayer { name: unknown.clone(), layers: names }.into());
    }
    let is_kept = |name: &str| request.keep.iter().any(|keep| name.starts_with(keep.as_str()));
    let (asked, open): (Vec<Layer>, Vec<Layer>) = layers.in_f32.into_iter().partition(|layer| is_kept(&layer.name));
    if open.is_empty() {
        return Err(QuantiseError::NothingInF32.into());
    }
    let golden = clean_view_array(&bundle.goldens.image, &bundle.manifest.preprocessing()).insert_axis(Axis(0));
    let trial = Trial::new(bundle, request.views.clone().unwrap_or(golden))?;
    let is_int8 = request.stored == StoredIn::Int8;
    let count = if is_int8 { open.len() + 1 } else { 1 };
    let mut costs = Vec::new();
    if is_int8 {
        for (done, layer) in open.iter().enumerate() {
            advance(done, count);
            let model = trial.stored(request.stored, |name| name == layer.name)?;
            costs.push(LayerCost { layer: layer.clone(), cost: trial.cost(&model)? });
        }
        costs.sort_by(|one, other| other.cost.total_cmp(&one.cost));
    } else {
        costs.extend(open.iter().map(|layer| LayerCost { layer: layer.clone(), cost: 0.0 }));
    }
    advance(count - 1, count);
    let (model, change, first) = within_bound(&trial, request, &costs)?;
    let kept: Vec<String> =
        costs[..first].iter().map(|cost| &cost.layer).chain(&asked).map(|layer| layer.name.clone()).collect();
    let stored = costs.len() - first;
    let small = match tower.filter(|file| !is_kept(file)).and(bundle.text_weights()?) {
        Some(weights) => Some(small_tower(bundle, &weights, request)?),
        None => None,
    };
    let texts = small.as_ref().map(|small| small.change);
    let small = small.filter(|small| small.change.is_stored);
    let (bundle, deviations) = write(&trial, &model, small, writer)?;
    if !is_int8 {
        costs.clear();
    }
    Ok(Quantised { bundle, deviations, costs, kept, stored, change, texts })
}

/// The bundle's text tower stored in less, and how far it is from the one that is not.
fn small_tower(bundle: &Bundle, weights: &WeightsFile, request: &QuantiseRequest) -> Result<SmallTower> {
    let bits = match request.stored {
        StoredIn::Int8 => TowerBits::Int8,
        StoredIn::F16 => TowerBits::F16,
    };
    let bytes = tower_in(weights, bits)?;
    let before = bundle.text_model()?;
    let Tower::Known(tower) = &before.tower else { unreachable!("a tower with weights is known") };
    let weights = WeightsFile::from_bytes("the text tower stored in less", bytes.clone())?;
    let tower = TextTower::load(weights, tower.shape())?;
    let model = TextModel { tokenizer: before.tokenizer.clone(), tower: Tower::Known(tower.into()) };
    let (names, prompt) = match (&bundle.labels, &bundle.goldens.texts) {
        (Some(labels), _) => (labels.texts().to_vec(), bundle.prompt()),
        (None, Some(golden)) => (golden.texts.clone(), Prompt::Templates(vec!["{}".into()])),
        (None, None) => (["dog", "car", "house", "tree"].map(String::from).to_vec(), bundle.prompt()),
    };
    let names = &names[..names.len().min(COMPARED_LABELS)];
    let (one, other) = (embed(&before, names, &prompt)?, embed(&model, names, &prompt)?);
    let cosines = one.rows().into_iter().zip(other.rows()).map(|(one, other)| dot(one, other));
    let least = cosines.fold(1.0, f32::min);
    let change = TextChange { texts: names.len(), least, is_stored: 1.0 - least <= request.max_deviation };
    Ok(SmallTower { bytes, model, change })
}

/// The model with as many layers in less as the bound allows, its features' distance, and how many of the most costly stay in f32.
fn within_bound(
    trial: &Trial,
    request: &QuantiseRequest,
    costs: &[LayerCost],
) -> Result<(EncoderModel, FeatureChange, usize)> {
    let without = |first: usize| -> Result<(EncoderModel, FeatureChange)> {
        let chosen = |name: &str| costs[first..].iter().any(|cost| cost.layer.name == name);
        let model = trial.stored(request.stored, chosen)?;
        let change = trial.change(&model)?;
        Ok((model, change))
    };
    let passes = |change: &FeatureChange| 1.0 - change.least <= request.max_deviation;
    let (model, change) = without(0)?;
    if passes(&change) {
        return Ok((model, change, 0));
    }
    drop(model);
    // The fewest that must stay, if those that are kept are always the most costly.
    let (mut too_few, mut enough) = (0, costs.len());
    let mut found = None;
    while too_few + 1 < enough {
        let middle = usize::midpoint(too_few, enough);
        let (model, change) = without(middle)?;
        if passes(&change) {
            enough = middle;
            found = Some((model, change));
        } else {
            too_few = middle;
        }
    }
    match found {
        Some((model, change)) => Ok((model, change, enough)),
        None => {
            let (_, change) = without(costs.len() - 1)?;
            let what = format!("a single layer stored in less, {}", costs[costs.len() - 1].layer.name);
            Err(QuantiseError::Deviation { what, found: 1.0 - change.least, limit: request.max_deviation }.into())
        }
    }
}

/// The images that encoders are measured on, with the first encoder's features.
struct Trial<'a> {
    bundle: &'a Bundle,
    shape: EncoderShape,
    views: Array4<f32>,
    features: Array2<f32>,
    classes: Option<Array2<f32>>,
}

impl<'a> Trial<'a> {
    fn new(bundle: &'a Bundle, views: Array4<f32>) -> Result<Self> {
        let shape = EncoderShape { resolution: bundle.manifest.image.resolution, embedding: bundle.manifest.embedding };
        let features = Encoder::load(&bundle.encoder, shape, 1)?.encode(views.view())?;
        let classes = bundle.labels.is_some().then(|| LabelSet::of(bundle)).transpose()?;
        let classes = classes.map(|labels| labels.embeddings.clone());
        Ok(Self { bundle, shape, views, features, classes })
    }

    fn stored(&self, stored: StoredIn, chosen: impl Fn(&str) -> bool) -> Result<EncoderModel> {
        let onnx = stored_in(&self.bundle.encoder.onnx, stored, chosen)?.into();
        let EncoderModel { output, projection, .. } = self.bundle.encoder.clone();
        Ok(EncoderModel { onnx, output, projection })
    }

    fn cosines(&self, model: &EncoderModel, views: ArrayView4<f32>) -> Result<(Array2<f32>, Vec<f32>)> {
        let features = Encoder::load(model, self.shape, 1)?.encode(views)?;
        let pairs = features.rows().into_iter().zip(self.features.rows());
        let cosines = pairs.map(|(one, other)| dot(one, other)).collect();
        Ok((features, cosines))
    }

    /// Largest 1 - cosine among a few images.
    fn cost(&self, model: &EncoderModel) -> Result<f32> {
        let few = self.views.len_of(Axis(0)).min(COMPARED_IMAGES);
        let (_, cosines) = self.cosines(model, self.views.slice_axis(Axis(0), (..few).into()))?;
        Ok(1.0 - cosines.into_iter().fold(1.0, f32::min))
    }

    fn change(&self, model: &EncoderModel) -> Result<FeatureChange> {
        let (features, cosines) = self.cosines(model, self.views.view())?;
        let images = cosines.len();
        let agreement = self.classes.as_ref().map(|classes| {
            let best = |features: &Array2<f32>| -> Vec<usize> {
                scaled_products(1.0, features.view(), classes.view())
                    .rows()
                    .into_iter()
                    .map(|row| {
                        let best = row.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1));
                        best.map_or(0, |(class, _)| class)
                    })
                    .collect()
            };
            let same = best(&features).iter().zip(best(&self.features)).filter(|(one, other)| *one == other).count();
            same as f64 / images as f64
        });
        let mean = cosines.iter().sum::<f32>() / images as f32;
        Ok(FeatureChange { images, least: cosines.into_iter().fold(1.0, f32::min), mean, agreement })
    }
}

/// Writes the bundle with another encoder, and another text tower if one is given, and checks it.
fn write(
    trial: &Trial,
    model: &EncoderModel,
    tower: Option<SmallTower>,
    mut writer: BundleWriter,
) -> Result<(Bundle, Vec<Deviation>)> {
    let from = trial.bundle;
    let manifest = &from.manifest;
    let mut made = vec![&manifest.image.file, &manifest.goldens];
    made.extend(manifest.text.as_ref().filter(|_| tower.is_some()).map(|section| &section.file));
    for (name, record) in &manifest.files {
        if made.contains(&name) {
            continue;
        }
        let (source, copy) = (from.folder.join(name), writer.folder().join(name));
        fs::copy(&source, &copy).map_err(|source| FileError::Unwritable { path: copy.clone(), source })?;
        writer.record(name)?;
        let found = &writer.files()[name];
        if found != record {
            let (expected, found) = (record.blake3.clone(), found.blake3.clone());
            return Err(BundleError::FileDiffers { path: source, what: "BLAKE3 digest", expected, found }.into());
        }
    }
    writer.add(&manifest.image.file, &model.onnx.bytes()?)?;
    writer.add(&manifest.goldens, &goldens(trial, model, tower.as_ref().map(|tower| &tower.model))?)?;
    if let (Some(tower), Some(section)) = (tower, &manifest.text) {
        writer.add(&section.file, &tower.bytes)?;
    }
    writer.seal(&Manifest { files: writer.files().clone(), ..manifest.clone() })?;
    let bundle = Bundle::open(writer.folder())?;
    let deviations = check_goldens(&bundle)?;
    require_goldens(&deviations)?;
    drop(bundle);
    Ok((Bundle::open(writer.publish()?)?, deviations))
}

/// The goldens of a bundle with the features and logits of another encoder, and the texts of another tower if one is given.
fn goldens(trial: &Trial, model: &EncoderModel, tower: Option<&TextModel>) -> Result<Vec<u8>> {
    let from = trial.bundle;
    let name = &from.manifest.goldens;
    let path = from.folder.join(name);
    let bytes = fs::read(&path).map_err(|source| FileError::Unreadable { path, source })?;
    let view = clean_view_array(&from.goldens.image, &from.manifest.preprocessing()).insert_axis(Axis(0));
    let classes = trial.classes.as_ref().map(|classes| classes.view());
    let mut new = golden_features(model, trial.shape, view.view(), from.manifest.logit_scale, classes)?;
    let floats = |values: &Array2<f32>| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let texts = match (tower, &from.goldens.texts) {
        (Some(tower), Some(golden)) => Some(embed(tower, &golden.texts, &Prompt::Templates(vec!["{}".into()]))?),
        _ => None,
    };
    new.extend(texts.map(|texts| ("text_features", texts)));
    let new: BTreeMap<&str, (Vec<usize>, Vec<u8>)> =
        new.iter().map(|(name, values)| (*name, (values.shape().to_vec(), floats(values)))).collect();
    let malformed = |error: safetensors::SafeTensorError| BundleError::FileUnreadable {
        path: from.folder.join(name),
        source: std::io::Error::other(error),
    };
    let file = SafeTensors::deserialize(&bytes).map_err(malformed)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(malformed)?;
    let mut tensors: BTreeMap<String, TensorView> = file.tensors().into_iter().collect();
    // Also those that the weights had in f32 and do not have any more.
    tensors.retain(|name, _| !GOLDEN_NAMES_IN_F32.contains(&name.as_str()));
    for (name, (shape, bytes)) in &new {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("the bytes fill the shape");
        tensors.insert((*name).into(), view);
    }
    Ok(serialize(tensors, header.metadata().clone()).map_err(malformed)?)
}
