//! The frozen image encoder: views `[V, 3, R, R]` to features F `[V, D]`. The only place that names tract.
//!
//! The batch is fixed before the model is optimised (tract lays out a symbolic batch poorly), and views are spread
//! over threads, each with a plan state of its own; tract itself runs single-threaded. Work is cut at multiples of
//! the batch, whatever the number of threads, so that the bits do not depend on it.

mod error;
mod file;
mod fused;
mod memory;
#[cfg(feature = "cli")]
mod onnx;
mod prepared;
mod products;
#[cfg(feature = "cli")]
mod quantise;
mod texts;
mod weights;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use ndarray::{Array1, Array2, ArrayView4, ArrayViewMut2, ArrayViewMut4, Axis, Ix4, parallel::prelude::*};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::DimLike;
use tract_onnx::tract_core::ops::matmul::optimized::OptMatMul;
use tract_onnx::tract_hir::infer::Factoid;

pub use error::EncoderError;
pub use file::ModelFile;
#[cfg(feature = "cli")]
pub(crate) use onnx::{OnnxFile, OnnxValue};
pub(crate) use prepared::PreparedStore;
#[cfg(feature = "cli")]
pub(crate) use prepared::{clear as clear_prepared, usage as prepared_usage};
#[cfg(feature = "cli")]
pub(crate) use quantise::{INT8_OPERATORS_MIN, Layer, Layers, StoredIn, stored_in};
pub(crate) use texts::OnnxTexts;

use crate::cancellation::CancellationToken;
use crate::cause::contained;
use crate::files::{FileError, MappedFile};
use crate::kernels::{FloatKernel, IntKernel};
use crate::rows::{dot, length};
use error::Result;
use fused::{Kernels, lower};
use memory::{check_model, infer_within_bounds};
use prepared::Prepared;
use weights::StoredWeights;

/// Input and output sizes of an encoder; from the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderShape {
    /// Input side R (pixels).
    pub resolution: usize,
    /// Embedding width D.
    pub embedding: usize,
}

/// An encoder as a bundle has it.
#[derive(Clone, Debug)]
pub struct EncoderModel {
    /// The ONNX file: `[N, 3, R, R]` f32 to `[N, D]`, or to `[N, X]` where a projection follows.
    pub onnx: ModelFile,
    /// Name of the output to use; the first if none is named.
    pub output: Option<String>,
    /// A projection `[D, X]` that the ONNX model leaves out.
    pub projection: Option<Array2<f32>>,
}

/// An encoder ready to run.
pub struct Encoder {
    plan: Arc<TypedRunnableModel>,
    projection: Option<Array2<f32>>,
    shape: EncoderShape,
    batch: usize,
    /// What packed weights of an earlier start lie in.
    prepared: Option<Arc<MappedFile>>,
    idle: Mutex<Vec<Worker>>,
}

/// Whose operators run a model.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operators {
    /// The engine's alone.
    Engine,
    /// Ours, where there is one, with these kernels.
    Own(Kernels),
}

impl Operators {
    /// The fastest on this processor: without vectors of ours the engine's own kernels are.
    pub(crate) fn best() -> Self {
        if FloatKernel::best() == FloatKernel::Portable { Self::Engine } else { Self::own() }
    }

    /// Ours, with the fastest kernels that there are for this processor.
    pub(crate) fn own() -> Self {
        Self::Own(Kernels { float: FloatKernel::best(), int8: IntKernel::available()[0] })
    }

    /// True if weights in int8 are multiplied in int8; the engine brings them to f32, which gives other features.
    pub(crate) fn multiplies_in_int8(self) -> bool {
        matches!(self, Self::Own(_))
    }
}

/// One thread's plan state and the input tensor it reuses.
struct Worker {
    state: TypedSimpleState,
    input: Arc<Tensor>,
}

