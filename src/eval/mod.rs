//! Measuring: data sets, every method in one pass over the features, what the field reports of it, and reports.

pub(crate) mod dataset;
mod error;
mod fitting;
mod journal;
mod record;
mod rounds;
mod run;
mod shots;
mod summary;

pub(crate) use error::EvalError;
pub(crate) use fitting::{Answered, confidences, fit_temperature, fit_threshold};
pub(crate) use journal::{Journal, Results, merge, read_results, write_all};
pub(crate) use record::{Measured, Record};
pub(crate) use rounds::{Observed, fit_rounds};
pub(crate) use run::{Evaluation, Measurement, Task, shard};
pub(crate) use shots::Shots;
pub(crate) use summary::{ConditionSummary, HEADINGS, Summary, measured};
