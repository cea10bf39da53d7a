//! The flags that decide how an image is classified; the same for every command that classifies.

use std::env;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rtpt_edge::bundle::{Bundle, locate_bundle};
use rtpt_edge::classes::{LabelSet, read_labels};
use rtpt_edge::classifier::worker_pool;
use rtpt_edge::head::HeadKind;
use rtpt_edge::text::Prompting;
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
    /// Labels to choose from, one a line, or an identifier, a tab and a label [default: the bundle's]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Words before a label, as in "a photo of a"; a full stop is written after it [default: the bundle's]
    #[arg(long, value_name = "WORDS", conflicts_with = "templates")]
    context: Option<String>,
    /// A prompt with {} for the label, instead of a context; several are averaged
    #[arg(long = "template", value_name = "TEXT")]
    templates: Vec<String>,
    /// What is tuned to the image [default: the bundle's]
    #[arg(long, value_enum)]
    head: Option<Head>,
    /// Steps of test-time adaptation [default: the bundle's, R-TPT's 1]
    #[arg(long, value_name = "N")]
    tta_steps: Option<usize>,
    /// Learning rate of the tuning [default: the bundle's for its own head, else the head's: R-TPT's 0.005, and 0.02 for
    /// class-lowrank]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Fraction of the views, those of least entropy, that tuning looks at [default: the bundle's, R-TPT's 0.1]
    #[arg(long, value_name = "FRACTION")]
    selection: Option<f64>,
    /// Directions that class-lowrank shifts classes in [default: 32]
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
    /// Leave classes out of the tuning whose probability is below P in every view; 0 is exact
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    class_cutoff: f64,
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
    /// A shift of the class embeddings within a few directions
    ClassLowrank,
    /// The words before the label, through the text tower: R-TPT as published
    Context,
}

#[derive(Clone, Copy, ValueEnum)]
enum AugmentChoice {
    /// Random crops, mirrored half of the time
    Crop,
    /// AugMix over random crops
    Augmix,
}

impl From<Head> for HeadKind {
    fn from(head: Head) -> Self {
        match head {
            Head::None => Self::None,
            Head::ClassShift => Self::ClassShift,
            Head::ClassLowrank => Self::ClassLowrank,
            Head::Context => Self::Context,
        }
    }
}

impl SettingsArguments {
    /// Opens the bundle and prepares to classify with it.
    pub fn classifier(&self) -> Result<Classifier> {
        let bundle = self.bundle.open()?;
        self.classifier_of(&bundle)
    }

    /// Prepares to classify with an open bundle.
    pub fn classifier_of(&self, bundle: &Bundle) -> Result<Classifier> {
        let settings = self.settings(bundle);
        settings.check()?;
        let memory = memory_folder();
        let pool = worker_pool(settings.threads)?;
        let labels = pool.install(|| self.label_set(bundle, memory.as_deref()))?;
        if settings.views.count == 1 {
            log::warn!(
                "with one view there is nothing to ensemble, so an attack is not resisted; use --views 2 or more"
            );
        }
        Classifier::new(bundle, labels, settings, memory.as_deref())
    }

    fn label_set(&self, bundle: &Bundle, memory: Option<&Path>) -> Result<LabelSet> {
        let list = match (&self.labels, &bundle.labels) {
            (Some(path), _) => read_labels(path)?,
            (None, Some(list)) => list.clone(),
            (None, None) => return LabelSet::of(bundle),
        };
        let prompting = match (&self.context, &self.templates[..]) {
            (Some(context), _) => Prompting::Context(context.trim().into()),
            (None, []) => bundle.prompting(),
            (None, templates) => Prompting::Templates(templates.to_vec()),
        };
        LabelSet::new(bundle, list, prompting, memory)
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
        let head = self.head.map(HeadKind::from);
        // A learning rate belongs to a head: the bundle's is for its own.
        if let Some(head) = head.filter(|&head| head != settings.tuning.head) {
            settings.tuning.head = head;
            settings.tuning.optimizer.learning_rate = head.learning_rate();
        }
        let tuning = &mut settings.tuning;
        tuning.steps = self.tta_steps.unwrap_or(tuning.steps);
        tuning.optimizer.learning_rate = self.lr.unwrap_or(tuning.optimizer.learning_rate);
        tuning.selection = self.selection.unwrap_or(tuning.selection);
        tuning.rank = self.rank.unwrap_or(tuning.rank);
        tuning.class_cutoff = self.class_cutoff;
        settings
    }
}

/// Where this device's choices and label embeddings are remembered: `$XDG_CACHE_HOME/rtpt` or `~/.cache/rtpt`.
fn memory_folder() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    cache.or_else(|| folder("HOME").map(|home| home.join(".cache"))).map(|path| path.join("rtpt"))
}
