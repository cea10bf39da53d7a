//! Every bound of the program, in one place, each with its unit.
//!
//! A bound is checked before anything is allocated for the thing it bounds.

/// Largest image file accepted (bytes).
pub(crate) const IMAGE_BYTES_MAX: u64 = 64 << 20;
/// Longest side of an image (pixels).
pub(crate) const IMAGE_SIDE_MAX: u32 = 16_384;
/// Largest area of an image (pixels); 8000×6000 fits.
pub(crate) const IMAGE_PIXELS_MAX: u64 = 50_000_000;
/// Memory one image decoder may take (bytes): four 16-bit channels of the largest image, and room for its state.
pub(crate) const DECODER_BYTES_MAX: u64 = IMAGE_PIXELS_MAX * 8 + (64 << 20);

/// Views of one image, the clean view included (count).
pub(crate) const VIEWS_MAX: usize = 1024;
/// Worker threads (count).
pub(crate) const THREADS_MAX: usize = 256;
/// Views the encoder takes at once (count).
pub(crate) const BATCH_MAX: usize = 64;

/// Largest tensor of an encoder (bytes a view of its batch): a feature map of 1024 channels of 360×360 pixels.
pub(crate) const ENCODER_TENSOR_BYTES_MAX: u64 = 512 << 20;
/// Most that a run of an encoder holds at once, weights apart (bytes a view of its batch).
pub(crate) const ENCODER_RUN_BYTES_MAX: u64 = 1 << 30;
/// Passes over a model in which the shapes of its tensors must become known (count).
pub(crate) const INFERENCE_PASSES_MAX: usize = 64;

/// Smallest and largest input resolution of an encoder (pixels).
pub(crate) const RESOLUTION_RANGE: (usize, usize) = (8, 1024);
/// Largest embedding width (floats).
pub(crate) const EMBEDDING_MAX: usize = 8192;
/// Fewest classes that can be told apart (count).
pub(crate) const CLASSES_MIN: usize = 2;
/// Most classes of one label set (count).
pub(crate) const CLASSES_MAX: usize = 100_000;
/// Longest class name or label (bytes of UTF-8).
pub(crate) const LABEL_BYTES_MAX: usize = 1024;
/// Largest labels file (bytes).
pub(crate) const LABELS_FILE_BYTES_MAX: u64 = 16 << 20;

/// Largest file of examples beside a labels file (bytes): about 6 kB a label and encoder at D = 512.
pub(crate) const EXAMPLES_BYTES_MAX: u64 = 256 << 20;
/// Most photos of a label that an evaluation draws (count).
pub(crate) const SHOTS_MAX: usize = 1000;
/// Most photos of a class by example (count): far more than change its mean.
pub(crate) const EXAMPLE_PHOTOS_MAX: usize = 100_000;

/// Label sets whose embeddings are remembered on a device (count).
pub(crate) const LABEL_SETS_REMEMBERED: usize = 64;
/// Encoders whose packed weights are stored on a device (count).
pub(crate) const PREPARED_REMEMBERED: usize = 3;
/// Largest file of remembered embeddings (bytes): [`CLASSES_MAX`] rows of width 2048.
pub(crate) const LABEL_SET_BYTES_MAX: u64 = CLASSES_MAX as u64 * 2048 * 4 + 1024;

/// Most templates of one prompt ensemble (count); OpenAI's for ImageNet has 80.
pub(crate) const TEMPLATES_MAX: usize = 256;
/// Longest context or template (bytes of UTF-8).
pub(crate) const TEMPLATE_BYTES_MAX: usize = 1024;
/// Largest tokenizer file, after decompression (bytes).
pub(crate) const TOKENIZER_BYTES_MAX: u64 = 64 << 20;
/// Most layers of a text tower (count).
pub(crate) const TEXT_LAYERS_MAX: usize = 64;
/// Largest width of a text tower (floats).
pub(crate) const TEXT_WIDTH_MAX: usize = 4096;
/// Longest text a tower may take (tokens).
pub(crate) const CONTEXT_LENGTH_MAX: usize = 1024;
/// Most rows of a token embedding (count).
pub(crate) const VOCABULARY_MAX: usize = 1_000_000;

