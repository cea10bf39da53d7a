//! The flags that decide how an image is classified; the same for every command that classifies.

use std::env;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::bundle::{Bundle, locate_bundle};
use crate::cache::FeatureCache;
use crate::calibration::Calibration;
use crate::classifier::{Classifier, ClassifierSettings};
use crate::error::Result;
use crate::extractor::{ExtractorSettings, worker_pool};
use crate::label_set::LabelSet;
use crate::labels::{Labels, read_labels};
use crate::limits::{
    BATCH_MAX, CACHE_DISK_BYTES, CACHE_MEMORY_BYTES, EMBEDDING_MAX, THREADS_MAX, TUNING_STEPS_MAX, VIEWS_MAX,
};
use crate::method::{Method, MethodSettings, ViewUse};
use crate::rounds::RoundSettings;
use crate::setting::SettingError;
use crate::signing::{Opened, TrustedKeys, open_bundle};
use crate::text::Prompt;
use crate::views::{Augment, DamagedImages, ViewSettings};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

/// Headings of `--help`, after the flags of every day.
pub(crate) mod headings {
    pub(crate) const PROMPTS: &str = "Words around the labels";
    pub(crate) const VIEWS: &str = "Views and encoder";
    pub(crate) const ROUNDS: &str = "Only as many views as an image needs";
    pub(crate) const CACHE: &str = "Cache";
    pub(crate) const TRUST: &str = "Signed bundles";
    pub(crate) const TUNING: &str = "Tuning (for experiments)";
    #[cfg(feature = "eval")]
    pub(crate) const DATA: &str = "Reading data sets";
}

/// Reader of a flag's number: its message says which numbers there are. Whether the number is one of them is checked
/// where it is used.
pub(crate) fn number<T: FromStr>(
    expected: &str,
) -> impl Fn(&str) -> std::result::Result<T, String> + Clone + Send + Sync + use<T> {
    let expected = format!("expected {expected}");
    move |text| text.parse().map_err(|_| expected.clone())
}

/// Reader of a flag's whole number.
pub(crate) fn whole<T: FromStr + Display>(
    least: T,
    most: T,
) -> impl Fn(&str) -> std::result::Result<T, String> + Clone + Send + Sync + use<T> {
    number(&format!("a whole number, {least} to {most}"))
}

/// Which bundle.
#[derive(Args)]
pub(crate) struct BundleArgument {
    /// Model bundle [default: the everyday bundle that comes with rtpt]
    #[arg(long, env = "RTPT_BUNDLE", value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    #[command(flatten)]
    pub trust: TrustArgument,
}

/// Whose bundles are opened.
#[derive(Args)]
pub(crate) struct TrustArgument {
    /// Folder of public keys NAME.pub: with it, only bundles that one of them has signed are opened
    #[arg(long, env = "RTPT_TRUSTED_KEYS", value_name = "DIR", help_heading = headings::TRUST)]
    trusted_keys: Option<PathBuf>,
}

impl TrustArgument {
    /// The trusted keys, if there are any.
    pub(crate) fn keys(&self) -> Result<Option<TrustedKeys>> {
        Ok(self.trusted_keys.as_deref().map(TrustedKeys::in_folder).transpose()?)
    }
}

impl BundleArgument {
    /// Finds and opens the bundle.
    pub(crate) fn open(&self) -> Result<Bundle> {
        Ok(self.open_signed(None)?.bundle)
    }

    /// Finds and opens the bundle, and what its signature says; the one in `slot`, if that is given.
    pub(crate) fn open_signed(&self, slot: Option<&Path>) -> Result<Opened> {
        let folder = slot.map_or_else(|| locate_bundle(self.bundle.as_deref()), |slot| Ok(slot.into()))?;
        open_bundle(&folder, self.trust.keys()?.as_ref())
    }
}

