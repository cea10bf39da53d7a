//! The plots of an evaluation's report, as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::metrics::Bin;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Colours that people with the common kinds of colour blindness can tell apart (Okabe and Ito 2008), darkened a little.
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(190, 100, 150),
    RGBColor(150, 120, 0),
    RGBColor(60, 160, 210),
    RGBColor(90, 90, 90),
    RGBColor(200, 140, 0),
];
const WIDTH: u32 = 900;
const FONT: (&str, u32) = ("sans-serif", 14);

/// A named row of values: one series of a plot.
pub(crate) struct Series {
    /// Name of the series.
    pub name: String,
    /// Values of the series.
    pub values: Vec<f64>,
}

/// Groups of bars, in percent: a group a name, in each a bar a series.
pub(crate) fn accuracy_bars(groups: &[String], series: &[Series]) -> String {
    drawn(WIDTH, 340, |area| {
        let count = groups.len() as f64;
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(46)
            .y_label_area_size(46)
            .build_cartesian_2d(0.0..count, 0.0..100.0)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .disable_x_mesh()
            // Plotters would label the ticks between the groups; the names are drawn below.
            .x_labels(0)
            .y_desc("right answers (%)")
            .label_style(FONT)
            .axis_desc_style(FONT)
            .draw()?;
        let width = 0.84 / series.len() as f64;
        for (place, one) in series.iter().enumerate() {
            let color = COLORS[place % COLORS.len()];
            let bar = |(group, value): (usize, &f64)| {
                let left = group as f64 + 0.08 + place as f64 * width;
                Rectangle::new([(left, 0.0), (left + width * 0.92, value * 100.0)], color.filled())
            };
            chart.draw_series(one.values.iter().enumerate().map(bar))?;
        }
        for (group, name) in groups.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(group as f64 + 0.5, 0.0));
            let style = TextStyle::from(FONT.into_font()).pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Center,
                plotters::style::text_anchor::VPos::Top,
            ));
            area.draw(&Text::new(name.clone(), (x, y + 8), style))?;
        }
        Ok(())
    })
}

/// Accuracy (0–1) against the number of views, a line a series.
pub(crate) fn against_views(views: &[usize], series: &[Series]) -> String {
    drawn(WIDTH, 340, |area| {
        let ends = (views.iter().min().copied().unwrap_or(1) as f64, views.iter().max().copied().unwrap_or(2) as f64);
        let values = || series.iter().flat_map(|one| &one.values).map(|value| value * 100.0);
        let low = values().fold(100.0, f64::min).min(90.0) - 2.0;
        let high = values().fold(0.0, f64::max) + 2.0;
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(46)
            .y_label_area_size(46)
            .build_cartesian_2d((ends.0..ends.1 * 1.001).log_scale().base(2.0), low.max(0.0)..high.min(100.0))?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("views")
            .y_desc("right answers (%)")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .label_style(FONT)
            .axis_desc_style(FONT)
            .draw()?;
        for (place, one) in series.iter().enumerate() {
            let color = COLORS[place % COLORS.len()];
            let points: Vec<(f64, f64)> =
                views.iter().zip(&one.values).map(|(&count, value)| (count as f64, value * 100.0)).collect();
            chart.draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(3))?;
        }
        Ok(())
    })
}

/// A reliability diagram: how often answers of a confidence are right, beside the diagonal of perfect calibration.
pub(crate) fn reliability(bins: &[Bin]) -> String {
    drawn(430, 380, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(46)
            .y_label_area_size(46)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("confidence")
            .y_desc("share of right answers")
            .label_style(FONT)
            .axis_desc_style(FONT)
            .draw()?;
        let width = 1.0 / bins.len() as f64;
        let total = bins.iter().map(|bin| bin.count).max().unwrap_or(1).max(1) as f64;
        let bars = bins.iter().enumerate().filter(|(_, bin)| bin.count > 0).map(|(place, bin)| {
            let left = place as f64 * width;
            // The fuller the bin, the darker its bar.
            let shade = COLORS[0].mix(0.25 + 0.75 * bin.count as f64 / total);
            Rectangle::new([(left, 0.0), (left + width * 0.94, bin.accuracy)], shade.filled())
        });
        chart.draw_series(bars)?;
        chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], BLACK.stroke_width(1)))?;
        Ok(())
    })
}