impl Encoder {
    /// Loads `model` for `batch` views at a time, optimises it and checks its shapes.
    ///
    /// # Errors
    /// The bytes are no ONNX model, it uses an operator tract does not run, it has no such output, or its input is not
    /// `[N, 3, R, R]` or its output not of the width expected, in f32; or it would take more memory than an encoder may.
    pub fn load(model: &EncoderModel, shape: EncoderShape, batch: usize) -> Result<Self> {
        Self::load_with(model, shape, batch, Operators::best(), None)
    }

    /// As [`Self::load`], with the packed weights that `store` has, or will have.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) fn load_prepared(
        model: &EncoderModel,
        shape: EncoderShape,
        batch: usize,
        store: Option<&PreparedStore>,
    ) -> Result<Self> {
        Self::load_with(model, shape, batch, Operators::best(), store)
    }

    /// As [`Self::load_prepared`], with these operators.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) fn load_with(
        model: &EncoderModel,
        shape: EncoderShape,
        batch: usize,
        operators: Operators,
        store: Option<&PreparedStore>,
    ) -> Result<Self> {
        contained(|| Self::load_uncontained(model, shape, batch, operators, store))
            .unwrap_or_else(|source| Err(EncoderError::Load { stage: "loaded", source }))
    }

    fn load_uncontained(
        model: &EncoderModel,
        shape: EncoderShape,
        batch: usize,
        operators: Operators,
        store: Option<&PreparedStore>,
    ) -> Result<Self> {
        let failed = |stage| move |source: TractError| EncoderError::Load { stage, source: source.into() };
        let (proto, weights) = StoredWeights::apart(&model.onnx, matches!(operators, Operators::Own(_)))?;
        let parsed = StoredWeights::reader().model_for_proto_model(&proto).map_err(failed("parsed"))?;
        drop(proto);
        if parsed.inputs.len() != 1 || parsed.outputs.is_empty() {
            let found = format!("{} inputs and {} outputs", parsed.inputs.len(), parsed.outputs.len());
            return Err(EncoderError::Shape { what: "interface", expected: "one input, one output".into(), found });
        }
        let input = [batch, 3, shape.resolution, shape.resolution];
        // Now, because the declaration is overwritten below.
        check_declared_input(&parsed, shape)?;
        let parsed = match &model.output {
            Some(name) => parsed.with_outputs_by_name([name]).map_err(failed("asked for its output"))?,
            None => parsed,
        };
        let mut shaped = parsed.with_input_fact(0, f32::fact(input).into()).map_err(failed("given its input shape"))?;
        infer_within_bounds(&mut shaped, batch)?;
        let typed = shaped.into_typed().map_err(failed("given its input shape"))?;
        // Before it is optimised, in which constants are computed.
        check_model(&typed, batch)?;
        let width = model.projection.as_ref().map_or(shape.embedding, Array2::ncols);
        check_output(&typed, batch, width)?;
        let typed = typed.into_decluttered().map_err(failed("optimised"))?;
        let mut prepared = None;
        let typed = match operators {
            Operators::Engine => typed,
            Operators::Own(kernels) => {
                let mut packed = store.map_or_else(Prepared::default, |store| Prepared::open(store, kernels));
                let lowered = lower(&typed, kernels, &weights, &mut packed).map_err(failed("optimised"))?;
                prepared = store.and_then(|store| packed.finish(store));
                lowered
            }
        };
        let optimised = typed.into_optimized().map_err(failed("optimised"))?;
        check_model(&optimised, batch)?;
        let plan = optimised.into_runnable().map_err(failed("optimised"))?;
        Ok(Self { plan, projection: model.projection.clone(), shape, batch, prepared, idle: Mutex::default() })
    }

    /// Views taken at once.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Input and output sizes.
    pub fn shape(&self) -> EncoderShape {
        self.shape
    }

    /// The names of the matrix kernels that run most of the model: ours, and those that the engine found best for this processor.
    pub fn kernels(&self) -> Vec<String> {
        let products = self.plan.model().nodes().iter().filter_map(|node| node.op_as::<OptMatMul>());
        let engine: BTreeSet<&str> =
            products.flat_map(|product| product.mmm.iter().map(|kernel| kernel.name())).collect();
        let own: BTreeSet<String> =
            self.plan.model().nodes().iter().filter_map(|node| fused::kernel_of(&*node.op)).collect();
        own.into_iter().chain(engine.into_iter().map(String::from)).collect()
    }

    /// True if the weights were packed at an earlier start.
    #[cfg(test)]
    fn is_prepared(&self) -> bool {
        self.prepared.is_some()
    }

    /// Names of the operators that the model is made of.
    #[cfg(test)]
    fn operators(&self) -> Vec<String> {
        self.plan.model().nodes().iter().map(|node| node.op.name().to_string()).collect()
    }

    /// Features F `[V, D]`, unit rows, of `views` `[V, 3, R, R]`. Runs on the current rayon pool.
    ///
    /// # Errors
    /// The model fails, or a feature is NaN or infinite, or all of a view's features are 0.
    pub fn encode(&self, views: ArrayView4<f32>) -> Result<Array2<f32>> {
        self.encode_watched(views, &CancellationToken::default())
    }

    /// Features as from [`Self::encode`], with a checkpoint of `token` before every batch.
    ///
    /// # Errors
    /// As [`Self::encode`], or `token` was cancelled.
    pub fn encode_watched(&self, views: ArrayView4<f32>, token: &CancellationToken) -> Result<Array2<f32>> {
        self.encode_made(views.dim().0, token, |first, mut batch| {
            let count = batch.dim().0;
            batch.assign(&views.slice_axis(Axis(0), (first..first + count).into()));
        })
    }

    /// Features of `count` views that `make(first, views)` makes where they are encoded, a batch `[N, 3, R, R]` at a time, with a checkpoint
    /// of `token` before each.
    ///
    /// # Errors
    /// As [`Self::encode_watched`].
    pub(crate) fn encode_made(
        &self,
        count: usize,
        token: &CancellationToken,
        make: impl Fn(usize, ArrayViewMut4<f32>) + Sync,
    ) -> Result<Array2<f32>> {
        if let Some(file) = &self.prepared {
            let failed = |source| FileError::Unreadable { path: file.path().into(), source };
            file.check().map_err(failed)?;
        }
        let mut features = Array2::zeros((count, self.shape.embedding));
        let batches = features.axis_chunks_iter_mut(Axis(0), self.batch).into_par_iter().enumerate();
        // Each for itself: threads that are done take what is left, to the last one.
        batches.with_max_len(1).try_for_each(|(place, rows)| {
            token.checkpoint()?;
            self.encode_chunk(rows, |views| make(place * self.batch, views))
        })?;
        // After all batches and in order, so that an error names the first bad view, whichever thread was faster.
        to_unit_features(&mut features)?;
        Ok(features)
    }

    /// Encodes as many views as `features` has rows, up to one batch; a shorter one is filled up with zeros, whose features are dropped.
    fn encode_chunk(&self, mut features: ArrayViewMut2<f32>, make: impl FnOnce(ArrayViewMut4<f32>)) -> Result<()> {
        let failed = |source: TractError| EncoderError::Run { source: source.into() };
        let mut worker = self.worker().map_err(failed)?;
        worker.fill(features.nrows(), make).map_err(failed)?;
        let input = worker.input.clone().into_tvalue();
        // A worker that panicked is not used again.
        let run = contained(|| worker.state.run(tvec!(input))).map_err(|source| EncoderError::Run { source })?;
        let outputs = run.map_err(failed)?;
        let found = outputs[0].to_plain_array_view::<f32>().map_err(failed)?;
        for (mut row, output) in features.rows_mut().into_iter().zip(found.axis_iter(Axis(0))) {
            match &self.projection {
                None => row.iter_mut().zip(output.iter()).for_each(|(slot, &value)| *slot = value),
                Some(projection) => {
                    let output = Array1::from_iter(output.iter().copied());
                    row.iter_mut().zip(projection.rows()).for_each(|(slot, column)| *slot = dot(column, output.view()));
                }
            }
        }
        drop(outputs);
        // Only here, after a run that went well: a worker whose run failed is dropped with its state.
        self.idle.lock().expect("no thread panics while it holds the idle workers").push(worker);
        Ok(())
    }

    fn worker(&self) -> TractResult<Worker> {
        // A statement of its own, which gives the lock back. Otherwise other threads would wait while a state is made.
        let idle = self.idle.lock().expect("no thread panics while it holds the idle workers").pop();
        idle.map_or_else(
            || {
                let side = self.shape.resolution;
                let input = Arc::new(Tensor::zero::<f32>(&[self.batch, 3, side, side])?);
                Ok(Worker { state: self.plan.spawn()?, input })
            },
            Ok,
        )
    }
}

