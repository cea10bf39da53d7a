//! The text tower: labels to class embeddings T `[C, D]`, and back from their gradient to the context's.
//!
//! ```text
//! label ─ prompt ─► "a photo of a {label}." ─ tokenizer ─► tokens ─┬─ shared beginning ─► Prefix ─┐
//!                                                                  └─ each label's own ───────────┴─► T [C,D]
//! ```
//!
//! `W` text width · `L` tokens · `P` rows of the shared beginning · `M` context tokens (P = M + 1, or M without a start
//! token).

mod attention;
mod block;
mod bpe;
mod clean;
mod error;
mod layers;
mod model;
mod names;
mod prompt;
mod prompts;
mod stored;
mod tokenizer;
mod tower;
mod weights;

pub(crate) use bpe::Bpe;
pub use clean::Cleaning;
pub use error::{TensorError, TextError};
pub use layers::{Activation, CLIP_EPSILON};
pub(crate) use model::{ClosedTower, TextModel, TokenEncoder, Tower, context_prompts, embed};
pub(crate) use names::Naming;
pub use prompt::{Prompt, PromptTokens, context_tokens, template_tokens};
pub use prompts::Prompts;
pub(crate) use stored::{TowerBits, tower_in};
pub use tokenizer::Tokenizer;
pub(crate) use tower::Prefix;
pub use tower::{Pooling, TextTower, TowerShape, TowerStyle, WholeTexts};
pub use weights::WeightsFile;
