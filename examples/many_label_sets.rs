//! Several questions about each photo, for one pass of the encoder.
//!
//! ```sh
//! cargo run --release --example many_label_sets -- models/everyday/bundle models/everyday/photos/*.jpg
//! ```

use std::env;

use rtpt_edge::{Bundle, Classifier, Error, Labels};

fn main() -> Result<(), Error> {
    let mut arguments = env::args().skip(1);
    let Some(folder) = arguments.next() else {
        eprintln!("usage: many_label_sets BUNDLE PHOTO…");
        std::process::exit(2);
    };
    let bundle = Bundle::open(folder)?;
    let kinds = Classifier::builder(&bundle).labels(Labels::new(["animal", "instrument", "building"])?).build()?;
    // The others share the loaded encoder and its threads.
    let animals = kinds.with_labels(&bundle, Labels::new(["dog", "elephant", "butterfly", "bird"])?)?;
    let instruments = kinds.with_labels(&bundle, Labels::new(["guitar", "grand piano", "drum"])?)?;
    for photo in arguments {
        let features = kinds.features(&std::fs::read(&photo)?)?;
        let [kind, animal, instrument] =
            [&kinds, &animals, &instruments].map(|classifier| classifier.answer(&features).best().label);
        println!("{photo}: {kind}; of the animals {animal}, of the instruments {instrument}");
    }
    Ok(())
}
