//! The parameters that methods share, and what one may be.

use crate::limits::{CLASS_CUTOFF_MAX, EMBEDDING_MAX, LEARNING_RATE_MAX, TUNING_STEPS_MAX};
use crate::setting::SettingError;

/// A number that a method can be given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    /// Name in files and for users.
    pub name: &'static str,
    /// Shorter name that users may give; empty if there is none.
    pub short: &'static str,
    /// Noun phrase for messages.
    pub what: &'static str,
    /// Value if none is given.
    pub default: f64,
    /// Allowed values.
    pub range: Range,
    /// True if only whole numbers are allowed.
    pub whole: bool,
}

/// An interval of numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Range {
    /// Both ends belong to it.
    Closed(f64, f64),
    /// The upper end belongs to it.
    Above(f64, f64),
    /// The lower end belongs to it.
    Below(f64, f64),
}

impl Parameter {
    /// The same parameter with another default.
    pub(crate) const fn or(self, default: f64) -> Self {
        Self { default, ..self }
    }

    /// Range check of a value.
    ///
    /// # Errors
    /// The value is out of range.
    pub(super) fn check(&self, value: f64) -> Result<(), SettingError> {
        // NaN is in no range: every comparison with it is false.
        let fits = match self.range {
            Range::Closed(least, most) => value >= least && value <= most,
            Range::Above(least, most) => value > least && value <= most,
            Range::Below(least, most) => value >= least && value < most,
        };
        if fits && (!self.whole || value.fract() == 0.0) {
            return Ok(());
        }
        let whole = if self.whole && value.fract() != 0.0 { "a whole number, " } else { "" };
        let interval = match self.range {
            Range::Closed(least, most) => format!("{least} to {most}"),
            Range::Above(least, most) => format!("above {least}, up to {most}"),
            Range::Below(least, most) => format!("{least} to less than {most}"),
        };
        Err(SettingError { what: self.what, expected: format!("{whole}{interval}"), found: value.to_string() })
    }
}

/// Optimiser steps (R-TPT: 1).
pub(crate) const STEPS: Parameter = Parameter {
    name: "steps",
    short: "",
    what: "the number of tuning steps",
    default: 1.0,
    range: Range::Closed(1.0, TUNING_STEPS_MAX as f64),
    whole: true,
};

/// AdamW's learning rate (R-TPT: 5e-3).
///
/// A first AdamW step moves every parameter by the learning rate, so the rate belongs to the method.
pub(crate) const LEARNING_RATE: Parameter = Parameter {
    name: "learning_rate",
    short: "lr",
    what: "the learning rate",
    default: 5e-3,
    range: Range::Above(0.0, LEARNING_RATE_MAX),
    whole: false,
};

/// AdamW's decoupled weight decay.
pub(crate) const WEIGHT_DECAY: Parameter = Parameter {
    name: "weight_decay",
    short: "",
    what: "the weight decay",
    default: 0.01,
    range: Range::Closed(0.0, 1.0),
    whole: false,
};

/// Fraction of the views, those of least entropy, that a method looks at (R-TPT: 0.1).
pub(crate) const SELECTION: Parameter = Parameter {
    name: "selection",
    short: "",
    what: "the fraction of selected views",
    default: 0.1,
    range: Range::Above(0.0, 1.0),
    whole: false,
};

/// Directions that classes are shifted in (count).
pub(crate) const RANK: Parameter = Parameter {
    name: "rank",
    short: "",
    what: "the rank",
    default: 32.0,
    range: Range::Closed(1.0, EMBEDDING_MAX as f64),
    whole: true,
};

/// Probability (0–1) below which, in every view, a class is left out of tuning; 0 for none.
pub(crate) const CLASS_CUTOFF: Parameter = Parameter {
    name: "class_cutoff",
    short: "cutoff",
    what: "the class cut-off",
    default: 0.0,
    range: Range::Below(0.0, CLASS_CUTOFF_MAX),
    whole: false,
};
