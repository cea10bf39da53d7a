//! A picture that shows why: the input, the top classes before and after, and every view with its say.

use std::fs;
use std::path::Path;

use ndarray::{ArrayView4, Axis};

use super::canvas::{Canvas, Color};
use crate::answer::Answer;
use crate::error::Result;
use crate::files::{FileError, write_file};
use crate::rows::{argmax, softmax, top};
use crate::views::{Pixels, Preprocessing, encode_png, view_pixels};
use crate::wording::counted;

const WIDTH: usize = 1480;
const MARGIN: usize = 28;
const HEADER: usize = 92;
const PANEL: usize = 330;
const LEGEND: usize = 64;
const GAP: usize = 10;
const CAPTION: usize = 52;
const CHART_ROWS: usize = 6;

const PAPER: Color = [250, 250, 248];
const INK: Color = [28, 32, 38];
const FAINT: Color = [110, 116, 124];
const TRACK: Color = [226, 228, 230];
const ZERO_SHOT: Color = [148, 154, 162];
const METHOD: Color = [24, 104, 178];
const SELECTED: Color = [222, 118, 12];

/// The picture that explains an answer about the image `name`, whose pixels are `image` and whose views `[V, 3, R, R]` are
/// `seen`.
pub(crate) fn explain(
    name: &str,
    image: &Pixels,
    seen: ArrayView4<f32>,
    preprocessing: &Preprocessing,
    answer: &Answer,
) -> Pixels {
    let views = seen.dim().0;
    let columns = ((views as f64).sqrt().ceil() as usize).clamp(4, 12);
    let tile = (WIDTH - 2 * MARGIN + GAP) / columns - GAP;
    let rows = views.div_ceil(columns);
    let sheet_top = HEADER + PANEL + LEGEND;
    let height = sheet_top + rows * (tile + CAPTION + GAP) + MARGIN;
    let mut canvas = Canvas::new(WIDTH, height, PAPER);
    draw_header(&mut canvas, name, answer);
    draw_input(&mut canvas, image);
    draw_chart(&mut canvas, answer);
    draw_legend(&mut canvas, answer);
    for view in 0..views {
        let left = MARGIN + view % columns * (tile + GAP);
        let top = sheet_top + view / columns * (tile + CAPTION + GAP);
        draw_view(&mut canvas, answer, view, (left, top, tile), &|| {
            view_pixels(seen.index_axis(Axis(0), view), preprocessing)
        });
    }
    canvas.into_pixels()
}

/// A picture as the bytes of a PNG file.
pub fn png_bytes(picture: &Pixels) -> Vec<u8> {
    encode_png(picture)
}

/// Writes a picture as a PNG file, and the folders it lies in.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_png(path: &Path, picture: &Pixels) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| FileError::Unwritable { path: folder.into(), source })?;
    }
    Ok(write_file(path, &encode_png(picture))?)
}

fn draw_header(canvas: &mut Canvas, name: &str, answer: &Answer) {
    let names = answer.labels.names();
    let (after, before) = (answer.best_class(), answer.zero_shot_class());
    let verdict = if after == before {
        format!("{}, as zero-shot says too", names[after])
    } else {
        format!("{}, where zero-shot says {}", names[after], names[before])
    };
    let verdict = canvas.fitted(&verdict, WIDTH - 2 * MARGIN, 34);
    canvas.text(&verdict, MARGIN, 18, 34, INK);
    let views = answer.features.views;
    let line = format!(
        "{name}   ·   method {}   ·   {}   ·   seed {}   ·   {}   ·   bundle {}",
        answer.method(),
        counted(views.count, "view"),
        views.seed,
        counted(names.len(), "label"),
        answer.features.bundle,
    );
    let line = canvas.fitted(&line, WIDTH - 2 * MARGIN, 17);
    canvas.text(&line, MARGIN, 60, 17, FAINT);
}

fn draw_input(canvas: &mut Canvas, image: &Pixels) {
    let (box_width, box_height) = (440.0, (PANEL - 20) as f64);
    let scale = (box_width / image.width() as f64).min(box_height / image.height() as f64);
    let fitted = |side: usize| ((side as f64 * scale).round() as usize).max(1);
    canvas.picture(image, MARGIN, HEADER, fitted(image.width()), fitted(image.height()));
}

