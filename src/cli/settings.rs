//! The flags that decide how an image is classified; the same for every command that classifies.

use std::env;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rtpt_edge::bundle::{Bundle, LabelSet, locate_bundle, read_labels};
use rtpt_edge::head::HeadKind;
use rtpt_edge::views::Augment;
use rtpt_edge::{Classifier, ClassifierSettings, Result};

/// Which bundle.
#[derive(Args)]
pub struct BundleArgument {
    /// Model bundle [default: the demo bundle that comes with rtpt]
    #[arg(long, env = "RTPT_BUNDLE", value_name = "DIR")]
    pub bundle: Option<PathBuf>,
}

impl BundleArgument {
    /// Finds and opens the bundle.
    pub fn open(&self) -> Result<Bundle> {
        Bundle::open(&locate_bundle(self.bundle.as_deref())?)
    }
}

/// How to classify.
#[derive(Args)]
pub struct SettingsArguments {
    #[command(flatten)]
    pub bundle: BundleArgument,
    /// Labels to choose from, one a line, by the exact names of the bundle's classes [default: the bundle's]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// What is tuned to the image [default: the bundle's]
    #[arg(long, value_enum)]
    head: Option<Head>,
    /// Views of the image, the clean one included [default: the bundle's]
    #[arg(long, value_name = "N")]
    views: Option<usize>,
    /// What the views undergo after cropping [default: the bundle's]
    #[arg(long, value_enum)]
    augment: Option<AugmentChoice>,
    /// Seed of the views, mixed with the image's digest
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Worker threads; the results do not depend on it [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Views the encoder takes at once; may change the last bits [default: measured once per bundle and device]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Head {
    /// Nothing: the views are only ensembled
    None,
    /// A shift of the class embeddings
    ClassShift,
}

#[derive(Clone, Copy, ValueEnum)]
enum AugmentChoice {
    /// Random crops, mirrored half of the time
    Crop,
    /// AugMix over random crops
    Augmix,
}

impl SettingsArguments {
    /// Opens the bundle and prepares to classify with it.
    pub fn classifier(&self) -> Result<Classifier> {
        let bundle = self.bundle.open()?;
        self.classifier_of(&bundle)
    }

    /// Prepares to classify with an open bundle.
    pub fn classifier_of(&self, bundle: &Bundle) -> Result<Classifier> {
        let labels = match &self.labels {
            Some(path) => LabelSet::choose(&bundle.classes, read_labels(path)?)?,
            None => bundle.labels.clone(),
        };
        let settings = self.settings(bundle);
        if settings.views.count == 1 {
            log::warn!(
                "with one view there is nothing to ensemble, so an attack is not resisted; use --views 2 or more"
            );
        }
        Classifier::new(bundle, labels, settings, choices_folder().as_deref())
    }

    fn settings(&self, bundle: &Bundle) -> ClassifierSettings {
        let mut settings = ClassifierSettings::of(bundle);
        settings.views.seed = self.seed;
        settings.views.count = self.views.unwrap_or(settings.views.count);
        settings.threads = self.threads;
        settings.batch = self.batch;
        match self.augment {
            Some(AugmentChoice::Crop) => settings.views.augment = Augment::Crop,
            Some(AugmentChoice::Augmix) => settings.views.augment = Augment::Augmix,
            None => {}
        }
        match self.head {
            Some(Head::None) => settings.tuning.head = HeadKind::None,
            Some(Head::ClassShift) => settings.tuning.head = HeadKind::ClassShift,
            None => {}
        }
        settings
    }
}

/// Where choices measured on this device are remembered: `$XDG_CACHE_HOME/rtpt` or `~/.cache/rtpt`.
fn choices_folder() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    cache.or_else(|| folder("HOME").map(|home| home.join(".cache"))).map(|path| path.join("rtpt"))
}
