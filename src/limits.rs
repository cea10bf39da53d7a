//! Every bound of the program, in one place, each with its unit.
//!
//! A bound is checked before anything is allocated for the thing it bounds.

/// Largest image file accepted (bytes).
pub const IMAGE_BYTES_MAX: u64 = 64 << 20;
/// Longest side of an image (pixels).
pub const IMAGE_SIDE_MAX: u32 = 16_384;
/// Largest area of an image (pixels); 8000×6000 fits.
pub const IMAGE_PIXELS_MAX: u64 = 50_000_000;
/// Memory one image decoder may take (bytes): four 16-bit channels of the largest image, and room for its state.
pub const DECODER_BYTES_MAX: u64 = IMAGE_PIXELS_MAX * 8 + (64 << 20);

/// Views of one image, the clean view included (count).
pub const VIEWS_MAX: usize = 1024;
/// Worker threads (count).
pub const THREADS_MAX: usize = 256;
/// Views the encoder takes at once (count).
pub const BATCH_MAX: usize = 64;

/// Smallest and largest input resolution of an encoder (pixels).
pub const RESOLUTION_RANGE: (usize, usize) = (8, 1024);
/// Largest embedding width (floats).
pub const EMBEDDING_MAX: usize = 8192;
/// Fewest classes that can be told apart (count).
pub const CLASSES_MIN: usize = 2;
/// Most classes of one label set (count).
pub const CLASSES_MAX: usize = 100_000;
/// Longest class name or label (bytes of UTF-8).
pub const LABEL_BYTES_MAX: usize = 1024;
/// Largest labels file (bytes).
pub const LABELS_FILE_BYTES_MAX: u64 = 16 << 20;

/// Label sets whose embeddings are remembered on a device (count).
pub const LABEL_SETS_REMEMBERED: usize = 64;
/// Largest file of remembered embeddings (bytes): [`CLASSES_MAX`] rows of width 2048.
pub const LABEL_SET_BYTES_MAX: u64 = CLASSES_MAX as u64 * 2048 * 4 + 1024;

/// Most templates of one prompt ensemble (count); OpenAI's for ImageNet has 80.
pub const TEMPLATES_MAX: usize = 256;
/// Longest context or template (bytes of UTF-8).
pub const TEMPLATE_BYTES_MAX: usize = 1024;
/// Largest tokenizer file, after decompression (bytes).
pub const TOKENIZER_BYTES_MAX: u64 = 64 << 20;
/// Most layers of a text tower (count).
pub const TEXT_LAYERS_MAX: usize = 64;
/// Largest width of a text tower (floats).
pub const TEXT_WIDTH_MAX: usize = 4096;
/// Longest text a tower may take (tokens).
pub const CONTEXT_LENGTH_MAX: usize = 1024;
/// Most rows of a token embedding (count).
pub const VOCABULARY_MAX: usize = 1_000_000;

/// Largest `manifest.json` (bytes).
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Largest configuration or tokenizer file of a model that is imported (bytes).
pub const IMPORT_SMALL_FILE_BYTES_MAX: u64 = 64 << 20;
/// Largest file of a bundle (bytes).
pub const BUNDLE_FILE_BYTES_MAX: u64 = 4 << 30;

/// Most tuning steps of one episode (count).
pub const TUNING_STEPS_MAX: usize = 100;
/// Largest learning rate (AdamW moves a parameter by about this much a step).
pub const LEARNING_RATE_MAX: f64 = 1e3;
/// Classes below this probability may be left out of tuning, and no others.
pub const CLASS_CUTOFF_MAX: f64 = 0.1;

/// Features kept in memory where nothing else is said (bytes).
pub const CACHE_MEMORY_BYTES: usize = 32 << 20;
/// Features kept on disk where nothing else is said (bytes).
pub const CACHE_DISK_BYTES: u64 = 1 << 30;
/// Pages of the cache on disk that are held in memory (bytes).
pub const CACHE_PAGES_BYTES: usize = 8 << 20;
/// Images whose features wait for one write to disk (count).
pub const CACHE_PENDING_MAX: usize = 32;

/// Most answers listed for one image (count).
pub const TOP_MAX: usize = 1000;
/// Files one run classifies (count).
pub const FILES_MAX: usize = 1_000_000;
/// Folders nested in one another (count).
pub const FOLDER_DEPTH_MAX: usize = 64;

/// Largest file that lists a data set, or the results of one (bytes).
pub const DATA_SET_FILE_BYTES_MAX: u64 = 1 << 30;
/// Problems of a data set that are written out (count).
pub const DATA_SET_PROBLEMS_SHOWN: usize = 20;
/// Parts that an evaluation may be split into (count).
pub const SHARDS_MAX: usize = 10_000;
