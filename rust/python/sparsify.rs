//! `sparsify` and `marginals` for Python; arguments are checked there and in the core.

use numpy::{PyArray1, PyArray2, PyArray3, PyUntypedArray};
use pyo3::prelude::*;

use super::arrays::{Attention, array};
use super::panics::guarded;
use crate::edges::EdgeList;
use crate::marginals::Segments;
use crate::reduce;
use crate::simd::InstructionSet;
use crate::sparsify::{Combine, Rules};

/// `(indptr, keys, weights, retained, shape, first_query)`.
pub(super) type Edges<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i32>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray2<f32>>,
    (usize, usize, usize),
    usize,
);

type Marginals<'py> = (
    Bound<'py, PyArray2<f32>>,
    Bound<'py, PyArray2<f32>>,
    Bound<'py, PyArray2<f32>>,
    Bound<'py, PyArray2<f32>>,
    Bound<'py, PyArray2<f32>>,
    Bound<'py, PyArray3<f32>>,
    Bound<'py, PyArray3<f32>>,
);

#[pyfunction]
#[pyo3(signature = (attention, bfloat16, *, top_k, min_weight, top_mass, heads, causal, first_query))]
#[expect(clippy::too_many_arguments, reason = "the arguments of the Python function")]
fn sparsify<'py>(
    py: Python<'py>,
    attention: &Bound<'py, PyUntypedArray>,
    bfloat16: bool,
    top_k: Option<usize>,
    min_weight: f64,
    top_mass: Option<f64>,
    heads: &str,
    causal: bool,
    first_query: Option<i64>,
) -> PyResult<Edges<'py>> {
    guarded(py, || {
        let rules = Rules::new(top_k, min_weight, top_mass)?;
        let combine: Combine = heads.parse()?;
        let view = Attention::new(attention, bfloat16).view(causal, first_query)?;
        let edges = py.detach(|| reduce::sparsify(&view, rules, combine))?;
        edges_to_python(py, edges)
    })
}

/// The arrays of edges, moved.
pub(super) fn edges_to_python(py: Python<'_>, edges: EdgeList) -> PyResult<Edges<'_>> {
    let ([heads, queries, keys], first_query) = (edges.shape(), edges.first_query());
    let arrays = edges.into_arrays();
    Ok((
        PyArray1::from_vec(py, arrays.indptr),
        PyArray1::from_vec(py, arrays.keys),
        PyArray1::from_vec(py, arrays.weights),
        array(py, arrays.retained, (heads, queries))?,
        (heads, queries, keys),
        first_query,
    ))
}

/// `(diagonal, previous, received, entropy, square, mass, rough)`.
#[pyfunction]
#[pyo3(signature = (attention, bfloat16, *, segments, causal, first_query))]
fn marginals<'py>(
    py: Python<'py>,
    attention: &Bound<'py, PyUntypedArray>,
    bfloat16: bool,
    segments: Vec<usize>,
    causal: bool,
    first_query: Option<i64>,
) -> PyResult<Marginals<'py>> {
    guarded(py, || {
        let view = Attention::new(attention, bfloat16).view(causal, first_query)?;
        let segments = Segments::new(segments, view.keys())?;
        let (heads, queries, keys, count) =
            (view.heads(), view.queries(), view.keys(), segments.count());
        let marginals = py.detach(|| reduce::marginals(&view, segments))?;
        Ok((
            array(py, marginals.diagonal, (heads, queries))?,
            array(py, marginals.previous, (heads, queries))?,
            array(py, marginals.received, (heads, keys))?,
            array(py, marginals.entropy, (heads, queries))?,
            array(py, marginals.square, (heads, queries))?,
            array(py, marginals.mass, (heads, queries, count))?,
            array(py, marginals.rough, (heads, queries, count))?,
        ))
    })
}

/// The instruction set in use.
#[pyfunction]
fn instruction_set() -> PyResult<&'static str> {
    Ok(InstructionSet::current()?.name())
}

/// The instruction sets that this machine has, the fastest first.
#[pyfunction]
fn instruction_sets() -> Vec<&'static str> {
    InstructionSet::available().into_iter().map(InstructionSet::name).collect()
}

/// Makes an instruction set the one in use on this thread; `None` for the one chosen at the start.
#[pyfunction]
fn _use_instruction_set(name: Option<&str>) -> PyResult<()> {
    InstructionSet::use_on_thread(name.map(str::parse).transpose()?);
    Ok(())
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sparsify, module)?)?;
    module.add_function(wrap_pyfunction!(instruction_set, module)?)?;
    module.add_function(wrap_pyfunction!(instruction_sets, module)?)?;
    module.add_function(wrap_pyfunction!(_use_instruction_set, module)?)?;
    module.add_function(wrap_pyfunction!(marginals, module)?)
}
