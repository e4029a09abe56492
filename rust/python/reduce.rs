//! The reducer of the pipeline for Python.

use numpy::{PyArray1, PyArray2, PyArray3, PyUntypedArray};
use pyo3::prelude::*;

use super::arrays::{Attention, array};
use super::panics::{guarded, guarded_or};
use crate::error::InputError;
use crate::reduce;
use crate::sparsify::Rules;

/// One layer of one batch of right-padded sequences, given block by block.
#[pyclass(module = "hallutrace._core")]
struct LayerReducer {
    /// None once it has finished.
    reducer: Option<reduce::LayerReducer>,
}

#[pymethods]
impl LayerReducer {
    #[new]
    #[pyo3(signature = (
        heads, sequences, *, top_k, min_weight, top_mass, combine, answer_edges, all_marginal_rows
    ))]
    #[expect(clippy::too_many_arguments, reason = "the arguments of the Python class")]
    fn new(
        py: Python<'_>,
        heads: usize,
        sequences: Vec<(usize, usize, Vec<usize>)>,
        top_k: Option<usize>,
        min_weight: f64,
        top_mass: Option<f64>,
        combine: &str,
        answer_edges: bool,
        all_marginal_rows: bool,
    ) -> PyResult<Self> {
        guarded(py, || {
            let selection = (Rules::new(top_k, min_weight, top_mass)?, combine.parse()?);
            let shape =
                |(tokens, prompt, segments)| reduce::SequenceShape { tokens, prompt, segments };
            let shapes = sequences.into_iter().map(shape).collect();
            let kept = (answer_edges, all_marginal_rows);
            let reducer = reduce::LayerReducer::new(heads, shapes, selection, kept.0, kept.1)?;
            Ok(Self { reducer: Some(reducer) })
        })
    }

    /// Takes the block of rows that follows, `[sequences, heads, rows, keys]`.
    fn push(
        &mut self,
        py: Python<'_>,
        attention: &Bound<'_, PyUntypedArray>,
        bfloat16: bool,
        first_query: usize,
    ) -> PyResult<()> {
        let Self { reducer: whole } = self;
        let mut is_spoilt = false;
        let pushed = guarded_or(
            py,
            || {
                let reducer = whole.as_mut().ok_or(InputError::Finished)?;
                let batch = Attention::new(attention, bfloat16).batch()?;
                Ok(py.detach(|| reducer.push(&batch, first_query))?)
            },
            || is_spoilt = true,
        );
        if is_spoilt {
            *whole = None;
        }
        pushed
    }

    /// One reduction per sequence; the reducer is spent.
    fn finish(&mut self, py: Python<'_>) -> PyResult<Vec<LayerReduction>> {
        let reducer = self.reducer.take().ok_or(InputError::Finished)?;
        guarded(py, || {
            let reductions = py.detach(|| reducer.finish())?;
            reductions.into_iter().map(|reduction| LayerReduction::new(py, reduction)).collect()
        })
    }
}

/// What a layer of one sequence comes to.
#[pyclass(module = "hallutrace._core", frozen, get_all)]
struct LayerReduction {
    indptr: Py<PyArray2<i32>>,
    keys: Py<PyArray1<i32>>,
    weights: Py<PyArray1<f32>>,
    diagonal: Py<PyArray2<f32>>,
    received_mean: Py<PyArray2<f32>>,
    previous: Py<PyArray2<f32>>,
    entropy: Py<PyArray2<f32>>,
    square: Py<PyArray2<f32>>,
    mass: Py<PyArray3<f32>>,
    rough: Py<PyArray3<f32>>,
    log_diagonal: Py<PyArray2<f32>>,
    log_square: Py<PyArray2<f32>>,
}

impl LayerReduction {
    fn new(py: Python<'_>, reduction: reduce::LayerReduction) -> PyResult<Self> {
        let [graphs, heads, tokens, details, segments] = reduction.shape;
        Ok(Self {
            indptr: array(py, reduction.indptr, (graphs, tokens + 1))?.unbind(),
            keys: PyArray1::from_vec(py, reduction.keys).unbind(),
            weights: PyArray1::from_vec(py, reduction.weights).unbind(),
            diagonal: array(py, reduction.diagonal, (heads, tokens))?.unbind(),
            received_mean: array(py, reduction.received_mean, (heads, tokens))?.unbind(),
            previous: array(py, reduction.previous, (heads, details))?.unbind(),
            entropy: array(py, reduction.entropy, (heads, details))?.unbind(),
            square: array(py, reduction.square, (heads, details))?.unbind(),
            mass: array(py, reduction.mass, (heads, details, segments))?.unbind(),
            rough: array(py, reduction.rough, (heads, details, segments))?.unbind(),
            log_diagonal: array(py, reduction.log_diagonal, (heads, 2))?.unbind(),
            log_square: array(py, reduction.log_square, (heads, 2))?.unbind(),
        })
    }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<LayerReducer>()?;
    module.add_class::<LayerReduction>()
}
