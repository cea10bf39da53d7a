//! Image file bytes to 8-bit RGB pixels: the only place that decides what a pixel is.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::error::{ImageError, Result};
use super::jpeg_scans::{Damage, check_jpeg};
use super::pixels::Pixels;
use super::png::check_png;
use crate::limits::{DECODER_BYTES_MAX, IMAGE_BYTES_MAX, IMAGE_PIXELS_MAX, IMAGE_SIDE_MAX};

/// File name extensions (lower case) of the formats that [`decode`] reads.
pub(crate) const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// Treatment of image files with damage that the decoder passes over, such as a hole in the data of a JPEG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DamagedImages {
    /// An error.
    #[default]
    Refuse,
    /// An answer from what is there and what the decoder made up, which says that the image is damaged.
    Answer,
}

/// Pixels of an image file, and the damage that the file is known to have.
pub(crate) struct Decoded {
    /// The pixels; where there is damage, some of them are made up.
    pub pixels: Pixels,
    /// The damage.
    pub damage: Option<&'static str>,
}

/// Decodes a JPEG, PNG, BMP or WebP file; the content decides the format, not a name.
///
/// The EXIF orientation is applied. Grey is repeated over the channels; an alpha channel is dropped, as CLIP's
/// reference preprocessing (`Image.convert("RGB")`) drops it; of 16-bit values the high byte is kept, as Pillow does.
///
/// # Errors
/// The file is empty, of no known format, damaged or truncated, or past a limit of `limits.rs`; the size is
/// checked before pixels are allocated.
pub fn decode(bytes: &[u8]) -> Result<Pixels> {
    Ok(decode_as(bytes, DamagedImages::Refuse)?.pixels)
}

/// As [`decode`]; `damaged` says whether damage that the decoder passes over is an error.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_as(bytes: &[u8], damaged: DamagedImages) -> Result<Decoded> {
    // Asked first: the guess of the format would call an empty file one of no known kind.
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if bytes.len() as u64 > IMAGE_BYTES_MAX {
        return Err(ImageError::FileTooLarge { limit: IMAGE_BYTES_MAX });
    }
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|source| ImageError::Corrupt { source: source.into() })?;
    // The crate recognises more formats than it was built to decode. For those its error would name no kind.
    if !matches!(reader.format(), Some(ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::Bmp | ImageFormat::WebP)) {
        let (found, converter) = kind_of(bytes);
        return Err(ImageError::FormatUnknown { found, converter });
    }
    let format = reader.format();
    // Set before the decoder exists, because the PNG decoder reads colour profiles and text while it is made.
    reader.limits(decoder_limits());
    let mut decoder = reader.into_decoder().map_err(corrupt)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    // Before the pixels: a file that is refused, or was made to keep decoders busy, is not decoded first.
    let checked = match format {
        Some(ImageFormat::Jpeg) => check_jpeg(bytes),
        Some(ImageFormat::Png) => check_png(bytes).map_err(Damage::Broken),
        _ => Ok(()),
    };
    let damage = match checked {
        Ok(()) => None,
        Err(Damage::Broken(problem)) if damaged == DamagedImages::Answer && format != Some(ImageFormat::Png) => {
            Some(problem)
        }
        Err(damage) => {
            // The decoder of PNGs gives nothing of a damaged one.
            let answerable = format == Some(ImageFormat::Jpeg) && matches!(damage, Damage::Broken(_));
            return Err(ImageError::Damaged { problem: damage.problem(), answerable });
        }
    };
    let orientation = decoder.orientation().map_err(corrupt)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(corrupt)?;
    image.apply_orientation(orientation);
    Ok(Decoded { pixels: to_pixels(image), damage })
}

