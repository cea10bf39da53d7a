//! Files of every format that is read, against what Pillow reads from them.

use rtpt_edge::internal::views::{Pixels, decode};

use crate::goldens::Goldens;

/// Largest difference of a value, and the mean over all values (levels).
fn differences(found: &Pixels, expected: &Pixels) -> (u8, f64) {
    assert_eq!((found.width(), found.height()), (expected.width(), expected.height()));
    let differences = found.bytes().iter().zip(expected.bytes()).map(|(a, b)| a.abs_diff(*b));
    let (largest, sum) = differences
        .fold((0, 0_u64), |(largest, sum), difference| (largest.max(difference), sum + u64::from(difference)));
    (largest, sum as f64 / expected.bytes().len() as f64)
}

#[test]
fn every_format_depth_and_orientation_is_read_as_pillow_reads_it() {
    let goldens = Goldens::open("decoding.safetensors");
    let files: Vec<String> =
        goldens.names().iter().filter_map(|name| name.strip_suffix(".file")).map(String::from).collect();
    assert_eq!(files.len(), 20);
    for name in files {
        let found = decode(&goldens.bytes(&format!("{name}.file"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (largest, mean) = differences(&found, &goldens.pixels(&format!("{name}.pixels")));
        // JPEG decoders are free to round; lossless formats are not.
        if name.ends_with(".jpg") {
            assert!(largest <= 4 && mean < 0.7, "{name}: largest {largest}, mean {mean}");
        } else {
            assert_eq!(largest, 0, "{name}");
        }
    }
}