/// What to choose from.
#[derive(Args)]
pub(crate) struct LabelArguments {
    /// File of the labels to choose from: one per line, or an identifier or a group, a tab and a label [default: the
    /// bundle's labels]
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Words before a label, as in "a photo of a"; a full stop is written after the label [default: the bundle's]
    #[arg(long, value_name = "WORDS", help_heading = headings::PROMPTS, conflicts_with = "templates")]
    context: Option<String>,
    /// A prompt with {} for the label, instead of a context; several are averaged
    #[arg(long = "template", value_name = "TEXT", help_heading = headings::PROMPTS)]
    templates: Vec<String>,
}

/// How features are made.
#[derive(Args)]
pub(crate) struct ExtractorArguments {
    /// Number of views of an image, the clean one included; more are slower and steadier [default: the bundle's]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, VIEWS_MAX))]
    pub views: Option<usize>,
    /// What is done to the views after cropping [default: the bundle's]
    #[arg(long, value_enum, help_heading = headings::VIEWS)]
    augment: Option<AugmentChoice>,
    /// Seed of the views, mixed with the image's digest
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64>(0, u64::MAX), help_heading = headings::VIEWS)]
    seed: u64,
    /// Number of worker threads; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, THREADS_MAX), help_heading = headings::VIEWS)]
    threads: Option<usize>,
    /// Number of views that the encoder takes at once; may change the last bits [default: measured once per bundle and
    /// device]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, BATCH_MAX), help_heading = headings::VIEWS)]
    batch: Option<usize>,
    /// What to do with damaged images
    #[arg(long, value_enum, value_name = "WHAT", default_value = "refuse", help_heading = headings::VIEWS)]
    damaged: DamagedChoice,
}

/// Whether an image is seen in as few views as settle its answer. Either flag turns it on.
#[derive(Args)]
pub(crate) struct RoundsArguments {
    /// See every image in as few views as settle its answer, up to N: first the clean view and its low-passed copy (the gate), then rounds
    /// of 8, 16, 32 and 64 [default: 64 with other flags of rounds; without any, all views at once]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, VIEWS_MAX), conflicts_with = "views", help_heading = headings::ROUNDS)]
    views_max: Option<usize>,
    /// Number of views that every image is seen in, whatever the gate says [default: 1]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, VIEWS_MAX), conflicts_with = "views", help_heading = headings::ROUNDS)]
    views_min: Option<usize>,
}

/// Number of views at most, where rounds are asked for and nothing is said.
const ROUNDS_VIEWS_MAX: usize = 64;

impl RoundsArguments {
    /// Settings of the rounds, if they were asked for; then `views` are as many as there may be.
    pub(crate) fn rounds(&self, bundle: &Bundle, views: &mut ViewSettings) -> Option<RoundSettings> {
        self.is_asked_for().then(|| self.rounds_in_force(bundle, views))
    }

    fn is_asked_for(&self) -> bool {
        self.views_max.is_some() || self.views_min.is_some()
    }

