//! The encoder through the library: any batch, any number of views.

use ndarray::{Array4, s};
use rtpt_edge::Bundle;
use rtpt_edge::internal::encoder::{Encoder, EncoderShape};

use crate::program::tiny;

fn encoder(batch: usize) -> Encoder {
    let bundle = Bundle::open(tiny()).unwrap();
    Encoder::load(rtpt_edge::internal::bundle::encoder(&bundle), EncoderShape { resolution: 16, embedding: 8 }, batch)
        .unwrap()
}

fn views(count: usize) -> Array4<f32> {
    Array4::from_shape_fn((count, 3, 16, 16), |(v, c, y, x)| {
        ((v * 31 + c * 7 + y * 3 + x * x) % 23) as f32 / 11.0 - 1.0
    })
}

#[test]
fn batches_agree_and_short_ones_are_filled_up() {
    let views = views(11);
    let expected = encoder(1).encode(views.view()).unwrap();
    for batch in [2, 4, 8, 64] {
        let found = encoder(batch).encode(views.view()).unwrap();
        assert_eq!(found.dim(), (11, 8));
        let error = (&found - &expected).iter().fold(0.0_f32, |largest, e| largest.max(e.abs()));
        assert!(error < 1e-5, "batch {batch}: {error}");
    }
}

#[test]
fn a_view_does_not_depend_on_its_companions() {
    let encoder = encoder(4);
    let views = views(8);
    let all = encoder.encode(views.view()).unwrap();
    let some = encoder.encode(views.slice(s![4..7, .., .., ..])).unwrap();
    assert_eq!(some, all.slice(s![4..7, ..]));
}

#[test]
fn an_encoder_is_reused_without_memory_of_the_last_image() {
    let encoder = encoder(4);
    let views = views(6);
    let first = encoder.encode(views.view()).unwrap();
    encoder.encode((&views * -3.0).view()).unwrap();
    assert_eq!(encoder.encode(views.view()).unwrap(), first);
}