/// Histogram of the time an image took (milliseconds), a line a series, over a logarithmic axis.
pub(crate) fn latencies(series: &[Series]) -> String {
    const BINS: usize = 40;
    drawn(WIDTH, 320, |area| {
        // A logarithmic axis has no place for 0.
        let values = || series.iter().flat_map(|one| &one.values).copied().filter(|value| *value > 0.0);
        let low = values().fold(f64::INFINITY, f64::min).clamp(1e-3, 1.0);
        // One time alone, or none, makes no range.
        let high = values().fold(0.0, f64::max).max(low * 2.0);
        let step = (high / low).ln() / BINS as f64;
        let histogram = |one: &Series| {
            let mut counts = vec![0_usize; BINS];
            for value in one.values.iter().filter(|value| **value > 0.0) {
                // The largest value is the upper end of the last bin, which would put it into one more.
                counts[(((value / low).ln() / step) as usize).min(BINS - 1)] += 1;
            }
            counts
        };
        let histograms: Vec<Vec<usize>> = series.iter().map(histogram).collect();
        let most = histograms.iter().flatten().copied().max().unwrap_or(1).max(1);
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(46)
            .y_label_area_size(56)
            .build_cartesian_2d((low..high).log_scale(), 0.0..most as f64 * 1.05)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("milliseconds from features to answer")
            .y_desc("images")
            .x_label_formatter(&|x| format!("{x}"))
            .label_style(FONT)
            .axis_desc_style(FONT)
            .draw()?;
        for (place, counts) in histograms.iter().enumerate() {
            let color = COLORS[place % COLORS.len()];
            let at = |bin: usize| low * (step * bin as f64).exp();
            let steps = counts
                .iter()
                .enumerate()
                .flat_map(|(bin, &count)| [(at(bin), count as f64), (at(bin + 1).min(high), count as f64)]);
            chart.draw_series(LineSeries::new(steps, color.stroke_width(2)))?;
        }
        Ok(())
    })
}

/// Share of images misled by number of queries; an entry an image, `None` where it never is.
pub(crate) fn success_curve(queries_to_success: &[Option<usize>], queries: usize) -> String {
    drawn(WIDTH, 340, |area| {
        // A budget of one query makes no range.
        let end = (queries as f64).max(2.0);
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(46)
            .y_label_area_size(46)
            .build_cartesian_2d((1.0..end).log_scale(), 0.0..100.0)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("queries")
            .y_desc("images misled (%)")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .label_style(FONT)
            .axis_desc_style(FONT)
            .draw()?;
        let mut successes: Vec<usize> = queries_to_success.iter().copied().flatten().collect();
        successes.sort_unstable();
        let percent = |count: usize| count as f64 / queries_to_success.len().max(1) as f64 * 100.0;
        let steps = successes
            .iter()
            .enumerate()
            // Two points a success make a step.
            .flat_map(|(before, &at)| [(at as f64, percent(before)), (at as f64, percent(before + 1))]);
        let line = [(1.0, 0.0)].into_iter().chain(steps).chain([(end, percent(successes.len()))]);
        chart.draw_series(LineSeries::new(line, COLORS[0].stroke_width(2)))?;
        Ok(())
    })
}

/// Legend of a plot's colours, in HTML: beside the plot it hides nothing of it.
pub(crate) fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let entry = |(place, name): (usize, &str)| {
        let RGBColor(red, green, blue) = COLORS[place % COLORS.len()];
        format!("<span style=\"color:#{red:02x}{green:02x}{blue:02x}\">■</span> {}&emsp;", htmlize::escape_text(name))
    };
    format!("<p>{}</p>", names.enumerate().map(entry).collect::<String>())
}

/// Draws into a string; a plot that cannot be drawn is left out, with a note.
fn drawn(width: u32, height: u32, draw: impl FnOnce(&Area) -> Drawn) -> String {
    let mut svg = String::new();
    let result = {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        draw(&area).and_then(|()| Ok(area.present()?))
    };
    match result {
        Ok(()) => svg,
        Err(error) => format!("<p>This plot could not be drawn: {}</p>", htmlize::escape_text(error.to_string())),
    }
}
