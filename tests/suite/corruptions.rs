//! The common corruptions against `imagecorruptions`, given the random numbers it drew.

use rtpt_edge::internal::attack::Corruption;
use rtpt_edge::internal::attack::Draws;
use rtpt_edge::internal::views::{Pixels, Sampler};

use crate::goldens::Goldens;

/// Replays the numbers of a golden, in the order in which they were drawn.
struct Replay(std::vec::IntoIter<f64>);

impl Replay {
    fn next(&mut self) -> f64 {
        self.0.next().expect("no more numbers are drawn than the golden has")
    }
}

impl Draws for Replay {
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.next()
    }

    fn normal(&mut self) -> f64 {
        self.next()
    }

    fn poisson(&mut self, _rate: f64) -> f64 {
        self.next()
    }

    fn below(&mut self, bound: usize) -> usize {
        let place = self.next() as usize;
        assert!(place < bound);
        place
    }
}

#[test]
fn corruptions_agree_with_imagecorruptions() {
    let goldens = Goldens::open("corruptions.safetensors");
    let image = goldens.pixels("image");
    let cases: Vec<String> = serde_json::from_str(&goldens.metadata("cases")).unwrap();
    assert_eq!(cases.len(), 14);
    let names = goldens.names();
    for case in cases {
        let (name, severity) = case.rsplit_once('-').unwrap();
        let draws = format!("{case}.draws");
        let draws = if names.contains(&draws) { goldens.vector(&draws).to_vec() } else { Vec::new() };
        let mut replay = Replay(draws.into_iter());
        let found = Corruption::named(name).unwrap().apply(&image, severity.parse().unwrap(), &mut replay);
        assert_eq!(replay.0.len(), 0, "{case}: as many numbers are drawn");
        let (largest, mean) = difference(&found, &goldens.pixels(&case));
        // The package computes in f32 here and there and cuts to whole levels. Its JPEG encoder halves the colour's
        // resolution, ours does not.
        let (most, average) = if name == "jpeg-compression" { (160, 16.0) } else { (1, 0.1) };
        assert!(largest <= most && mean <= average, "{case}: {largest} levels, {mean} on average");
    }
}

fn difference(found: &Pixels, expected: &Pixels) -> (u8, f64) {
    assert_eq!((found.width(), found.height()), (expected.width(), expected.height()));
    let differences: Vec<u8> = found.bytes().iter().zip(expected.bytes()).map(|(&a, &b)| a.abs_diff(b)).collect();
    let mean = differences.iter().map(|&difference| f64::from(difference)).sum::<f64>() / differences.len() as f64;
    (differences.into_iter().max().unwrap(), mean)
}

#[test]
fn every_corruption_takes_every_size_and_harms_more_when_it_is_severe() {
    let goldens = Goldens::open("corruptions.safetensors");
    let image = goldens.pixels("image");
    for kind in Corruption::ALL {
        let harm = |severity| {
            let corrupted = kind.apply(&image, severity, &mut Sampler::new(&[3; 32], 1, 0));
            assert_eq!(corrupted, kind.apply(&image, severity, &mut Sampler::new(&[3; 32], 1, 0)), "{}", kind.name());
            difference(&corrupted, &image).1
        };
        assert!(harm(1) > 0.3 && harm(5) > harm(1) * 1.02, "{}: {} and {}", kind.name(), harm(1), harm(5));
        for (width, height) in [(1, 1), (1, 9), (9, 1), (3, 50), (64, 64)] {
            let small = Pixels::new(width, height, (0..width * height * 3).map(|place| place as u8).collect());
            for severity in 1..=5 {
                let corrupted = kind.apply(&small, severity, &mut Sampler::new(&[3; 32], 1, 0));
                assert_eq!((corrupted.width(), corrupted.height()), (width, height), "{}", kind.name());
            }
        }
    }
}
