//! The builder of a classifier: everything but the bundle has a default.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bundle::{Bundle, BundleError};
use crate::cache::FeatureCache;
use crate::calibration::Calibration;
use crate::classifier::{Classifier, ClassifierSettings};
use crate::error::Result;
use crate::extractor::worker_pool;
use crate::label_set::LabelSet;
use crate::labels::Labels;
use crate::method::{Method, MethodSettings};
use crate::rounds::RoundSettings;
use crate::text::Prompt;
use crate::views::{Augment, DamagedImages};

/// Settings of a [`Classifier`] that is to be built.
#[must_use = "a builder builds nothing by itself"]
pub struct ClassifierBuilder<'a> {
    bundle: &'a Bundle,
    settings: ClassifierSettings,
    labels: Option<Labels>,
    prompt: Option<Prompt>,
    cache: Option<Arc<FeatureCache>>,
    cache_folder: Option<PathBuf>,
}

impl Classifier {
    /// A builder whose settings are those that the bundle recommends.
    pub fn builder(bundle: &Bundle) -> ClassifierBuilder<'_> {
        ClassifierBuilder {
            bundle,
            settings: ClassifierSettings::of(bundle),
            labels: None,
            prompt: None,
            cache: None,
            cache_folder: None,
        }
    }

    /// A classifier into other labels, under the same prompt, that shares the loaded encoder.
    ///
    /// # Errors
    /// A label does not fit the text tower, or the bundle has no text tower and not all of the labels.
    pub fn with_labels(&self, bundle: &Bundle, labels: Labels) -> Result<Self> {
        let prompt = self.labels().prompt.clone();
        let predictor = self.extractor().pool().install(|| {
            let labels = LabelSet::new(bundle, labels, prompt, None)?;
            crate::predictor::Predictor::new(bundle, Arc::new(labels), *self.method())
        })?;
        Ok(self.with_predictor(Arc::new(predictor)))
    }
}

impl ClassifierBuilder<'_> {
    /// Labels to choose from, instead of the bundle's.
    pub fn labels(self, labels: Labels) -> Self {
        Self { labels: Some(labels), ..self }
    }

    /// Prompt around a label, instead of the bundle's.
    pub fn prompt(self, prompt: Prompt) -> Self {
        Self { prompt: Some(prompt), ..self }
    }

    /// Method, instead of the bundle's, with its own parameters.
    pub fn method(mut self, method: Method) -> Self {
        self.settings.method = self.settings.method.with_method(method);
        self
    }

    /// Method and parameters, instead of the bundle's.
    pub fn method_settings(mut self, settings: MethodSettings) -> Self {
        self.settings.method = settings;
        self
    }

    /// Number of views of an image, the clean one included (1 to 1024): more are slower and steadier.
    pub fn views(mut self, count: usize) -> Self {
        self.settings.extractor.views.count = count;
        self.settings.rounds = None;
        self
    }

    /// Number of views of an image at most (1 to 1024), where it is seen in as few as settle its answer: first the clean view and its low-passed
    /// copy, then rounds of 8, 16, 32 and 64. When rounds end is the bundle's calibration's. [`Self::views`] after it turns it off.
    pub fn views_max(mut self, count: usize) -> Self {
        self.settings.extractor.views.count = count;
        self.settings.rounds = Some(RoundSettings::UNCALIBRATED);
        self
    }

    /// Augmentation of the views.
    pub fn augment(mut self, augment: Augment) -> Self {
        self.settings.extractor.views.augment = augment;
        self
    }

    /// Seed of the views, mixed with the image's digest.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.extractor.views.seed = seed;
        self
    }

    /// Worker threads (1 to 256), one a core if nothing is said. Results do not depend on it.
    pub fn threads(mut self, threads: usize) -> Self {
        self.settings.extractor.threads = Some(threads);
        self
    }

    /// Views that the encoder takes at once (1 to 64). May change the last bits of results.
    pub fn batch(mut self, batch: usize) -> Self {
        self.settings.extractor.batch = batch;
        self
    }

    /// Treatment of damaged images: refused if nothing is said.
    pub fn damaged_images(mut self, damaged: DamagedImages) -> Self {
        self.settings.extractor.damaged = damaged;
        self
    }

    /// Cache of features.
    pub fn cache(self, cache: Arc<FeatureCache>) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Folder for label embeddings and packed weights. Without it nothing is stored.
    pub fn cache_folder(self, folder: impl AsRef<Path>) -> Self {
        Self { cache_folder: Some(folder.as_ref().into()), ..self }
    }

    /// Loads the encoder and embeds the labels.
    ///
    /// # Errors
    /// A setting is out of range, the encoder cannot be loaded, the bundle has no labels and none were given, a label
    /// does not fit, or the method needs a text tower or a prompt that is not there.
    pub fn build(self) -> Result<Classifier> {
        let Self { bundle, mut settings, labels, prompt, cache, cache_folder } = self;
        // Checked again by the classifier, but embedding labels first may take minutes.
        settings.check()?;
        // Here and not before: they depend on the views' augmentation.
        settings.rounds = settings.rounds.map(|_| Calibration::round_settings(bundle, &settings.extractor.views));
        let labels = labels.or_else(|| bundle.labels().cloned());
        let labels = labels.ok_or_else(|| BundleError::NoLabels { bundle: bundle.name().into() })?;
        let prompt = prompt.unwrap_or_else(|| bundle.prompt());
        // The extractor's own pool does not exist before the labels are embedded.
        let pool = worker_pool(settings.extractor.threads)?;
        let labels = pool.install(|| LabelSet::new(bundle, labels, prompt, cache_folder.as_deref()))?;
        Ok(Classifier::new(bundle, labels, settings, cache_folder.as_deref())?.with_cache(cache))
    }
}
