//! Summary of an evaluation: a table of methods for each condition.

use serde::{Deserialize, Serialize};

use super::journal::Results;
use super::record::{Measured, MethodResult, Record};
use crate::method::ViewUse;
use crate::metrics::{auroc, calibration_error, mcnemar, quantile, wilson};
use crate::rounds::StoppedBy;
use crate::wording::counted;

/// Version of the summary's JSON.
pub(crate) const SUMMARY_SCHEMA: u32 = 1;

/// All conditions of one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// [`SUMMARY_SCHEMA`].
    pub schema: u32,
    /// The bundle's name and digest.
    pub bundle: String,
    /// Number of labels.
    pub classes: usize,
    /// Number of views.
    pub views: usize,
    /// Smaller numbers of views at which accuracies are given as well.
    pub curve: Vec<usize>,
    /// Summaries of the data sets, in the order given.
    pub conditions: Vec<ConditionSummary>,
}

/// One data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConditionSummary {
    /// Name of the data set.
    pub name: String,
    /// Images measured.
    pub images: usize,
    /// Images that could not be measured.
    pub failed: usize,
    /// Median time of encoding an image that was not in the cache (milliseconds).
    pub encode_ms: Option<f64>,
    /// AUROC of the tamper score between this condition and the first (0–1).
    pub tamper_auroc: Option<f64>,
    /// Summaries of the methods.
    pub methods: Vec<MethodSummary>,
}

/// One method on one data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MethodSummary {
    /// The method.
    pub name: String,
    /// Right answers.
    pub right: usize,
    /// Share of right answers (0–1).
    pub accuracy: f64,
    /// 95 % interval of the accuracy (Wilson).
    pub interval: (f64, f64),
    /// Share of images whose class is among the five most probable (0–1).
    pub top5: f64,
    /// Mean entropy of the probabilities (nats).
    pub entropy: f64,
    /// Expected calibration error, 15 bins (0–1).
    pub ece: f64,
    /// The same at the calibrated temperature, where there is one for this method.
    pub ece_calibrated: Option<f64>,
    /// Mean negative logarithm of the true class's probability (nats).
    pub nll: f64,
    /// Views that the method looks at (count); in rounds the most.
    pub views: usize,
    /// Mean number of encoder runs an image, the low-passed view included.
    pub encodes: f64,
    /// Share of images (0–1) that the gate answered, in rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_gate: Option<f64>,
    /// Milliseconds from features to answer, on one thread: median and 95th percentile.
    pub ms: (f64, f64),
    /// Paired comparison with zero-shot, where that was measured.
    pub against_zero_shot: Option<Gap>,
    /// Share of right answers (0–1) at each smaller number of views.
    pub curve: Vec<f64>,
}

/// Two methods on the same images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gap {
    /// Images on which only this method is right.
    pub better: usize,
    /// Images on which only the other is right.
    pub worse: usize,
    /// Difference of the shares of right answers (0–1).
    pub difference: f64,
    /// McNemar's exact two-sided p-value.
    pub p: f64,
}

impl Summary {
    /// The summary of all conditions' results, which share bundle, labels and methods.
    pub(crate) fn of(conditions: &[Results]) -> Self {
        let plan = &conditions.first().expect("an evaluation has a condition").plan;
        let reference = tampers(&conditions[0]);
        Self {
            schema: SUMMARY_SCHEMA,
            bundle: plan.bundle.clone(),
            classes: plan.labels.len(),
            views: plan.views.count,
            curve: plan.curve.clone(),
            conditions: (0..).zip(conditions).map(|(place, results)| condition(place, results, &reference)).collect(),
        }
    }

    fn heading(&self) -> String {
        format!("{}, {}, {}\n", self.bundle, counted(self.classes, "label"), counted(self.views, "view"))
    }

    /// The table in Markdown.
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = self.heading();
        for condition in &self.conditions {
            text +=
                &format!("\n### {}: {}{}\n\n", condition.name, counted(condition.images, "image"), condition.notes());
            text += &format!("| {} |\n|{}\n", HEADINGS.join(" | "), "---|".repeat(HEADINGS.len()));
            for method in &condition.methods {
                text += &format!("| {} |\n", method.cells().join(" | "));
            }
        }
        text
    }

    /// The table for a terminal.
    pub(crate) fn to_text(&self) -> String {
        let mut text = self.heading();
        for condition in &self.conditions {
            text += &format!("\n{}: {}{}\n", condition.name, counted(condition.images, "image"), condition.notes());
            let mut rows = vec![HEADINGS.map(String::from)];
            rows.extend(condition.methods.iter().map(MethodSummary::cells));
            let widths: Vec<usize> = (0..HEADINGS.len())
                .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
                .collect();
            for row in rows {
                let cells = row.iter().zip(&widths).enumerate();
                let cells = cells.map(|(column, (cell, &width))| match column {
                    0 => format!("{cell:width$}"),
                    _ => format!("{cell:>width$}"),
                });
                text += cells.collect::<Vec<_>>().join("  ").trim_end();
                text.push('\n');
            }
        }
        text
    }
}