/// Most that the files of an archive of a bundle may take (bytes).
pub(crate) const ARCHIVE_BYTES_MAX: u64 = 4 << 30;
/// Entries of an archive of a bundle (count).
pub(crate) const ARCHIVE_ENTRIES_MAX: usize = 256;
/// Names in a path of an archive of a bundle (count).
pub(crate) const ARCHIVE_DEPTH_MAX: usize = 4;
/// Starts of a daemon during the trial of a bundle that may end badly (count): past that it is given up.
pub(crate) const TRIAL_STARTS_MAX: u32 = 3;
/// Largest signature or key (bytes).
pub(crate) const SIGNATURE_BYTES_MAX: u64 = 4096;
/// Most trusted keys (count).
pub(crate) const TRUSTED_KEYS_MAX: usize = 64;
/// Largest `manifest.json` (bytes).
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Largest configuration or tokenizer file of a model that is imported (bytes).
pub(crate) const IMPORT_SMALL_FILE_BYTES_MAX: u64 = 64 << 20;
/// Largest file of a bundle (bytes).
pub(crate) const BUNDLE_FILE_BYTES_MAX: u64 = 4 << 30;

/// Most tuning steps of one episode (count).
pub(crate) const TUNING_STEPS_MAX: usize = 100;
/// Largest learning rate (AdamW moves a parameter by about this much a step).
pub(crate) const LEARNING_RATE_MAX: f64 = 1e3;
/// Largest probability below which classes may be left out of tuning. Up to 1/e the gradient that is lost is bounded
/// (see `ClassTuning::decide`).
pub(crate) const CLASS_CUTOFF_MAX: f64 = 0.1;

/// Features kept in memory by default (bytes): 256 images of 64 views of width 512.
pub(crate) const CACHE_MEMORY_BYTES: usize = 32 << 20;
/// Features kept on disk by default (bytes): 8,192 such images.
pub(crate) const CACHE_DISK_BYTES: u64 = 1 << 30;
/// Images whose features wait for one write to disk (count).
pub(crate) const CACHE_PENDING_MAX: usize = 32;

/// Most answers listed for one image (count).
pub(crate) const TOP_MAX: usize = 1000;
/// Files one run classifies (count).
pub(crate) const FILES_MAX: usize = 1_000_000;
/// Folders nested in one another (count).
pub(crate) const FOLDER_DEPTH_MAX: usize = 64;

/// Largest file that lists a data set, or the results of one (bytes).
pub(crate) const DATA_SET_FILE_BYTES_MAX: u64 = 1 << 30;
/// Problems of a data set that are written out (count).
pub(crate) const DATA_SET_PROBLEMS_SHOWN: usize = 20;
/// Parts that an evaluation may be split into (count).
pub(crate) const SHARDS_MAX: usize = 10_000;

/// Files of a watched folder that are remembered until their turn (count).
pub(crate) const WATCHED_FILES_MAX: usize = 100_000;
/// Largest frame of a camera (bytes); a stream with a longer one is not made of JPEGs.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;
/// Largest frame of a camera that sends raw pixels (pixels a side).
pub(crate) const CAMERA_SIDE_MAX: u32 = 4096;
/// Frames in a row that cannot be decoded before a source is opened again (count).
pub(crate) const BAD_FRAMES_MAX: u32 = 8;
/// First and longest wait before a lost source is opened again (milliseconds).
pub(crate) const REOPEN_MS: (u64, u64) = (250, 10_000);
/// Time with frames after which a lost source is opened again without a longer wait (milliseconds).
pub(crate) const SETTLED_MS: u64 = 5_000;
/// Time for a command that is a source to end by itself before it is killed (milliseconds).
pub(crate) const COMMAND_END_MS: u64 = 1_000;
/// Bounds of the time without a frame after which a source counts as lost (seconds).
pub(crate) const SOURCE_TIMEOUT_S: (f64, f64) = (0.1, 3600.0);

