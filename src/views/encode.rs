//! Pixels to PNG bytes, for pictures that are shown to people.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::pixels::Pixels;

/// The bytes of a PNG file.
pub fn encode_png(image: &Pixels) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = (image.width() as u32, image.height() as u32);
    PngEncoder::new(&mut bytes)
        .write_image(image.bytes(), width, height, ExtendedColorType::Rgb8)
        .expect("writing to memory does not fail and the buffer fits the size");
    bytes
}