/// The columns of the table.
pub(crate) const HEADINGS: [&str; 10] = [
    "method",
    "encodes",
    "right",
    "95 % interval",
    "top 5",
    "vs zero-shot",
    "entropy",
    "ECE",
    "NLL",
    "ms (median, 95 %)",
];

impl ConditionSummary {
    /// Notes that the heading gives beside name and number.
    pub(crate) fn notes(&self) -> String {
        let failed = if self.failed == 0 { String::new() } else { format!(", {} failed", self.failed) };
        let encode = self.encode_ms.map_or(String::new(), |ms| format!(", {ms:.0} ms to encode one"));
        let tamper = self.tamper_auroc.map_or(String::new(), |area| format!(", tamper score AUROC {area:.3}"));
        failed + &encode + &tamper
    }
}

impl MethodSummary {
    /// The row of a table.
    pub(crate) fn cells(&self) -> [String; 10] {
        let percent = |share: f64| format!("{:.1}", share * 100.0);
        let gap = self.against_zero_shot.map_or(String::new(), |gap| {
            let p = if gap.p < 0.001 { "p < 0.001".into() } else { format!("p = {:.3}", gap.p) };
            format!("{:+.1}, {p}", gap.difference * 100.0)
        });
        let ece = match self.ece_calibrated {
            Some(calibrated) => format!("{:.3}, calibrated {calibrated:.3}", self.ece),
            None => format!("{:.3}", self.ece),
        };
        [
            self.name.clone(),
            // Of fixed views a whole number.
            format!("{:.1}", self.encodes).trim_end_matches(".0").to_string(),
            format!("{} %", percent(self.accuracy)),
            format!("{}–{}", percent(self.interval.0), percent(self.interval.1)),
            format!("{} %", percent(self.top5)),
            gap,
            hundredths(self.entropy),
            ece,
            hundredths(self.nll),
            format!("{:.2}, {:.2}", self.ms.0, self.ms.1),
        ]
    }
}

/// Two decimals; what rounds to zero has no sign.
fn hundredths(value: f64) -> String {
    format!("{:.2}", if value.abs() < 0.005 { 0.0 } else { value })
}

fn condition(place: usize, results: &Results, reference: &[f32]) -> ConditionSummary {
    let measured: Vec<&Measured> = measured(results).collect();
    // A hit was not encoded, and its time would say nothing about this device.
    let encoded: Vec<f64> = measured.iter().filter(|one| !one.cached).map(|one| one.ms[2]).collect();
    let methods = &results.plan.methods;
    let zero_shot = methods.iter().position(|settings| settings.method().name() == "zero-shot");
    ConditionSummary {
        name: results.plan.condition.clone(),
        images: measured.len(),
        failed: results.records.len() - measured.len(),
        encode_ms: (!encoded.is_empty()).then(|| quantile(&encoded, 0.5)),
        // The first condition is the reference; compared with itself it says nothing.
        tamper_auroc: if place == 0 { None } else { auroc(reference, &tampers(results)) },
        methods: ways_of(results).iter().map(|way| summary_of(way, zero_shot, results, &measured)).collect(),
    }
}

/// A method, with all views or in rounds.
struct Way {
    method: usize,
    /// Place among the results in rounds.
    rounds: Option<usize>,
}

/// The ways that were measured: all methods with all views, then those that look at them in rounds.
fn ways_of(results: &Results) -> Vec<Way> {
    let methods = &results.plan.methods;
    let mut ways: Vec<Way> = (0..methods.len()).map(|method| Way { method, rounds: None }).collect();
    if results.plan.rounds.is_some() {
        let seen = methods.iter().enumerate().filter(|(_, one)| one.method().views() == ViewUse::AllViews);
        ways.extend(seen.enumerate().map(|(place, (method, _))| Way { method, rounds: Some(place) }));
    }
    ways
}