    fn rounds_in_force(&self, bundle: &Bundle, views: &mut ViewSettings) -> RoundSettings {
        let rounds = Calibration::round_settings(bundle, views);
        views.count = self.views_max.unwrap_or(ROUNDS_VIEWS_MAX);
        RoundSettings { views_min: self.views_min.unwrap_or(1), ..rounds }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DamagedChoice {
    /// Report an error
    Refuse,
    /// Classify anyway, and note the damage
    Answer,
}

/// The method and its parameters.
#[derive(Args)]
pub(crate) struct MethodArguments {
    /// How the views are combined into an answer [default: the bundle's]
    #[arg(long, alias = "head", value_name = "NAME", value_parser = method_parser())]
    method: Option<Method>,
    /// Steps of test-time adaptation [default: the bundle's, or R-TPT's 1]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, TUNING_STEPS_MAX), help_heading = headings::TUNING)]
    tta_steps: Option<usize>,
    /// Learning rate of the tuning [default: the bundle's for its own method, else the method's]
    #[arg(long, value_name = "RATE", value_parser = number::<f64>("a number"), help_heading = headings::TUNING)]
    lr: Option<f64>,
    /// Share of the views, those of least entropy, that the method looks at [default: the bundle's for its own method,
    /// else the method's]
    #[arg(long, value_name = "FRACTION", value_parser = number::<f64>("a number"), help_heading = headings::TUNING)]
    selection: Option<f64>,
    /// Number of directions in which class-lowrank shifts classes [default: 32]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, EMBEDDING_MAX), help_heading = headings::TUNING)]
    rank: Option<usize>,
    /// Probability below which, in every view, a class is left out of the tuning; 0 is exact [default: 0]
    #[arg(long, value_name = "P", value_parser = number::<f64>("a number"), help_heading = headings::TUNING)]
    class_cutoff: Option<f64>,
    /// Any parameter of the method by name, as in selection=0.2
    #[arg(long = "set", value_name = "NAME=VALUE", help_heading = headings::TUNING)]
    parameters: Vec<String>,
}

/// Names of methods, from their table.
pub(crate) fn method_parser() -> impl TypedValueParser<Value = Method> {
    let names = Method::all().map(|method| PossibleValue::new(method.name()).help(method.summary()));
    PossibleValuesParser::new(names).map(|name| Method::named(&name).expect("the choices are names of methods"))
}

/// Where features are kept.
#[derive(Args, Debug)]
pub(crate) struct CacheArguments {
    /// Where features are kept [default: on disk for folders, else nowhere]
    #[arg(long, value_enum, value_name = "WHERE", help_heading = headings::CACHE)]
    cache: Option<CacheChoice>,
    /// Folder of the features on disk [default: the cache folder]
    #[arg(long, value_name = "DIR", help_heading = headings::CACHE)]
    pub cache_dir: Option<PathBuf>,
    /// Size limit of the features on disk (MiB); the oldest entries are removed
    #[arg(long, value_name = "N", help_heading = headings::CACHE, default_value_t = CACHE_DISK_BYTES >> 20, value_parser = whole::<u64>(0, u64::MAX))]
    cache_max_mb: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CacheChoice {
    /// Nowhere: every image is encoded
    Off,
    /// In memory, for this run
    Memory,
    /// On disk, for later runs as well
    Disk,
}

impl CacheArguments {
    /// The cache asked for; by default on disk if `lasting`, else none.
    pub(crate) fn open(&self, lasting: bool) -> Option<Arc<FeatureCache>> {
        self.open_as(self.cache.unwrap_or(if lasting { CacheChoice::Disk } else { CacheChoice::Off }))
    }

    /// The cache asked for; by default in memory.
    #[cfg(feature = "daemon")]
    pub(crate) fn open_or_memory(&self) -> Option<Arc<FeatureCache>> {
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
                            "features are not cached on disk: neither XDG_CACHE_HOME nor HOME is set; use --cache-dir"
                        );
                        // Not an error: the results are the same without it.
                        Some(memory)
                    }
                }
            }
        };
        cache.map(Arc::new)
    }

    /// Folder of the features on disk.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        self.cache_dir.clone().or_else(cache_folder)
    }
}

/// How to classify.
#[derive(Args)]
pub(crate) struct SettingsArguments {
    #[command(flatten)]
    pub bundle: BundleArgument,
    #[command(flatten)]
    pub labels: LabelArguments,
    #[command(flatten)]
    pub extractor: ExtractorArguments,
    #[command(flatten)]
    rounds: RoundsArguments,
    /// Time for an image (ms): no further round begins that would take longer
    #[arg(long, value_name = "MS", value_parser = number::<f64>("a number of milliseconds"), conflicts_with = "views", help_heading = headings::ROUNDS)]
    budget_ms: Option<f64>,
    #[command(flatten)]
    method: MethodArguments,
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
    pub(crate) fn classifier(&self) -> Result<Classifier> {
        let bundle = self.bundle.open()?;
        self.classifier_of(&bundle)
    }

    /// Prepares to classify with an open bundle.
    pub(crate) fn classifier_of(&self, bundle: &Bundle) -> Result<Classifier> {
        // A number out of range is refused before labels are read and embedded, which may take minutes.
        self.settings(bundle)?.check()?;
        let list = self.labels.list(bundle)?;
        self.classifier_among(bundle, list)
    }

    /// As [`Self::classifier_of`], with labels that are chosen already.
    pub(crate) fn classifier_among(&self, bundle: &Bundle, list: Option<Labels>) -> Result<Classifier> {
        let settings = self.settings(bundle)?;
        settings.check()?;
        let labels = self.labels.embed(bundle, list, settings.extractor.threads)?;
        if settings.extractor.views.count == 1 && settings.method.method().views() == ViewUse::AllViews {
            log::warn!(
                "with one view there is nothing to ensemble, so an attack is not resisted; use --views 2 or more"
            );
        }
        let (views, method) = (settings.extractor.views.count, settings.method.method());
        if (2..method.views_advised()).contains(&views) {
            let enough = method.views_advised();
            log::warn!(
                "with {views} views {method} is less often right than others; use --views {enough} or more, or --method view-shift"
            );
        }
        Classifier::new(bundle, labels, settings, cache_folder().as_deref())
    }