impl Worker {
    /// Has `count` views made at the front of the input tensor, and puts zeros into the rest; reuses it once the plan has let go.
    fn fill(&mut self, count: usize, make: impl FnOnce(ArrayViewMut4<f32>)) -> TractResult<()> {
        let input = Arc::make_mut(&mut self.input).to_plain_array_view_mut::<f32>()?;
        let (views, mut rest) = input.into_dimensionality::<Ix4>()?.split_at(Axis(0), count);
        make(views);
        rest.fill(0.0);
        Ok(())
    }
}

/// Check of the input that the ONNX file declares against the manifest; a free dimension fits anything.
fn check_declared_input(model: &InferenceModel, shape: EncoderShape) -> Result<()> {
    let fact = model.input_fact(0).map_err(|source| EncoderError::Load { stage: "read", source: source.into() })?;
    let expected = [3, shape.resolution, shape.resolution];
    // The batch is not compared: it may be free, or whatever the exporter had.
    let differs = fact.shape.rank().concretize().is_some_and(|rank| rank != 4)
        || expected.iter().enumerate().any(|(axis, &size)| {
            let declared = fact.shape.dim(axis + 1).and_then(|dim| dim.concretize());
            declared.and_then(|dim| dim.to_usize().ok()).is_some_and(|found| found != size)
        });
    if differs {
        return Err(EncoderError::Shape {
            what: "input",
            expected: format!("[N, 3, {0}, {0}]", shape.resolution),
            found: format!("{:?}", fact.shape),
        });
    }
    Ok(())
}