impl Way {
    fn result<'a>(&self, measured: &'a Measured) -> &'a MethodResult {
        match self.rounds {
            None => &measured.results[self.method],
            Some(place) => &measured.rounds[place].result,
        }
    }

    fn encodes(&self, measured: &Measured, views: usize) -> usize {
        // The low-passed view is one more.
        self.rounds.map_or(views, |place| measured.rounds[place].views_used + 1)
    }
}

fn summary_of(way: &Way, zero_shot: Option<usize>, results: &Results, measured: &[&Measured]) -> MethodSummary {
    let method = way.method;
    let of: Vec<&MethodResult> = measured.iter().map(|one| way.result(one)).collect();
    let count = of.len();
    // Without any image there are no hits either: 0 instead of NaN, which JSON does not have.
    let share = |hits: usize| hits as f64 / count.max(1) as f64;
    let mean =
        |value: fn(&MethodResult) -> f64| of.iter().map(|result| value(result)).sum::<f64>() / count.max(1) as f64;
    let right = of.iter().filter(|result| result.rank == 0).count();
    let confidences: Vec<(f32, bool)> = of.iter().map(|result| (result.confidence, result.rank == 0)).collect();
    // All results of a method have one or none does: the temperature belongs to one method.
    let calibrated: Option<Vec<(f32, bool)>> =
        of.iter().map(|result| Some((result.calibrated?, result.rank == 0))).collect();
    let times: Vec<f64> = of.iter().map(|result| result.ms).collect();
    let settings = &results.plan.methods[method];
    let views = match settings.method().views() {
        ViewUse::CleanView => 1,
        ViewUse::AllViews => results.plan.views.count,
    };
    let by_gate = way.rounds.map(|place| {
        let answered = measured.iter().filter(|one| one.rounds[place].stopped_by == StoppedBy::Gate);
        share(answered.count())
    });
    let at_views = |place: usize| measured.iter().filter(|one| one.curve[place][method] == one.truth).count();
    let name = settings.method().name();
    MethodSummary {
        right,
        accuracy: share(right),
        interval: wilson(right, count),
        top5: share(of.iter().filter(|result| result.rank < 5).count()),
        entropy: mean(|result| f64::from(result.entropy)),
        ece: calibration_error(&confidences),
        ece_calibrated: calibrated.filter(|answers| !answers.is_empty()).map(|answers| calibration_error(&answers)),
        nll: mean(|result| -f64::from(result.log_truth)),
        views,
        encodes: share(measured.iter().map(|one| way.encodes(one, views)).sum()),
        by_gate,
        ms: (quantile(&times, 0.5), quantile(&times, 0.95)),
        against_zero_shot: gap_to(zero_shot, way, measured),
        curve: match way.rounds {
            None => (0..results.plan.curve.len()).map(|place| share(at_views(place))).collect(),
            Some(_) => Vec::new(),
        },
        name: if way.rounds.is_some() { format!("{name}, in rounds") } else { name.into() },
    }
}

/// The paired comparison with zero-shot, where that was measured and is not the way itself.
fn gap_to(zero_shot: Option<usize>, way: &Way, measured: &[&Measured]) -> Option<Gap> {
    let other = zero_shot.filter(|&other| other != way.method)?;
    let differ = |ours: bool| {
        let one_sided = |one: &&&Measured| {
            let (this, that) = (way.result(one).rank == 0, one.results[other].rank == 0);
            this != that && this == ours
        };
        measured.iter().filter(one_sided).count()
    };
    let (better, worse) = (differ(true), differ(false));
    // Images on which both are right or both wrong cancel out.
    let difference = (better as f64 - worse as f64) / measured.len().max(1) as f64;
    Some(Gap { better, worse, difference, p: mcnemar(better, worse) })
}

/// The images that were measured.
pub(crate) fn measured(results: &Results) -> impl Iterator<Item = &Measured> {
    results.records.values().filter_map(|record| match record {
        Record::Measured(measured) => Some(measured),
        Record::Failed(_) => None,
    })
}

fn tampers(results: &Results) -> Vec<f32> {
    measured(results).filter_map(|one| one.tamper).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_no_sign() {
        let values = [(-0.0, "0.00"), (-0.004, "0.00"), (0.004, "0.00"), (-0.006, "-0.01"), (1.234, "1.23")];
        assert!(values.iter().all(|&(value, text)| hundredths(value) == text));
        assert_eq!(hundredths(f64::NAN), "NaN");
    }
}
