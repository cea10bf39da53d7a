//! A small drawing surface: rectangles, pictures and text.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont};

use crate::views::{Filter, Pixels, resize};

/// Latin, Greek and Cyrillic glyphs of DejaVu Sans; licence in `assets/`.
const FONT: &[u8] = include_bytes!("../../assets/DejaVuSans-subset.ttf");

/// An RGB colour.
pub(crate) type Color = [u8; 3];

/// A picture being drawn. Positions are pixels from the top left; what sticks out is cut off.
pub(crate) struct Canvas {
    pixels: Pixels,
    font: FontRef<'static>,
}

impl Canvas {
    /// A canvas filled with `background`.
    pub(crate) fn new(width: usize, height: usize, background: Color) -> Self {
        let font = FontRef::try_from_slice(FONT).expect("the embedded font is valid");
        let mut canvas = Self { pixels: Pixels::black(width, height), font };
        canvas.fill(0, 0, width, height, background);
        canvas
    }

    /// The finished picture.
    pub(crate) fn into_pixels(self) -> Pixels {
        self.pixels
    }

    /// A filled rectangle.
    pub(crate) fn fill(&mut self, left: usize, top: usize, width: usize, height: usize, color: Color) {
        let right = (left + width).min(self.pixels.width());
        for y in top..(top + height).min(self.pixels.height()) {
            // A rectangle that begins past the right edge is an empty slice, not a backward one.
            for pixel in self.pixels.row_mut(y)[left.min(right) * 3..right * 3].chunks_exact_mut(3) {
                pixel.copy_from_slice(&color);
            }
        }
    }

    /// A picture scaled to `width`×`height`.
    pub(crate) fn picture(&mut self, image: &Pixels, left: usize, top: usize, width: usize, height: usize) {
        let scaled = resize(image, image.whole(), width, height, Filter::Bicubic);
        for y in 0..height.min(self.pixels.height().saturating_sub(top)) {
            let count = width.min(self.pixels.width().saturating_sub(left));
            self.pixels.row_mut(top + y)[left * 3..][..count * 3].copy_from_slice(&scaled.row(y)[..count * 3]);
        }
    }

    /// A line of text whose top left corner is given; `size` is the line height (pixels). Gives the width drawn.
    pub(crate) fn text(&mut self, text: &str, left: usize, top: usize, size: usize, color: Color) -> usize {
        // Cloned, which is cheap, because drawing borrows the whole canvas.
        let font = self.font.clone();
        let scaled = font.as_scaled(PxScale::from(size as f32));
        let baseline = top as f32 + scaled.ascent();
        let mut position = left as f32;
        for character in text.chars() {
            let id = scaled.glyph_id(character);
            let glyph = id.with_scale_and_position(scaled.scale(), ab_glyph::point(position, baseline));
            position += scaled.h_advance(id);
            if let Some(outline) = font.outline_glyph(glyph) {
                let bounds = outline.px_bounds();
                outline.draw(|x, y, coverage| {
                    self.blend(bounds.min.x as i64 + i64::from(x), bounds.min.y as i64 + i64::from(y), coverage, color);
                });
            }
        }
        (position - left as f32).ceil() as usize
    }

    /// Width of a line of text (pixels).
    pub(crate) fn text_width(&self, text: &str, size: usize) -> usize {
        let scaled = self.font.as_scaled(PxScale::from(size as f32));
        text.chars().map(|character| scaled.h_advance(scaled.glyph_id(character))).sum::<f32>().ceil() as usize
    }

    /// `text`, or its beginning and an ellipsis where it is wider than `width` (pixels).
    pub(crate) fn fitted(&self, text: &str, width: usize, size: usize) -> String {
        if self.text_width(text, size) <= width {
            return text.to_string();
        }
        let mut kept: Vec<char> = text.chars().collect();
        loop {
            kept.pop();
            let shortened: String = kept.iter().chain(&['…']).collect();
            if kept.is_empty() || self.text_width(&shortened, size) <= width {
                return shortened;
            }
        }
    }

    fn blend(&mut self, x: i64, y: i64, coverage: f32, color: Color) {
        if (0..self.pixels.width() as i64).contains(&x) && (0..self.pixels.height() as i64).contains(&y) {
            let pixel = &mut self.pixels.row_mut(y as usize)[x as usize * 3..][..3];
            for (channel, ink) in pixel.iter_mut().zip(color) {
                let mixed = f32::from(*channel) * (1.0 - coverage) + f32::from(ink) * coverage;
                *channel = mixed.round().clamp(0.0, 255.0) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sticks_out_is_cut_off() {
        let mut canvas = Canvas::new(20, 10, [255; 3]);
        canvas.fill(15, 5, 100, 100, [0; 3]);
        canvas.fill(500, 500, 3, 3, [0; 3]);
        canvas.picture(&Pixels::black(4, 4), 18, 8, 30, 30);
        canvas.text("cut off", 10, 2, 40, [9; 3]);
        assert_eq!(canvas.into_pixels().at(19, 9)[0], 0);
    }

    #[test]
    fn long_text_is_shortened_to_its_width() {
        let canvas = Canvas::new(1, 1, [0; 3]);
        assert_eq!(canvas.fitted("emu", 100, 14), "emu");
        let fitted = canvas.fitted("a very long label indeed", 60, 14);
        assert!(fitted.ends_with('…') && canvas.text_width(&fitted, 14) <= 60, "{fitted}");
    }

    #[test]
    fn text_leaves_ink() {
        let mut canvas = Canvas::new(80, 20, [255; 3]);
        let width = canvas.text("emu ✓ é", 2, 2, 16, [0; 3]);
        assert!((30..70).contains(&width), "{width}");
        let dark = canvas.into_pixels().bytes().iter().filter(|&&value| value < 64).count();
        assert!(dark > 60, "{dark}");
    }
}
