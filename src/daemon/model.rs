//! The loaded model, which the engine owns.

use std::sync::Arc;

use super::model_in_force::ModelInfo;
use crate::bundle::BundleContents;
use crate::cancellation::CancellationToken;
use crate::classifier::Classifier;
use crate::error::Result;
use crate::extractor::CacheUse;
use crate::method::Method;
use crate::predictor::Predictor;
use crate::recording::RecordedSettings;
use crate::report::png_bytes;

/// A loaded model with its settings.
pub(crate) struct Model {
    bundle: Arc<BundleContents>,
    classifier: Classifier,
    /// Methods that requests asked for, beside the model's own.
    others: Vec<Classifier>,
    recorded: Arc<RecordedSettings>,
    info: Arc<ModelInfo>,
}

impl Model {
    /// A model that has classified the bundle's golden image once, so that the first request is as fast as the next.
    ///
    /// # Errors
    /// The golden image cannot be classified.
    pub(crate) fn warmed_up(
        bundle: Arc<BundleContents>,
        classifier: Classifier,
        token: &CancellationToken,
    ) -> Result<Self> {
        let golden = png_bytes(&bundle.goldens.image);
        // Past the cache, or a second start would warm nothing.
        classifier.classify_in(&golden, classifier.plan(), CacheUse::Bypass, token)?;
        let (recorded, info) = describe(&bundle, &classifier);
        Ok(Self { bundle, classifier, others: Vec::new(), recorded, info })
    }

    /// Description for the other threads.
    pub(crate) fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    /// The classifier with the model's own method.
    pub(crate) fn own(&self) -> &Classifier {
        &self.classifier
    }

    /// The settings that a recording keeps.
    pub(crate) fn recorded(&self) -> &Arc<RecordedSettings> {
        &self.recorded
    }

    /// Puts other labels in force.
    pub(crate) fn relabel(&mut self, predictor: Arc<Predictor>) {
        self.classifier = self.classifier.with_predictor(predictor);
        // They decide among the old labels.
        self.others.clear();
        (self.recorded, self.info) = describe(&self.bundle, &self.classifier);
    }

    /// The classifier with this method, made when it is first asked for.
    pub(crate) fn with_method(&mut self, method: Option<Method>) -> Result<Classifier> {
        let own = &self.classifier;
        let Some(method) = method.filter(|&method| method != own.method().method()) else { return Ok(own.clone()) };
        if let Some(other) = self.others.iter().find(|other| other.method().method() == method) {
            return Ok(other.clone());
        }
        let (labels, settings) = (Arc::clone(own.predictor().labels()), own.method().with_method(method));
        let pool = own.extractor().pool();
        let predictor = pool.install(|| Predictor::new(&self.bundle, labels, settings))?;
        let other = own.with_predictor(Arc::new(predictor));
        // Never more than there are methods.
        self.others.push(other.clone());
        Ok(other)
    }
}

fn describe(bundle: &Arc<BundleContents>, classifier: &Classifier) -> (Arc<RecordedSettings>, Arc<ModelInfo>) {
    // One `Arc` as long as nothing changes: by it the recorder sees that its part goes on.
    let recorded = Arc::new(RecordedSettings::of(classifier, &bundle.folder, &bundle.digest));
    (recorded, Arc::new(ModelInfo::of(Arc::clone(bundle), classifier)))
}
