//! All integration tests, one binary: linking the inference engine once is most of the build.

mod browser;
mod daemon;
mod goldens;
mod program;
mod toy;

mod architecture;
mod attacking;
mod bundles;
mod caching;
mod calibrating;
mod classifying;
mod corruptions;
mod decoding;
mod doctor;
mod encoding;
mod episodes;
mod evaluating;
mod explaining;
mod field;
mod hostile;
mod importing;
mod inputs;
mod labelling;
mod labels;
mod manual;
mod paging;
mod pixels;
mod prompts;
mod recordings;
mod serving;
mod sourcing;
mod tokens;
mod tower;
mod tracing;
mod units;