/// Kind of a file that is not read, by its first bytes, and a program that makes a JPEG of it.
fn kind_of(bytes: &[u8]) -> (&'static str, Option<&'static str>) {
    let brands = bytes.get(8..bytes.len().min(32)).unwrap_or_default();
    // An ISO media file begins with a box that lists its main brand, a version and the brands it is compatible with.
    // The version is looked at like a brand and matches none.
    let has_brand = |names: &[&[u8; 4]]| brands.chunks_exact(4).any(|brand| names.iter().any(|name| brand == *name));
    match bytes {
        [b'G', b'I', b'F', b'8', ..] => ("a GIF image", Some("ImageMagick")),
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => ("a TIFF or raw image", Some("ImageMagick")),
        [0xff, 0x0a, ..] | [0, 0, 0, 0x0c, b'J', b'X', b'L', b' ', ..] => ("a JPEG XL image", Some("djxl")),
        [0, 0, 0, 0x0c, b'j', b'P', b' ', b' ', ..] => ("a JPEG 2000 image", Some("ImageMagick")),
        [b'%', b'P', b'D', b'F', ..] => ("a PDF document", Some("pdftoppm")),
        // AVIF before HEIC: an AVIF file may list `mif1` as well.
        [_, _, _, _, b'f', b't', b'y', b'p', ..] if has_brand(&[b"avif", b"avis"]) => {
            ("an AVIF image", Some("heif-convert"))
        }
        [_, _, _, _, b'f', b't', b'y', b'p', ..]
            if has_brand(&[b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1"]) =>
        {
            ("a HEIC image", Some("heif-convert"))
        }
        // MP4 and QuickTime use the same container.
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => ("a film", Some("ffmpeg")),
        _ => ("something else", None),
    }
}

fn decoder_limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    limits
}

fn check_size(width: u32, height: u32) -> Result<()> {
    let pixels = u64::from(width) * u64::from(height);
    let fits = width <= IMAGE_SIDE_MAX && height <= IMAGE_SIDE_MAX && pixels <= IMAGE_PIXELS_MAX;
    if width == 0 || height == 0 || !fits {
        return Err(ImageError::Size { width, height, side_max: IMAGE_SIDE_MAX, pixels_max: IMAGE_PIXELS_MAX });
    }
    Ok(())
}

fn corrupt(source: image::ImageError) -> ImageError {
    // Some decoders end their messages with a new line, which would break ours.
    ImageError::Corrupt { source: source.to_string().trim().into() }
}

fn to_pixels(image: DynamicImage) -> Pixels {
    let (width, height) = (image.width() as usize, image.height() as usize);
    // The crate's own conversion rounds to the nearest of 256 levels, which Pillow does not do.
    let high = |value: u16| (value >> 8) as u8;
    let bytes = match image {
        DynamicImage::ImageRgb8(rgb) => rgb.into_raw(),
        DynamicImage::ImageLuma16(grey) => grey.iter().flat_map(|&value| [high(value); 3]).collect(),
        DynamicImage::ImageLumaA16(grey) => grey.pixels().flat_map(|pixel| [high(pixel.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(rgb) => rgb.iter().map(|&value| high(value)).collect(),
        DynamicImage::ImageRgba16(rgba) => {
            rgba.pixels().flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]].map(high)).collect()
        }
        other => other.into_rgb8().into_raw(),
    };
    Pixels::new(width, height, bytes)
}

#[cfg(test)]
mod tests {
    use image::{ImageBuffer, LumaA, Rgb, Rgba};

    use super::*;

    #[test]
    fn of_sixteen_bits_the_high_byte_is_kept_and_alpha_is_dropped() {
        let rgb = ImageBuffer::from_pixel(2, 1, Rgb([0x12ff_u16, 0x3400, 0x5680]));
        assert_eq!(to_pixels(DynamicImage::ImageRgb16(rgb)).bytes(), [0x12, 0x34, 0x56, 0x12, 0x34, 0x56]);
        let rgba = ImageBuffer::from_pixel(1, 1, Rgba([0x12ff_u16, 0x3400, 0x5680, 0]));
        assert_eq!(to_pixels(DynamicImage::ImageRgba16(rgba)).bytes(), [0x12, 0x34, 0x56]);
        let grey = ImageBuffer::from_pixel(1, 1, LumaA([0x78ff_u16, 7]));
        assert_eq!(to_pixels(DynamicImage::ImageLumaA16(grey)).bytes(), [0x78; 3]);
    }

    #[test]
    fn sizes_are_checked_on_both_sides_of_every_limit() {
        for (width, height, fits) in [
            (1, 1, true),
            (0, 5, false),
            (5, 0, false),
            (16_384, 3000, true),
            (16_385, 1, false),
            (1, 16_385, false),
            (10_000, 5000, true),
            (10_000, 5001, false),
        ] {
            assert_eq!(check_size(width, height).is_ok(), fits, "{width}×{height}");
        }
    }
}
