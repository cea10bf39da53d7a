//! The methods: ways from an image's features to an answer. One table, a row a method.
//!
//! A method is a file here with a `prepare` function, and a row of [`TABLE`]; command line, reports, evaluation,
//! attacks and documents read the row.

pub mod class_lowrank;
pub mod class_shift;
mod class_tuning;
pub mod context;
pub mod dbd;
mod decision;
pub mod mta;
pub mod none;
mod parameters;
mod settings;
pub mod view_shift;
pub mod zero;
pub mod zero_shot;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ndarray::ArrayView2;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use class_lowrank::{ClassLowrank, class_basis};
pub use class_shift::ClassShift;
pub use class_tuning::Head;
pub use context::{Context, ContextModel};
pub use decision::{Decide, Decision, Tuned};
pub(crate) use parameters::{CLASS_CUTOFF, LEARNING_RATE, Parameter, RANK, SELECTION, STEPS};
pub use settings::MethodSettings;
pub(crate) use settings::serialize_as;
pub use view_shift::{ViewShift, view_basis};

use crate::products::Real;
use crate::setting::SettingError;
use parameters::WEIGHT_DECAY;

/// One method.
struct Row {
    /// Name on the command line and in files.
    name: &'static str,
    /// The line that help and documents show.
    summary: &'static str,
    /// Parameters and their defaults.
    parameters: &'static [Parameter],
    /// The views that it looks at.
    views: ViewUse,
    /// Number of views below which other methods are more often right.
    views_advised: usize,
    /// Requirements on the bundle.
    needs: Needs,
    /// Function that makes it ready for one label set.
    prepare: fn(Material<f32>, &MethodSettings) -> Box<dyn Decide<f32>>,
}

/// The views that a method looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ViewUse {
    /// The clean view; others need not be encoded.
    CleanView,
    /// All views.
    AllViews,
}

/// Requirements of a method besides features and class embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing.
    Nothing,
    /// A text tower, and a prompt that is a context.
    TextTower,
}

/// Material that a method may be prepared with.
pub struct Material<'a, T: Real> {
    /// Class embeddings T `[C, D]`, unit rows.
    pub classes: ArrayView2<'a, T>,
    /// Text tower and prompts, for methods that need them.
    pub context: Option<Arc<ContextModel<T>>>,
}

/// All methods, in the order that they are listed in.
static TABLE: &[Row] = &[
    Row {
        name: "zero-shot",
        summary: "The clean view alone, as plain CLIP",
        parameters: &[],
        views: ViewUse::CleanView,
        views_advised: 1,
        needs: Needs::Nothing,
        prepare: zero_shot::prepare,
    },
    Row {
        name: "none",
        summary: "Nothing is tuned: views are averaged by how well they agree",
        parameters: &[],
        views: ViewUse::AllViews,
        views_advised: 2,
        needs: Needs::Nothing,
        prepare: none::prepare,
    },
    Row {
        name: "class-shift",
        summary: "Tunes a shift of every class embedding",
        parameters: &[STEPS, LEARNING_RATE, SELECTION, CLASS_CUTOFF, WEIGHT_DECAY],
        views: ViewUse::AllViews,
        views_advised: 2,
        needs: Needs::Nothing,
        prepare: class_shift::prepare,
    },
    Row {
        name: "class-lowrank",
        summary: "Tunes a shift of the class embeddings within the few directions they differ most in",
        // Fewer parameters a class than class-shift: each moves further.
        parameters: &[STEPS, LEARNING_RATE.or(2e-2), SELECTION, RANK, CLASS_CUTOFF, WEIGHT_DECAY],
        views: ViewUse::AllViews,
        views_advised: 2,
        needs: Needs::Nothing,
        prepare: class_lowrank::prepare,
    },
    Row {
        name: "view-shift",
        summary: "Tunes a shift of all views within the directions they differ in (T-VSS)",
        parameters: &[STEPS, LEARNING_RATE.or(1e-1), SELECTION.or(1.0), WEIGHT_DECAY],
        views: ViewUse::AllViews,
        views_advised: 2,
        needs: Needs::Nothing,
        prepare: view_shift::prepare,
    },
    Row {
        name: "context",
        summary: "Tunes the words before the label through the text tower: R-TPT as published",
        parameters: &[STEPS, LEARNING_RATE, SELECTION, CLASS_CUTOFF, WEIGHT_DECAY],
        views: ViewUse::AllViews,
        views_advised: 2,
        needs: Needs::TextTower,
        prepare: context::prepare,
    },
    Row {
        name: "mta",
        summary: "Nothing is tuned: the answer is that of the views' mode (MTA)",
        parameters: &[],
        views: ViewUse::AllViews,
        views_advised: 2,
        needs: Needs::Nothing,
        prepare: mta::prepare,
    },
    Row {
        name: "zero",
        summary: "Nothing is tuned: the most confident views vote (ZERO)",
        parameters: &[SELECTION.or(0.3)],
        views: ViewUse::AllViews,
        views_advised: 2,
        needs: Needs::Nothing,
        prepare: zero::prepare,
    },
    Row {
        name: "dbd",
        summary: "Nothing is tuned: the clean view is moved along the mean difference of the confident views (DBD)",
        parameters: &[SELECTION.or(0.25), dbd::LAMBDA, dbd::BOUND],
        views: ViewUse::AllViews,
        views_advised: 8,
        needs: Needs::Nothing,
        prepare: dbd::prepare,
    },
];

/// The method that imported models answer with if nothing else is chosen.
const DEFAULT: &str = "view-shift";

/// A way from an image's features to an answer.
#[derive(Clone, Copy)]
pub struct Method(&'static Row);

impl Method {
    /// All methods, in the order that they are listed in.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(Self)
    }

    /// The method of this name.
    ///
    /// # Errors
    /// There is none; the message lists those that there are.
    pub fn named(name: &str) -> Result<Self, SettingError> {
        Self::all().find(|method| method.name() == name).ok_or_else(|| SettingError {
            what: "the method",
            expected: format!("one of {}", Self::all().map(Self::name).collect::<Vec<_>>().join(", ")),
            found: name.into(),
        })
    }

    /// Name of the method on the command line and in files.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The line that describes it.
    pub fn summary(self) -> &'static str {
        self.0.summary
    }

    /// Parameters of the method and their defaults.
    pub(crate) fn parameters(self) -> &'static [Parameter] {
        self.0.parameters
    }

    /// The views that it looks at.
    pub(crate) fn views(self) -> ViewUse {
        self.0.views
    }

    /// Number of views below which other methods are more often right.
    pub(crate) fn views_advised(self) -> usize {
        self.0.views_advised
    }

    /// Requirements of the method besides features and class embeddings.
    pub(crate) fn needs(self) -> Needs {
        self.0.needs
    }
}

impl MethodSettings {
    /// Makes the method ready for one label set.
    pub(crate) fn prepare(&self, material: Material<f32>) -> Box<dyn Decide<f32>> {
        (self.method().0.prepare)(material, self)
    }
}

impl Default for Method {
    fn default() -> Self {
        Self::named(DEFAULT).expect("the default is a row of the table")
    }
}

impl PartialEq for Method {
    fn eq(&self, other: &Self) -> bool {
        // Names are unique in the table. Rows hold function pointers, whose addresses say nothing about equality.
        self.name() == other.name()
    }
}

impl Eq for Method {}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` heeds the width that a table asks for; `write_str` does not.
        f.pad(self.name())
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = SettingError;

    fn from_str(name: &str) -> Result<Self, SettingError> {
        Self::named(name)
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::named(&name).map_err(serde::de::Error::custom)
    }
}
