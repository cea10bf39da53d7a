//! All views of an image as one picture.

use ndarray::{Array4, Axis};

use super::canvas::Canvas;
use crate::error::Result;
use crate::views::{DamagedImages, Preprocessing, ViewSettings, decode_as, encode_jpeg, make_views_from, view_pixels};

/// Side of a view in a sheet (pixels).
const TILE: usize = 96;
/// Views in a row of a sheet (count).
const COLUMNS: usize = 8;
/// Quality of the JPEG (1–100).
const QUALITY: u8 = 80;

/// The views of an image file as a JPEG, eight in a row, the clean one first, each 96 pixels wide.
///
/// They are made from the file and its digest as they were when it was classified.
///
/// # Errors
/// The image cannot be decoded.
pub(crate) fn view_sheet(
    file: &[u8],
    digest: &blake3::Hash,
    preprocessing: &Preprocessing,
    settings: &ViewSettings,
) -> Result<Vec<u8>> {
    let image = decode_as(file, DamagedImages::Answer)?.pixels;
    let side = preprocessing.resolution;
    let mut canvas = Canvas::new(COLUMNS * TILE, settings.count.div_ceil(COLUMNS) * TILE, [0, 0, 0]);
    // A row at a time: all views of a large model take hundreds of megabytes, and their pictures a hundredth of that.
    for row in 0..settings.count.div_ceil(COLUMNS) {
        let (first, end) = (row * COLUMNS, settings.count.min((row + 1) * COLUMNS));
        let mut views = Array4::zeros((end - first, 3, side, side));
        make_views_from(first, &image, digest.as_bytes(), preprocessing, settings, views.view_mut());
        for (column, view) in views.axis_iter(Axis(0)).enumerate() {
            let pixels = view_pixels(view, preprocessing);
            canvas.picture(&pixels, column * TILE, row * TILE, TILE, TILE);
        }
    }
    Ok(encode_jpeg(&canvas.into_pixels(), QUALITY))
}
