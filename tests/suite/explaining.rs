//! `--explain`: the picture is there, whole, and shows what it should.

use rtpt_edge::internal::views::decode;

use crate::program::Bench;

const SELECTED: [u8; 3] = [222, 118, 12];
const METHOD: [u8; 3] = [24, 104, 178];

#[test]
fn the_picture_shows_every_view_and_marks_the_selected_ones() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    let height = |views: &str| {
        let run = bench.rtpt(&["classify", "--views", views, "--explain", "why.png", &image]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let picture = decode(&std::fs::read(bench.path("why.png")).unwrap()).unwrap();
        assert_eq!(picture.width(), 1480);
        let count = |color: [u8; 3]| picture.bytes().chunks_exact(3).filter(|pixel| *pixel == color).count();
        // Where all views are selected a mark says nothing.
        assert_eq!(count(SELECTED) > 500, views != "1", "{views} views: the selected ones are marked");
        assert!(count(METHOD) > 500, "{views} views: no bar of the method");
        picture.height()
    };
    assert!(height("64") > height("16") && height("16") > height("4"));
    height("1");
}

#[test]
fn a_picture_that_cannot_be_written_is_an_error_and_leaves_nothing() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    let run = bench.rtpt(&["classify", "--explain", "no/such/folder/why.png", &image]);
    run.fails_with(1, &["cannot write no/such/folder/why.png"]);
}
