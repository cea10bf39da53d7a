//! Measuring: data sets, every method in one pass over the features, what the field reports of it, and reports.

pub mod dataset;
mod journal;
mod methods;
mod record;
mod run;
mod summary;

pub use journal::{Journal, Results, merge, read_results, write_all};
pub use methods::{Method, MethodRunner};
pub use record::{Failure, Measured, MethodPlan, MethodResult, Plan, Record};
pub use run::{Evaluation, Measurement, Task, shard};
pub use summary::{ConditionSummary, Gap, HEADINGS, MethodSummary, SUMMARY_SCHEMA, Summary, measured};
