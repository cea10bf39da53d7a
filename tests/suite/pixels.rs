//! Every pixel operation against images made by Pillow.

use rtpt_edge::internal::views::{
    Arithmetic, Filter, Pixels, Preprocessing, Region, Resampling, Squaring, affine, autocontrast, clean_view_array,
    equalize, posterize, resize, resize_window, rotate, solarize, view_pixels,
};

use crate::goldens::Goldens;

/// Equal, or one level off on fewer than one pixel in a thousand.
fn assert_same(found: &Pixels, expected: &Pixels, what: &str) {
    assert_eq!((found.width(), found.height()), (expected.width(), expected.height()), "{what}: size");
    let differences = found.bytes().iter().zip(expected.bytes()).map(|(a, b)| a.abs_diff(*b));
    let (largest, count) = differences.fold((0, 0_usize), |(largest, count), difference| {
        (largest.max(difference), count + usize::from(difference > 0))
    });
    assert!(
        largest == 0 || (largest == 1 && count * 1000 < expected.bytes().len()),
        "{what}: {count} of {} values differ, the largest by {largest}",
        expected.bytes().len()
    );
}

/// Runs `operation` on the input image of each golden whose name has `kind` as its second part; the rest of the name
/// are its parameters.
fn check(kind: &str, at_least: usize, operation: impl Fn(Pixels, &[&str]) -> Pixels) {
    check_in("pillow.safetensors", kind, at_least, operation);
}

/// As [`check`], with the goldens of a file.
fn check_in(file: &str, kind: &str, at_least: usize, operation: impl Fn(Pixels, &[&str]) -> Pixels) {
    let goldens = Goldens::open(file);
    let mut checked = 0;
    for name in goldens.names() {
        let mut parts = name.splitn(3, '.');
        let (image, found_kind) = (parts.next().unwrap(), parts.next().unwrap());
        if found_kind == kind {
            let parameters: Vec<&str> = parts.collect();
            let input = goldens.pixels(&format!("{image}.input"));
            assert_same(&operation(input, &parameters), &goldens.pixels(&name), &name);
            checked += 1;
        }
    }
    assert!(checked >= at_least, "only {checked} goldens of {kind}");
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn size(text: &str) -> (usize, usize) {
    let (width, height) = text.split_once('x').unwrap();
    (number(width), number(height))
}

#[test]
fn bicubic_and_bilinear_resizing_are_pillows() {
    for (kind, filter) in [("bicubic", Filter::Bicubic), ("bilinear", Filter::Bilinear)] {
        check(kind, 21, |image, parameters| {
            let (width, height) = size(parameters[0]);
            resize(&image, image.whole(), width, height, filter)
        });
    }
}

#[test]
fn a_crop_is_resized_without_its_surroundings() {
    let goldens = Goldens::open("pillow.safetensors");
    let region = Region { left: 11, top: 7, width: 58, height: 41 };
    let found = resize(&goldens.pixels("wide.input"), region, 32, 32, Filter::Bilinear);
    assert_same(&found, &goldens.pixels("wide.crop.bilinear.32x32"), "crop");
}

#[test]
fn a_window_is_a_crop_of_the_whole_resize() {
    let image = Goldens::open("pillow.safetensors").pixels("wide.input");
    for (width, height) in [(50, 33), (97, 33), (50, 61), (97, 61), (150, 90)] {
        let window = Region { left: 9, top: 5, width: 20, height: 17 };
        let whole = resize(&image, image.whole(), width, height, Filter::Bicubic).crop(window);
        assert_eq!(resize_window(&image, image.whole(), (width, height), window, Filter::Bicubic.into()), whole);
    }
}

#[test]
fn the_clean_view_is_clips_preprocessing() {
    check("clip", 9, |image, parameters| {
        let resolution = number(parameters[0]);
        let preprocessing = Preprocessing::clip(resolution, [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]);
        view_pixels(clean_view_array(&image, &preprocessing).view(), &preprocessing)
    });
}

const WAYS: [(&str, Squaring, Filter); 3] = [
    ("clip-bilinear", Squaring::Crop, Filter::Bilinear),
    ("squash-bicubic", Squaring::Squash, Filter::Bicubic),
    ("squash-bilinear", Squaring::Squash, Filter::Bilinear),
];

fn prepared(squaring: Squaring, filter: Filter, arithmetic: Arithmetic) -> impl Fn(Pixels, &[&str]) -> Pixels {
    move |image, parameters| {
        let clip = Preprocessing::clip(number(parameters[0]), [0.5; 3], [0.5; 3]);
        let preprocessing = Preprocessing { squaring, resampling: Resampling { filter, arithmetic }, ..clip };
        view_pixels(clean_view_array(&image, &preprocessing).view(), &preprocessing)
    }
}

#[test]
fn the_clean_view_is_what_other_models_ask_for() {
    for (kind, squaring, filter) in WAYS {
        check(kind, 9, prepared(squaring, filter, Arithmetic::Pillow));
    }
}

#[test]
fn resizing_tensors_is_torchvisions() {
    let file = "torchvision.safetensors";
    for (kind, filter) in [("bicubic", Filter::Bicubic), ("bilinear", Filter::Bilinear)] {
        let resampling = Resampling { filter, arithmetic: Arithmetic::Torchvision };
        check_in(file, kind, 21, |image, parameters| {
            let (width, height) = size(parameters[0]);
            let window = Region { left: 0, top: 0, width, height };
            resize_window(&image, image.whole(), (width, height), window, resampling)
        });
    }
    for (kind, squaring, filter) in WAYS.into_iter().chain([("clip-bicubic", Squaring::Crop, Filter::Bicubic)]) {
        check_in(file, kind, 9, prepared(squaring, filter, Arithmetic::Torchvision));
    }
    // The two are not the same.
    let goldens = [Goldens::open("pillow.safetensors"), Goldens::open(file)];
    let [pillow, torchvision] = goldens.map(|goldens| goldens.pixels("wide.bicubic.103x67"));
    let differences = pillow.bytes().iter().zip(torchvision.bytes()).filter(|(a, b)| a != b).count();
    assert!(differences * 500 > pillow.bytes().len(), "{differences}");
}

#[test]
fn mirroring_is_pillows() {
    check("flip", 1, |mut image, _| {
        image.flip_horizontal();
        image
    });
}

#[test]
fn tone_operations_are_pillows() {
    check("autocontrast", 6, |mut image, _| {
        autocontrast(&mut image);
        image
    });
    check("equalize", 6, |mut image, _| {
        equalize(&mut image);
        image
    });
    check("posterize", 18, |mut image, parameters| {
        posterize(&mut image, number(parameters[0]));
        image
    });
    check("solarize", 30, |mut image, parameters| {
        solarize(&mut image, number(parameters[0]));
        image
    });
}

#[test]
fn rotation_is_pillows() {
    check("rotate", 42, |image, parameters| rotate(&image, number(parameters[0])));
}

#[test]
fn shears_and_translations_are_pillows() {
    check("shear-x", 18, |image, parameters| affine(&image, [1.0, number(parameters[0]), 0.0, 0.0, 1.0, 0.0]));
    check("shear-y", 18, |image, parameters| affine(&image, [1.0, 0.0, 0.0, number(parameters[0]), 1.0, 0.0]));
    check("translate-x", 12, |image, parameters| affine(&image, [1.0, 0.0, number(parameters[0]), 0.0, 1.0, 0.0]));
    check("translate-y", 12, |image, parameters| affine(&image, [1.0, 0.0, 0.0, 0.0, 1.0, number(parameters[0])]));
}