/// The classes that matter to either answer, as pairs of bars.
fn draw_chart(canvas: &mut Canvas, answer: &Answer) {
    let (after, before) = (answer.calibrated_probabilities(), answer.zero_shot_probabilities());
    // More than half of the rows are the answer's; then come zero-shot's, so that what it fell for is seen.
    let mut classes = top(after.view(), CHART_ROWS / 2 + 1);
    for class in top(before.view(), CHART_ROWS).into_iter().chain(top(after.view(), CHART_ROWS)) {
        if classes.len() < CHART_ROWS && !classes.contains(&class) {
            classes.push(class);
        }
    }
    let (left, name_width, bar_width) = (520, 220, 600);
    let row_height = (PANEL - 50) / CHART_ROWS;
    let key = canvas.text("■ zero-shot (clean view alone)", left + name_width, HEADER, 17, ZERO_SHOT);
    canvas.text(&format!("■ {}", answer.method()), left + name_width + key + 30, HEADER, 17, METHOD);
    for (row, &class) in classes.iter().enumerate() {
        let y = HEADER + 34 + row * row_height;
        let label = canvas.fitted(&answer.labels.names()[class], name_width - 16, 19);
        let indent = name_width - 16 - canvas.text_width(&label, 19).min(name_width - 16);
        canvas.text(&label, left + indent, y + 8, 19, INK);
        for (offset, probability, color) in [(0, before[class], ZERO_SHOT), (20, after[class], METHOD)] {
            canvas.fill(left + name_width, y + offset, bar_width, 16, TRACK);
            let length = (probability * bar_width as f32).round() as usize;
            canvas.fill(left + name_width, y + offset, length, 16, color);
            canvas.text(&percent(probability), left + name_width + bar_width + 8, y + offset - 1, 17, INK);
        }
    }
}

fn draw_legend(canvas: &mut Canvas, answer: &Answer) {
    let y = HEADER + PANEL + 10;
    let line = format!(
        "Each view with the class it would answer by itself, its probability, and its weight (bar: relative to the largest, {}).",
        percent(answer.decision.weights.fold(0.0, |largest, &weight| largest.max(weight)))
    );
    canvas.text(&line, MARGIN, y, 17, INK);
    let (selected, views) = (answer.decision.selected.len(), answer.decision.weights.len());
    if marks_selected(answer) {
        let line = format!("■ selected: {selected} of {views} views, by their entropy");
        canvas.text(&line, MARGIN, y + 24, 17, SELECTED);
    }
}

/// True if the picture marks the selected views, which it does unless none or all were selected.
fn marks_selected(answer: &Answer) -> bool {
    (1..answer.decision.weights.len()).contains(&answer.decision.selected.len())
}

fn draw_view(
    canvas: &mut Canvas,
    answer: &Answer,
    view: usize,
    (left, top, tile): (usize, usize, usize),
    pixels: &dyn Fn() -> Pixels,
) {
    if marks_selected(answer) && answer.decision.selected.contains(&view) {
        canvas.fill(left - 4, top - 4, tile + 8, tile + CAPTION + 4, SELECTED);
        // Paper over the mark below the picture, so that the caption stays readable.
        canvas.fill(left - 1, top + tile, tile + 2, CAPTION - 3, PAPER);
    }
    canvas.picture(&pixels(), left, top, tile, tile);
    let logits = answer.decision.logits.row(view);
    let best = argmax(logits);
    let color = if best == answer.best_class() { METHOD } else { FAINT };
    let share = percent(softmax(logits)[best]);
    let room = tile - canvas.text_width(&share, 15) - 6;
    let label = canvas.fitted(&answer.labels.names()[best], room, 15);
    canvas.text(&label, left, top + tile + 3, 15, color);
    canvas.text(&share, left + room + 6, top + tile + 3, 15, color);
    draw_weight(canvas, answer, view, (left, top + tile + 22, tile));
}

fn draw_weight(canvas: &mut Canvas, answer: &Answer, view: usize, (left, top, width): (usize, usize, usize)) {
    let weight = answer.decision.weights[view];
    // Never 0: where no view has weight the bars are empty, not NaN.
    let largest = answer.decision.weights.fold(f32::MIN_POSITIVE, |largest, &weight| largest.max(weight));
    canvas.fill(left, top, width, 6, TRACK);
    canvas.fill(left, top, (weight / largest * width as f32).round() as usize, 6, INK);
    let text = if view == 0 { format!("clean view, w {}", percent(weight)) } else { format!("w {}", percent(weight)) };
    let text = canvas.fitted(&text, width, 14);
    canvas.text(&text, left, top + 8, 14, FAINT);
}

fn percent(probability: f32) -> String {
    format!("{:.1} %", probability * 100.0)
}
