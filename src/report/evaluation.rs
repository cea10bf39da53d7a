//! The HTML report of an evaluation: one file, without anything fetched from elsewhere.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use htmlize::escape_text;

use super::plots::{Series, accuracy_bars, against_views, latencies, legend, reliability};
use crate::eval::{ConditionSummary, HEADINGS, Measured, Results, Summary, measured};
use crate::files::read_up_to;
use crate::limits::IMAGE_BYTES_MAX;
use crate::metrics::{bins, calibration_error};
use crate::views::{Filter, decode, encode_png, resize};
use crate::wording::counted;

/// Mistakes shown of each condition (count).
const MISTAKES: usize = 12;
/// Longest side of a thumbnail (pixels).
const THUMBNAIL: usize = 120;

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222}\
table{border-collapse:collapse;margin:1rem 0;font-size:.9rem}th,td{padding:.25rem .7rem;text-align:right;\
border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}svg{max-width:100%;height:auto}\
.pictures{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;width:9rem;font-size:.8rem}\
figure img{max-width:100%}h2{margin-top:2.5rem}.note{color:#666}.scroll{overflow-x:auto}";

/// The report of `summary` over `conditions`; the diagrams and mistakes are those of the method `shown`.
pub(crate) fn evaluation_html(summary: &Summary, conditions: &[Results], shown: &str) -> String {
    let mut body = format!(
        "<h1>Evaluation of {}</h1><p>{}, {}.</p>",
        escape_text(&summary.bundle),
        counted(summary.classes, "label"),
        counted(summary.views, "view")
    );
    body += "<h2>Right answers</h2>";
    let methods: Vec<String> = summary.conditions[0].methods.iter().map(|method| method.name.clone()).collect();
    let accuracies: Vec<Series> = summary
        .conditions
        .iter()
        .map(|condition| Series {
            name: condition.name.clone(),
            values: condition.methods.iter().map(|method| method.accuracy).collect(),
        })
        .collect();
    body += &(accuracy_bars(&methods, &accuracies) + &legend(accuracies.iter().map(|one| one.name.as_str())));
    for condition in &summary.conditions {
        body += &table(condition);
    }
    body += "<p class=\"note\">Intervals are Wilson's at 95 %. “vs zero-shot” is the difference in points on the same \
        images, with the p-value of McNemar's exact test. ECE has 15 bins. Milliseconds are from features to answer, on one thread.</p>";
    if !summary.curve.is_empty() {
        body += "<h2>Right answers against the number of views</h2>";
        for condition in &summary.conditions {
            body += &format!("<h3>{}</h3>{}", escape_text(&condition.name), views_plot(summary, condition));
        }
    }
    body += &format!("<h2>Calibration of {}</h2><div class=\"pictures\">", escape_text(shown));
    for results in conditions {
        body += &diagram(results, shown);
    }
    body += "</div><h2>Time</h2>";
    let times = times(conditions);
    body += &(latencies(&times) + &legend(times.iter().map(|one| one.name.as_str())));
    body += &format!("<h2>The worst mistakes of {}</h2>", escape_text(shown));
    body += "<p class=\"note\">Wrong answers of the highest confidence.</p>";
    for results in conditions {
        body += &mistakes(results, shown);
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
        content=\"width=device-width\"><title>Evaluation of {}</title><style>{STYLE}</style></head><body>{body}</body>\
        </html>\n",
        escape_text(&summary.bundle)
    )
}

fn table(condition: &ConditionSummary) -> String {
    let mut rows = String::new();
    for method in &condition.methods {
        let cells: String = method.cells().iter().map(|cell| format!("<td>{}</td>", escape_text(cell))).collect();
        rows += &format!("<tr>{cells}</tr>");
    }
    let headings: String = HEADINGS.iter().map(|heading| format!("<th>{heading}</th>")).collect();
    format!(
        "<h3>{}: {}{}</h3><div class=\"scroll\"><table><tr>{headings}</tr>{rows}</table></div>",
        escape_text(&condition.name),
        counted(condition.images, "image"),
        escape_text(condition.notes())
    )
}

fn views_plot(summary: &Summary, condition: &ConditionSummary) -> String {
    // The full number of views is no part of the curve: its accuracies are the table's.
    let mut counts: Vec<(usize, Option<usize>)> = summary.curve.iter().copied().zip((0..).map(Some)).collect();
    counts.push((summary.views, None));
    counts.sort_unstable();
    let views: Vec<usize> = counts.iter().map(|&(views, _)| views).collect();
    let series: Vec<Series> = condition
        .methods
        .iter()
        .map(|method| {
            let value =
                |&(_, place): &(usize, Option<usize>)| place.map_or(method.accuracy, |place| method.curve[place]);
            Series { name: method.name.clone(), values: counts.iter().map(value).collect() }
        })
        .collect();
    against_views(&views, &series) + &legend(series.iter().map(|one| one.name.as_str()))
}

/// Place of a method in a plan; 0 where it was not measured.
fn place_of(results: &Results, method: &str) -> usize {
    results.plan.methods.iter().position(|one| one.method().name() == method).unwrap_or(0)
}

fn diagram(results: &Results, shown: &str) -> String {
    let place = place_of(results, shown);
    let of = |calibrated: bool| -> Vec<(f32, bool)> {
        let answers = measured(results).map(|one| &one.results[place]);
        answers
            .filter_map(|result| {
                let confidence = if calibrated { result.calibrated? } else { result.confidence };
                Some((confidence, result.rank == 0))
            })
            .collect()
    };
    let picture = |title: &str, answers: &[(f32, bool)]| {
        let ece = calibration_error(answers);
        let condition = escape_text(&results.plan.condition);
        format!("<div><h3>{condition}{title}: ECE {ece:.3}</h3>{}</div>", reliability(&bins(answers)))
    };
    let calibrated = of(true);
    let after = if calibrated.is_empty() { String::new() } else { picture(", calibrated", &calibrated) };
    picture("", &of(false)) + &after
}

fn times(conditions: &[Results]) -> Vec<Series> {
    let methods = &conditions[0].plan.methods;
    let of = |place: usize| {
        conditions.iter().flat_map(move |results| measured(results).map(move |one| one.results[place].ms))
    };
    methods
        .iter()
        .enumerate()
        .map(|(place, settings)| Series { name: settings.method().name().into(), values: of(place).collect() })
        .collect()
}

fn mistakes(results: &Results, shown: &str) -> String {
    let place = place_of(results, shown);
    let mut wrong: Vec<&Measured> = measured(results).filter(|one| one.results[place].rank > 0).collect();
    // Ties by place: the same results give the same report.
    wrong.sort_by(|a, b| {
        b.results[place].confidence.total_cmp(&a.results[place].confidence).then(a.index.cmp(&b.index))
    });
    let label = |class: usize| escape_text(&results.plan.labels[class]);
    let mut pictures = String::new();
    for one in wrong.iter().take(MISTAKES) {
        let result = &one.results[place];
        let picture = thumbnail(Path::new(&one.path)).unwrap_or_else(|| "<p class=\"note\">no picture</p>".into());
        pictures += &format!(
            "<figure>{picture}<figcaption>{}, {:.0} %<br>is {}<br><span class=\"note\">{}</span></figcaption></figure>",
            label(result.answer),
            result.confidence * 100.0,
            label(one.truth),
            escape_text(&one.name)
        );
    }
    format!("<h3>{}</h3><div class=\"pictures\">{pictures}</div>", escape_text(&results.plan.condition))
}

/// A small copy of an image as an element with the picture inside; `None` where the file is not there any more.
fn thumbnail(path: &Path) -> Option<String> {
    // A report is worth having without its pictures: whatever is wrong with one, it is left out.
    let image = decode(&read_up_to(path, IMAGE_BYTES_MAX).ok()?).ok()?;
    let scale = THUMBNAIL as f64 / image.width().max(image.height()) as f64;
    let fitted = |side: usize| ((side as f64 * scale).round() as usize).max(1);
    let (width, height) = (fitted(image.width()), fitted(image.height()));
    let small = resize(&image, image.whole(), width, height, Filter::Bilinear);
    Some(format!("<img alt=\"\" src=\"data:image/png;base64,{}\">", STANDARD.encode(encode_png(&small))))
}