    /// The settings asked for.
    ///
    /// # Errors
    /// The method has no such parameter, or a value is out of range.
    pub(crate) fn settings(&self, bundle: &Bundle) -> Result<ClassifierSettings> {
        let method = self.method.settings(bundle)?;
        let mut extractor = self.extractor.settings(bundle);
        let is_in_rounds = self.rounds.is_asked_for() || self.budget_ms.is_some();
        let rounds = is_in_rounds.then(|| RoundSettings {
            budget_ms: self.budget_ms,
            ..self.rounds.rounds_in_force(bundle, &mut extractor.views)
        });
        Ok(ClassifierSettings { extractor, method, rounds })
    }
}

impl LabelArguments {
    /// The labels asked for; `None` where neither the user nor the bundle names any.
    pub(crate) fn list(&self, bundle: &Bundle) -> Result<Option<Labels>> {
        match &self.labels {
            Some(path) => Ok(read_labels(path).map(Some)?),
            None => Ok(bundle.labels.clone()),
        }
    }

    /// Prompt for the labels.
    pub(crate) fn prompt(&self, bundle: &Bundle) -> Prompt {
        match (&self.context, &self.templates[..]) {
            (Some(context), _) => Prompt::Context(context.trim().into()),
            (None, []) => bundle.prompt(),
            (None, templates) => Prompt::Templates(templates.to_vec()),
        }
    }

    /// Labels with their embeddings, under the prompt asked for.
    pub(crate) fn embed(&self, bundle: &Bundle, list: Option<Labels>, threads: Option<usize>) -> Result<LabelSet> {
        let Some(list) = list else { return LabelSet::of(bundle) };
        let prompt = self.prompt(bundle);
        // A pool of its own, since the extractor's does not exist yet.
        worker_pool(threads)?.install(|| LabelSet::new(bundle, list, prompt, cache_folder().as_deref()))
    }
}

impl ExtractorArguments {
    /// The settings asked for.
    pub(crate) fn settings(&self, bundle: &Bundle) -> ExtractorSettings {
        let mut settings = ExtractorSettings::of(bundle);
        settings.views.seed = self.seed;
        settings.views.count = self.views.unwrap_or(settings.views.count);
        settings.threads = self.threads;
        settings.batch = self.batch.unwrap_or(settings.batch);
        settings.damaged = match self.damaged {
            DamagedChoice::Refuse => DamagedImages::Refuse,
            DamagedChoice::Answer => DamagedImages::Answer,
        };
        match self.augment {
            Some(AugmentChoice::Crop) => settings.views.augment = Augment::Crop,
            Some(AugmentChoice::Augmix) => settings.views.augment = Augment::Augmix,
            None => {}
        }
        settings
    }
}

impl MethodArguments {
    /// The settings asked for.
    fn settings(&self, bundle: &Bundle) -> Result<MethodSettings> {
        let own = bundle.manifest.method;
        let mut settings = self.method.map_or(own, |method| own.with_method(method));
        let count = |value: Option<usize>| value.map(|value| value as f64);
        // Each flag is a parameter by name: the method refuses one that it does not have.
        let flags = [
            ("--tta-steps", "steps", count(self.tta_steps)),
            ("--lr", "learning_rate", self.lr),
            ("--selection", "selection", self.selection),
            ("--rank", "rank", count(self.rank)),
            ("--class-cutoff", "class_cutoff", self.class_cutoff),
        ];
        for (flag, name, value) in flags.into_iter().filter_map(|(flag, name, value)| Some((flag, name, value?))) {
            // What was typed is not always the parameter's name.
            settings.set(name, value).map_err(|error| match settings.get(name) {
                None => SettingError { found: format!("{flag}: {}", error.found), ..error },
                Some(_) => error,
            })?;
        }
        for text in &self.parameters {
            let refused = || SettingError {
                what: "--set",
                expected: "NAME=VALUE with a number, as in selection=0.2".into(),
                found: text.clone(),
            };
            let (name, value) = text.split_once('=').ok_or_else(refused)?;
            settings.set(name, value.parse().map_err(|_| refused())?)?;
        }
        Ok(settings)
    }
}

/// Folder of what this device computed before, label embeddings and packed weights: `$XDG_CACHE_HOME/rtpt` or `~/.cache/rtpt`.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    // What is empty counts as unset, and a path that is not absolute is passed over (XDG Base Directory Specification).
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    cache.or_else(|| folder("HOME").map(|home| home.join(".cache"))).map(|path| path.join("rtpt"))
}
