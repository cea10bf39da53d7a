//! The flags that decide how an image is classified; the same for every command that classifies.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use rtpt_edge::bundle::{Bundle, locate_bundle};
use rtpt_edge::cache::FeatureCache;
use rtpt_edge::classes::{LabelList, LabelSet, read_labels};
use rtpt_edge::extractor::worker_pool;
use rtpt_edge::head::HeadKind;
use rtpt_edge::limits::{CACHE_DISK_BYTES, CACHE_MEMORY_BYTES};
use rtpt_edge::text::Prompting;
use rtpt_edge::tuning::TuningSettings;
use rtpt_edge::views::Augment;
use rtpt_edge::{Classifier, ClassifierSettings, ExtractorSettings, Result};

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

/// What to choose from.
#[derive(Args)]
pub struct LabelArguments {
    /// Labels to choose from, one a line, or an identifier, a tab and a label [default: the bundle's]
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Words before a label, as in "a photo of a"; a full stop is written after it [default: the bundle's]
    #[arg(long, value_name = "WORDS", conflicts_with = "templates")]
    context: Option<String>,
    /// A prompt with {} for the label, instead of a context; several are averaged
    #[arg(long = "template", value_name = "TEXT")]
    templates: Vec<String>,
}

/// How features are made.
#[derive(Args)]
pub struct ExtractorArguments {
    /// Views of the image, the clean one included [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub views: Option<usize>,
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

/// What is tuned, and how.
#[derive(Args)]
pub struct HeadArguments {
    /// What is tuned to the image [default: the bundle's]
    #[arg(long, value_enum)]
    head: Option<Head>,
    /// Steps of test-time adaptation [default: the bundle's, R-TPT's 1]
    #[arg(long, value_name = "N")]
    tta_steps: Option<usize>,
    /// Learning rate of the tuning [default: the bundle's for its own head, else the head's: R-TPT's 0.005, 0.02 for
    /// class-lowrank, 0.1 for view-shift]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Fraction of the views, those of least entropy, that tuning looks at or that vote [default: the bundle's for its
    /// own head, else the head's: R-TPT's 0.1, 0.3 for zero, 1 for view-shift]
    #[arg(long, value_name = "FRACTION")]
    selection: Option<f64>,
    /// Directions that class-lowrank shifts classes in [default: 32]
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
    /// Leave classes out of the tuning whose probability is below P in every view; 0 is exact
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    class_cutoff: f64,
}

/// Where features are remembered.
#[derive(Args)]
pub struct CacheArguments {
    /// Where features are remembered [default: on disk for folders and evaluations, else nowhere]
    #[arg(long, value_enum, value_name = "WHERE")]
    cache: Option<CacheChoice>,
    /// Folder of the features on disk [default: the cache folder]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Most features on disk (MiB); the oldest make room
    #[arg(long, value_name = "N", default_value_t = CACHE_DISK_BYTES >> 20)]
    cache_max_mb: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CacheChoice {
    /// Nowhere: every image is encoded
    Off,
    /// In memory, for this run
    Memory,
    /// On disk, for later runs too
    Disk,
}

impl CacheArguments {
    /// The cache asked for; `lasting` says whether the disk is used if nothing was said.
    pub fn open(&self, lasting: bool) -> Option<Arc<FeatureCache>> {
        self.open_as(self.cache.unwrap_or(if lasting { CacheChoice::Disk } else { CacheChoice::Off }))
    }

    /// The cache asked for, in memory if nothing was said.
    #[cfg(feature = "daemon")]
    pub fn open_or_memory(&self) -> Option<Arc<FeatureCache>> {
        self.open_as(self.cache.unwrap_or(CacheChoice::Memory))
    }

    fn open_as(&self, choice: CacheChoice) -> Option<Arc<FeatureCache>> {
        let cache = match choice {
            CacheChoice::Off => None,
            CacheChoice::Memory => Some(FeatureCache::in_memory(CACHE_MEMORY_BYTES)),
            CacheChoice::Disk => {
                let memory = FeatureCache::in_memory(CACHE_MEMORY_BYTES);
                match self.folder() {
                    Some(folder) => Some(memory.with_disk(&folder, self.cache_max_mb.saturating_mul(1 << 20))),
                    None => {
                        log::warn!(
                            "features are not remembered: neither XDG_CACHE_HOME nor HOME is set; use --cache-dir"
                        );
                        Some(memory)
                    }
                }
            }
        };
        cache.map(Arc::new)
    }