/// Requests that wait for the encoder, by default and at most (count).
pub(crate) const QUEUE: (usize, usize) = (16, 1024);
/// Connections of this device's programs over the Unix socket that are open at once (count); a further one gets 503.
pub(crate) const LOCAL_CONNECTIONS_MAX: usize = 128;
/// Connections over TCP that are open at once (count); a further one gets 503.
pub(crate) const REMOTE_CONNECTIONS_MAX: usize = 256;
/// Connections over TCP from one other device that are open at once (count): a page has seven at most.
pub(crate) const PEER_CONNECTIONS_MAX: usize = 32;
/// Connections past these bounds that are told so at once (count); others are closed without a word.
pub(crate) const TURNED_AWAY_MAX: usize = 64;
/// Clients that watch events at once (count).
pub(crate) const WATCHERS_MAX: usize = 32;
/// Headers of one request (count).
pub(crate) const HEADERS_MAX: usize = 64;
/// All headers of one request together (bytes).
pub(crate) const HEADER_BYTES_MAX: usize = 16 << 10;
/// Headers (count) and request head (bytes) past which a connection is ended before the request is looked at.
pub(crate) const HEAD_HARD_MAX: (usize, usize) = (512, 64 << 10);
/// Bodies that are held in memory at once, over all requests of the Unix socket and over all of TCP (bytes): one
/// and a half of the largest images each.
pub(crate) const BODIES_BYTES_MAX: (usize, usize) = (96 << 20, 96 << 20);
/// Share of the queue that requests over TCP leave to the Unix socket's (one part in so many).
pub(crate) const QUEUE_RESERVED_PART: usize = 4;
/// Most labels sent over HTTP (count): they are embedded while the daemon answers, about half a millisecond each on a PC.
pub(crate) const HTTP_LABELS_MAX: usize = 10_000;
/// Largest label list sent over HTTP (bytes).
pub(crate) const HTTP_LABELS_BYTES_MAX: u64 = 4 << 20;
/// Longest time that a client may take to send a bundle (milliseconds).
pub(crate) const UPLOAD_MS: u64 = 900_000;
/// Longest time that a client may take over the head of a request (milliseconds).
pub(crate) const HEAD_MS: u64 = 10_000;
/// Longest time that a client may take over a body (milliseconds).
pub(crate) const BODY_MS: u64 = 30_000;
/// Longest time for which a client may accept nothing that is written to it (milliseconds).
pub(crate) const WRITE_STALL_MS: u64 = 30_000;
/// Time that a request waits for its answer, by default and at most (milliseconds).
pub(crate) const DEADLINE_MS: (u64, u64) = (60_000, 600_000);
/// Longest time that running requests may take after SIGTERM (milliseconds).
pub(crate) const REQUESTS_END_MS: u64 = 2_500;
/// Longest time that a frame may take after that (milliseconds).
pub(crate) const FRAME_END_MS: u64 = 500;
/// Longest time that engine, source and recording may take together after the requests (milliseconds).
pub(crate) const PARTS_END_MS: u64 = 1_700;
/// Longest time from SIGTERM to the end of the process, whatever blocks (milliseconds).
pub(crate) const SHUTDOWN_MS: u64 = 4_700;
/// Views that a request may ask for (count), unless the daemon itself uses more.
pub(crate) const REQUEST_VIEWS_MAX: usize = 256;
/// Points of the history that the live page plots (count), and the least time between two (milliseconds).
pub(crate) const HISTORY: (usize, u64) = (600, 500);
/// Longest token (bytes), and the shortest.
pub(crate) const TOKEN_BYTES: (usize, usize) = (16, 1024);
/// Largest configuration file (bytes).
pub(crate) const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Largest answer of a daemon that a client reads (bytes).
pub(crate) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Least and most room for a recording (MiB).
pub(crate) const RECORD_MB: (u64, u64) = (1, 1 << 20);
/// Parts of a full recording, of which the oldest goes first (count).
pub(crate) const RECORD_PARTS: u64 = 8;
/// Decisions that wait to be recorded (count); further ones are not recorded, and counted.
pub(crate) const RECORD_PENDING_MAX: usize = 8;
/// Longest line of a recording (bytes): a part's labels are one line, and [`CLASSES_MAX`] of the longest are 98 MiB.
pub(crate) const RECORD_LINE_BYTES_MAX: usize = 128 << 20;
/// Longest time that recorded data may not be on the disk (milliseconds).
pub(crate) const RECORD_SYNC_MS: u64 = 1_000;
/// Pause of a recording that could not be written (milliseconds).
pub(crate) const RECORD_RETRY_MS: u64 = 30_000;
/// Longest time that cached features may not be on the disk (milliseconds).
pub(crate) const CACHE_FLUSH_MS: u64 = 5_000;
