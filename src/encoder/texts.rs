//! A text tower in ONNX, whatever it is made of: token numbers `[1, L]` to an embedding `[1, D]`.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2, Axis, parallel::prelude::*};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceFact;

use super::error::EncoderError;
use super::file::ModelFile;
use super::memory::{check_model, infer_within_bounds};
use super::weights::StoredWeights;
use crate::cause::{Cause, contained};

type Result<T> = std::result::Result<T, Cause>;

/// The tower, ready to run.
pub(crate) struct OnnxTexts {
    plan: Arc<TypedRunnableModel>,
    embedding: usize,
}

impl OnnxTexts {
    /// Loads a tower whose texts have `length` L tokens, with the output of that name, or the first.
    ///
    /// # Errors
    /// It is no ONNX model, uses an operator tract does not run, takes more than token numbers, gives no row of `embedding` D
    /// numbers, or would take more memory than an encoder may.
    pub(crate) fn load(onnx: &ModelFile, output: Option<&str>, length: usize, embedding: usize) -> Result<Self> {
        contained(|| Self::load_uncontained(onnx, output, length, embedding)).unwrap_or_else(Err)
    }

    fn load_uncontained(onnx: &ModelFile, output: Option<&str>, length: usize, embedding: usize) -> Result<Self> {
        let (proto, _) = StoredWeights::apart(onnx, false).map_err(in_words)?;
        let mut parsed = StoredWeights::reader().model_for_proto_model(&proto)?;
        drop(proto);
        if parsed.inputs.len() != 1 {
            return Err(format!("it has {} inputs, expected the token numbers alone", parsed.inputs.len()).into());
        }
        if let Some(name) = output {
            parsed = parsed.with_outputs_by_name([name])?;
        }
        let tokens = InferenceFact::dt_shape(i64::datum_type(), [1, length]);
        let mut shaped = parsed.with_input_fact(0, tokens)?;
        infer_within_bounds(&mut shaped, 1).map_err(in_words)?;
        let typed = shaped.into_typed()?;
        check_model(&typed, 1).map_err(in_words)?;
        let fact = typed.output_fact(0)?;
        if fact.datum_type != f32::datum_type() || fact.shape.as_concrete() != Some(&[1, embedding]) {
            return Err(format!("its output is {fact:?}, expected [1, {embedding}] in f32").into());
        }
        let optimised = typed.into_decluttered()?.into_optimized()?;
        check_model(&optimised, 1).map_err(in_words)?;
        Ok(Self { plan: optimised.into_runnable()?, embedding })
    }

    /// The embeddings `[N, D]`, of any length, of texts `[N, L]`. Runs on the current rayon pool.
    ///
    /// # Errors
    /// The model fails.
    pub(crate) fn encode(&self, tokens: ArrayView2<i64>) -> Result<Array2<f32>> {
        let mut embeddings = Array2::zeros((tokens.nrows(), self.embedding));
        let rows = embeddings.axis_iter_mut(Axis(0)).into_par_iter().zip(tokens.axis_iter(Axis(0)));
        rows.try_for_each(|(mut row, tokens)| {
            let input = Array2::from_shape_vec((1, tokens.len()), tokens.to_vec())?;
            let input: Tensor = input.into();
            let outputs = contained(|| self.plan.run(tvec!(input.into_tvalue())))??;
            let found = outputs[0].to_plain_array_view::<f32>()?;
            row.iter_mut().zip(&found).for_each(|(slot, &value)| *slot = value);
            Ok::<(), Cause>(())
        })?;
        Ok(embeddings)
    }
}

/// What is wrong, without the words that it is of an image encoder.
fn in_words(error: EncoderError) -> Cause {
    match error {
        EncoderError::Load { stage, source } => format!("it cannot be {stage}: {source}").into(),
        EncoderError::Memory { node, found, limit } => {
            format!("it asks for {} MiB at {node:?}, expected at most {} MiB", found >> 20, limit >> 20).into()
        }
        EncoderError::Unbounded { node, operator, why } => format!("it has {operator} at {node:?}, {why}").into(),
        error => error.into(),
    }
}