    /// Where features on disk are.
    pub fn folder(&self) -> Option<PathBuf> {
        self.cache_dir.clone().or_else(memory_folder)
    }
}

/// How to classify.
#[derive(Args)]
pub struct SettingsArguments {
    #[command(flatten)]
    pub bundle: BundleArgument,
    #[command(flatten)]
    pub labels: LabelArguments,
    #[command(flatten)]
    head: HeadArguments,
    #[command(flatten)]
    pub extractor: ExtractorArguments,
}

/// The heads by name.
#[derive(Clone, Copy, ValueEnum)]
pub enum Head {
    /// Nothing: the views are only ensembled
    None,
    /// A shift of the class embeddings
    ClassShift,
    /// A shift of the class embeddings within a few directions
    ClassLowrank,
    /// A shift of the views' features within the directions they differ in (T-VSS)
    ViewShift,
    /// The words before the label, through the text tower: R-TPT as published
    Context,
    /// Nothing: the answer is that of the features' mode (MTA)
    Mta,
    /// Nothing: the most confident views vote (ZERO)
    Zero,
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
            Head::ViewShift => Self::ViewShift,
            Head::Mta => Self::Mta,
            Head::Zero => Self::Zero,
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
        let list = self.labels.list(bundle)?;
        let labels = self.labels.embed(bundle, list, settings.extractor.threads)?;
        if settings.extractor.views.count == 1 {
            log::warn!(
                "with one view there is nothing to ensemble, so an attack is not resisted; use --views 2 or more"
            );
        }
        Classifier::new(bundle, labels, settings, memory.as_deref())
    }

    /// The settings asked for.
    pub fn settings(&self, bundle: &Bundle) -> ClassifierSettings {
        ClassifierSettings { extractor: self.extractor.settings(bundle), tuning: self.head.settings(bundle) }
    }
}

impl LabelArguments {
    /// The labels asked for; `None` where neither the user nor the bundle names any.
    pub fn list(&self, bundle: &Bundle) -> Result<Option<LabelList>> {
        match &self.labels {
            Some(path) => read_labels(path).map(Some),
            None => Ok(bundle.labels.clone()),
        }
    }

    /// What is written around a label.
    pub fn prompting(&self, bundle: &Bundle) -> Prompting {
        match (&self.context, &self.templates[..]) {
            (Some(context), _) => Prompting::Context(context.trim().into()),
            (None, []) => bundle.prompting(),
            (None, templates) => Prompting::Templates(templates.to_vec()),
        }
    }

    /// Labels with their embeddings, under the prompt asked for.
    pub fn embed(&self, bundle: &Bundle, list: Option<LabelList>, threads: Option<usize>) -> Result<LabelSet> {
        let Some(list) = list else { return LabelSet::of(bundle) };
        let prompting = self.prompting(bundle);
        worker_pool(threads)?.install(|| LabelSet::new(bundle, list, prompting, memory_folder().as_deref()))
    }
}

impl ExtractorArguments {
    /// The settings asked for.
    pub fn settings(&self, bundle: &Bundle) -> ExtractorSettings {
        let mut settings = ExtractorSettings::of(bundle);
        settings.views.seed = self.seed;
        settings.views.count = self.views.unwrap_or(settings.views.count);
        settings.threads = self.threads;
        settings.batch = self.batch;
        match self.augment {
            Some(AugmentChoice::Crop) => settings.views.augment = Augment::Crop,
            Some(AugmentChoice::Augmix) => settings.views.augment = Augment::Augmix,
            None => {}
        }
        settings
    }
}

impl HeadArguments {
    fn settings(&self, bundle: &Bundle) -> TuningSettings {
        let mut tuning = bundle.manifest.tuning();
        if let Some(head) = self.head {
            tuning = tuning.with_head(head.into());
        }
        tuning.steps = self.tta_steps.unwrap_or(tuning.steps);
        tuning.optimizer.learning_rate = self.lr.unwrap_or(tuning.optimizer.learning_rate);
        tuning.selection = self.selection.unwrap_or(tuning.selection);
        tuning.rank = self.rank.unwrap_or(tuning.rank);
        tuning.class_cutoff = self.class_cutoff;
        tuning
    }
}

/// Where this device's choices and label embeddings are remembered: `$XDG_CACHE_HOME/rtpt` or `~/.cache/rtpt`.
pub fn memory_folder() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    cache.or_else(|| folder("HOME").map(|home| home.join(".cache"))).map(|path| path.join("rtpt"))
}
