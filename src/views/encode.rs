//! Pixels to the bytes of image files.

use image::codecs::jpeg::JpegEncoder;
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

/// The bytes of a JPEG file of the given quality (1–100).
pub fn encode_jpeg(image: &Pixels, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = (image.width() as u32, image.height() as u32);
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .write_image(image.bytes(), width, height, ExtendedColorType::Rgb8)
        .expect("writing to memory does not fail and the buffer fits the size");
    bytes
}
