//! Doors for the program, the tests and the benches of this package. No promise: anything here may change.

#[cfg(feature = "cli")]
pub use crate::cli::run;
#[cfg(feature = "cli")]
pub use crate::heap::bound as bound_heap;

#[cfg(feature = "eval")]
pub mod attack {
    pub use crate::attack::{Corruption, Draws};
}

pub mod bundle {
    use crate::Bundle;
    use crate::encoder::EncoderModel;
    use crate::views::{Pixels, Preprocessing};

    // Here and below, functions stand for fields and methods that are `pub(crate)` and cannot be re-exported.
    pub fn encoder(bundle: &Bundle) -> &EncoderModel {
        &bundle.encoder
    }

    /// Preprocessing and embedding width.
    pub fn shapes(bundle: &Bundle) -> (Preprocessing, usize) {
        (bundle.manifest.preprocessing(), bundle.manifest.embedding)
    }

    pub fn golden_image(bundle: &Bundle) -> &Pixels {
        &bundle.goldens.image
    }
}

pub mod cache {
    use std::sync::Arc;

    use ndarray::Array2;

    use crate::FeatureCache;
    pub use crate::cache::{CacheKey, CacheScope};

    pub fn get(cache: &FeatureCache, key: &CacheKey) -> Option<Arc<Array2<f32>>> {
        cache.get(key)
    }

    pub fn put(cache: &FeatureCache, key: &CacheKey, features: &Arc<Array2<f32>>) {
        cache.put(key, features);
    }
}

pub mod encoder {
    pub use crate::encoder::{Encoder, EncoderModel, EncoderShape, ModelFile};
}

#[cfg(all(feature = "daemon", feature = "eval"))]
pub mod fuzz {
    pub use crate::fuzz::{TARGETS, Target};
}

pub mod method {
    pub use crate::method::*;
    use crate::method::{Needs, ViewUse};

    pub fn prepare(settings: &MethodSettings, material: Material<f32>) -> Box<dyn Decide<f32>> {
        settings.prepare(material)
    }

    pub fn needs_text_tower(method: Method) -> bool {
        method.needs() == Needs::TextTower
    }

    pub fn looks_at_clean_view_alone(method: Method) -> bool {
        method.views() == ViewUse::CleanView
    }
}

#[cfg(feature = "daemon")]
pub mod recording {
    pub use crate::recording::Recording;
}

pub mod reliability {
    pub use crate::reliability::{ReliabilitySettings, reliability_weights};
}

#[cfg(feature = "cli")]
pub mod report {
    pub use crate::report::png_bytes;
}

pub mod rows {
    pub use crate::products::{Real, scaled_products};
    pub use crate::rows::{softmax, unit_rows};
}

#[cfg(feature = "daemon")]
pub mod source {
    pub use crate::source::JpegSplitter;
}

pub mod text {
    pub use crate::text::{
        Activation, CLIP_EPSILON, Cleaning, Pooling, PromptTokens, Prompts, TextTower, Tokenizer, TowerShape,
        TowerStyle, WeightsFile, WholeTexts, context_tokens, template_tokens,
    };
}

pub mod tuning {
    pub use crate::tuning::{mean_entropy, mean_entropy_backward, weighted_entropy, weighted_entropy_backward};
}

pub mod views {
    pub use crate::views::{
        Arithmetic, Augment, Filter, Pixels, Preprocessing, Region, Resampling, Sampler, Squaring, ViewSettings,
        affine, autocontrast, clean_view_array, decode, encode_jpeg, encode_png, equalize, is_whole_jpeg, make_views,
        posterize, resize, resize_window, rotate, solarize, view_pixels, yuyv_pixels,
    };
}
