//! The model that answers, and the labels it answers with.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::protocol::{BundleRecord, ChangeRecord, LabelsOrigin, ModelRecord};
use crate::bundle::BundleContents;
use crate::calibration::labels_digest;
use crate::classifier::Classifier;
use crate::label_set::LabelSet;
use crate::method::MethodSettings;
use crate::stream::unix_ms;

/// The model in force, which the engine sets and everybody reads.
pub(crate) struct ModelInForce {
    info: RwLock<Option<Arc<ModelInfo>>>,
    labels_origin: RwLock<LabelsOrigin>,
    change: Mutex<Option<ChangeRecord>>,
    bundle: Mutex<Option<BundleRecord>>,
}

/// A change that is being made, until it is dropped.
pub(crate) struct Changing<'a>(&'a ModelInForce);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        *self.0.change.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Description of a model that the engine works with.
pub(crate) struct ModelInfo {
    /// The bundle, but for its encoder, which is loaded.
    pub bundle: Arc<BundleContents>,
    /// The labels.
    pub labels: Arc<LabelSet>,
    /// The method and its parameters.
    pub method: MethodSettings,
    /// The record for clients.
    pub record: ModelRecord,
}

impl Default for ModelInForce {
    fn default() -> Self {
        Self {
            info: RwLock::default(),
            labels_origin: RwLock::new(LabelsOrigin::Configured),
            change: Mutex::default(),
            bundle: Mutex::default(),
        }
    }
}

impl ModelInForce {
    /// The model, once it is loaded and warm.
    pub(crate) fn info(&self) -> Option<Arc<ModelInfo>> {
        self.info.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a model in force.
    pub(crate) fn set(&self, info: &Arc<ModelInfo>) {
        *self.info.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(info));
    }

    /// Notes that a change begins, one at a time: `model`, or so many `labels`.
    pub(crate) fn begin_change(&self, what: &str, labels: Option<usize>) -> Changing<'_> {
        let record = ChangeRecord { what: what.into(), labels, since_unix_ms: unix_ms() };
        *self.change.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
        Changing(self)
    }

    /// The change that is being made.
    pub(crate) fn change(&self) -> Option<ChangeRecord> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how the bundle's slots are.
    pub(crate) fn set_bundle(&self, record: BundleRecord) {
        *self.bundle.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }

    /// How the bundle's slots are, if there are any.
    pub(crate) fn bundle(&self) -> Option<BundleRecord> {
        self.bundle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Origin of the labels.
    pub(crate) fn labels_origin(&self) -> LabelsOrigin {
        *self.labels_origin.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the origin of the labels.
    pub(crate) fn set_labels_origin(&self, origin: LabelsOrigin) {
        *self.labels_origin.write().unwrap_or_else(PoisonError::into_inner) = origin;
    }

    /// An entity tag of the labels, which changes when they do; empty without a model.
    pub(crate) fn labels_tag(&self) -> String {
        // 64 bits tell versions of one device's labels apart; nobody gains by a collision.
        self.info().map_or_else(String::new, |model| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(labels_digest(&model.labels).as_bytes());
            // Labels that are the same by name may have other identifiers.
            for id in model.labels.list.ids().into_iter().flatten() {
                hasher.update(&(id.len() as u64).to_le_bytes()).update(id.as_bytes());
            }
            format!("\"{}\"", &hasher.finalize().to_hex()[..16])
        })
    }
}

impl ModelInfo {
    /// Describes a classifier that was made with `bundle`.
    pub(crate) fn of(bundle: Arc<BundleContents>, classifier: &Classifier) -> Self {
        let extractor = classifier.extractor();
        let views = classifier.views();
        let record = ModelRecord {
            bundle: extractor.bundle_id().into(),
            folder: bundle.folder.display().to_string(),
            labels: classifier.labels().names().len(),
            method: classifier.method().method(),
            head: classifier.method().method(),
            views: views.count,
            seed: views.seed,
            batch: extractor.batch(),
            threads: extractor.pool().current_num_threads(),
            resolution: extractor.preprocessing().resolution,
        };
        Self { labels: Arc::clone(classifier.predictor().labels()), method: *classifier.method(), bundle, record }
    }
}
