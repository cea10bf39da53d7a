//! One photo, one answer.
//!
//! ```sh
//! cargo run --release --example one_photo -- models/everyday/bundle models/everyday/photos/dog-attacked.png
//! ```

use std::env;

use rtpt_edge::{Bundle, Classifier, Error};

fn main() -> Result<(), Error> {
    let mut arguments = env::args().skip(1);
    let (Some(folder), Some(photo)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: one_photo BUNDLE PHOTO");
        std::process::exit(2);
    };
    let bundle = Bundle::open(folder)?;
    let classifier = Classifier::builder(&bundle).build()?;
    let answer = classifier.classify(&std::fs::read(photo)?)?;
    for prediction in answer.top(3) {
        println!("{:5.1} %  {}", prediction.probability * 100.0, prediction.label);
    }
    println!("zero-shot CLIP says {}", answer.zero_shot().label);
    Ok(())
}