fn check_output(model: &TypedModel, batch: usize, width: usize) -> Result<()> {
    let fact = model.output_fact(0).map_err(|source| EncoderError::Load { stage: "read", source: source.into() })?;
    let found = fact.shape.as_concrete();
    if fact.datum_type != f32::datum_type() || found != Some(&[batch, width]) {
        return Err(EncoderError::Shape {
            what: "output",
            expected: format!("[{batch}, {width}] in f32"),
            found: format!("{fact:?}"),
        });
    }
    Ok(())
}

fn to_unit_features(features: &mut Array2<f32>) -> Result<()> {
    for (view, mut row) in features.rows_mut().into_iter().enumerate() {
        if let Some((dimension, &value)) = row.indexed_iter().find(|(_, value)| !value.is_finite()) {
            return Err(EncoderError::NotFinite { view, dimension, value });
        }
        let norm = length(row.view());
        // A length that overflows or vanishes has no direction either.
        if !(norm.is_normal()) {
            return Err(EncoderError::Zero { view });
        }
        row.mapv_inplace(|value| value / norm);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn features_that_are_not_finite_are_refused_by_view() {
        let mut features = array![[3.0, 4.0], [1.0, f32::NAN]];
        let error = to_unit_features(&mut features).unwrap_err();
        assert!(matches!(error, EncoderError::NotFinite { view: 1, dimension: 1, .. }), "{error}");
        let mut features = array![[f32::INFINITY, 1.0]];
        assert!(matches!(to_unit_features(&mut features), Err(EncoderError::NotFinite { view: 0, .. })));
        let mut features = array![[3.0, 4.0], [0.0, 0.0]];
        assert!(matches!(to_unit_features(&mut features), Err(EncoderError::Zero { view: 1 })));
        let mut features = array![[3.0, 4.0]];
        to_unit_features(&mut features).unwrap();
        assert_eq!(features, array![[0.6, 0.8]]);
    }
}
