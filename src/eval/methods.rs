//! The methods that are compared: zero-shot classification, and every head.

use ndarray::{Array1, ArrayView2, Axis, s};

use super::record::MethodPlan;
use crate::answerer::head_model;
use crate::bundle::Bundle;
use crate::classes::LabelSet;
use crate::error::Result;
use crate::head::{HeadKind, HeadModel};
use crate::rows::scaled_products;
use crate::tuning::{TuningSettings, tune};

/// One way from features to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The clean view alone.
    ZeroShot,
    /// A head, over all views.
    Head(HeadKind),
}

impl Method {
    /// All of them, in the order they are listed in.
    pub fn all() -> Vec<Self> {
        std::iter::once(Self::ZeroShot).chain(HeadKind::ALL.map(Self::Head)).collect()
    }

    /// The name used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ZeroShot => "zero-shot",
            Self::Head(head) => head.name(),
        }
    }

    /// The method of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|method| method.name() == name)
    }
}

/// A method ready to run on one label set.
pub struct MethodRunner {
    /// Which.
    pub method: Method,
    /// Its settings; zero-shot has none that matter.
    pub settings: TuningSettings,
    model: HeadModel<f32>,
}

impl MethodRunner {
    /// Prepares a method.
    ///
    /// # Errors
    /// A setting is out of range, or the head needs a text tower or a context that is not there.
    pub fn new(bundle: &Bundle, labels: &LabelSet, method: Method, settings: TuningSettings) -> Result<Self> {
        settings.check()?;
        let model = match method {
            Method::ZeroShot => HeadModel::None,
            Method::Head(_) => head_model(bundle, labels, &settings)?,
        };
        Ok(Self { method, settings, model })
    }

    /// The settings a method has if nothing is said: the bundle's for its own head, else the published ones.
    pub fn settings_of(bundle: &Bundle, method: Method) -> TuningSettings {
        match method {
            Method::Head(head) if head == bundle.manifest.head.default => bundle.manifest.tuning(),
            Method::Head(head) => TuningSettings::of(head),
            Method::ZeroShot => TuningSettings::of(HeadKind::None),
        }
    }

    /// The answer `[C]` to features F `[V, D]`: its softmax are the probabilities.
    pub fn answer(&self, features: ArrayView2<f32>, classes: ArrayView2<f32>, scale: f32) -> Array1<f32> {
        match self.method {
            Method::ZeroShot => scaled_products(scale, features.slice(s![..1, ..]), classes).remove_axis(Axis(0)),
            Method::Head(_) => tune(features, classes, scale, &self.model, &self.settings).prediction,
        }
    }

    /// What is written into results about it.
    pub fn plan(&self) -> MethodPlan {
        let TuningSettings { steps, selection, rank, class_cutoff, optimizer, .. } = self.settings;
        let name = self.method.name().into();
        MethodPlan { name, steps, selection, rank, class_cutoff, learning_rate: optimizer.learning_rate }
    }
}
