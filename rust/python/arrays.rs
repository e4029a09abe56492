//! Arrays of numpy, borrowed for reading and made from vectors.

use half::{bf16, f16};
use numpy::ndarray::{Array, Dimension, IntoDimension};
use numpy::npyffi::NPY_TYPES;
use numpy::{Element, PyArray, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::attention::{AttentionView, BatchView, Elements, Layout};
use crate::error::InputError;

/// An attention array that outlives the views of it.
pub(super) struct Attention<'a, 'py> {
    array: &'a Bound<'py, PyUntypedArray>,
    bfloat16: bool,
}

impl<'a, 'py> Attention<'a, 'py> {
    /// An array of float32 or float16, or of uint16 that holds the bits of `bfloat16`.
    pub fn new(array: &'a Bound<'py, PyUntypedArray>, bfloat16: bool) -> Self {
        Self { array, bfloat16 }
    }

    /// One matrix: `[heads, queries, keys]` or `[queries, keys]`.
    pub fn view(
        &self,
        causal: bool,
        first_query: Option<i64>,
    ) -> Result<AttentionView<'a>, InputError> {
        let expected = "[heads, queries, keys] or [queries, keys]";
        let axes = match (self.array.shape(), self.strides()?.as_slice()) {
            (&[queries, keys], &[query_stride, _]) => [1, queries, keys, 0, query_stride],
            (&[heads, queries, keys], &[head_stride, query_stride, _]) => {
                [heads, queries, keys, head_stride, query_stride]
            }
            (shape, _) => return Err(InputError::Axes { expected, shape: shape.to_vec() }),
        };
        AttentionView::new(self.elements()?, layout(axes), causal, first_query)
    }

    /// A block of a batch: `[sequences, heads, rows, keys]`.
    pub fn batch(&self) -> Result<BatchView<'a>, InputError> {
        let expected = "[sequences, heads, rows, keys]";
        match (self.array.shape(), self.strides()?.as_slice()) {
            (&[sequences, heads, rows, keys], &[stride, head_stride, query_stride, _]) => {
                let axes = [heads, rows, keys, head_stride, query_stride];
                BatchView::new(self.elements()?, layout(axes), sequences, stride)
            }
            (shape, _) => Err(InputError::Axes { expected, shape: shape.to_vec() }),
        }
    }

    /// Strides in elements; 0 for axes with at most one place and for empty arrays, where numpy gives
    /// any.
    fn strides(&self) -> Result<Vec<usize>, InputError> {
        let (shape, bytes) = (self.array.shape(), self.array.strides());
        let refused = || InputError::Strides { strides: bytes.to_vec() };
        let size = self.array.dtype().itemsize();
        if shape.contains(&0) {
            return Ok(vec![0; shape.len()]);
        }
        let mut strides = Vec::with_capacity(bytes.len());
        for (&length, &stride) in shape.iter().zip(bytes) {
            let stride = if length > 1 { stride } else { 0 };
            let stride = usize::try_from(stride).map_err(|_| refused())?;
            if stride % size != 0 {
                return Err(refused());
            }
            strides.push(stride / size);
        }
        let has_unit_stride = match (shape, strides.as_slice()) {
            ([.., keys], [.., stride]) => *keys <= 1 || *stride == 1,
            _ => true,
        };
        if self.array.is_aligned() && has_unit_stride { Ok(strides) } else { Err(refused()) }
    }

    /// All memory from the first weight to the last; [`Self::strides`] has been asked before.
    fn elements(&self) -> Result<Elements<'a>, InputError> {
        let dtype = self.array.dtype();
        let is_native = dtype.is_native_byteorder().unwrap_or(false);
        let is = |kind: NPY_TYPES| is_native && dtype.num() == kind as i32;
        if self.bfloat16 && is(NPY_TYPES::NPY_USHORT) {
            Ok(Elements::Bf16(self.slice::<bf16>()?))
        } else if !self.bfloat16 && is(NPY_TYPES::NPY_FLOAT) {
            Ok(Elements::F32(self.slice::<f32>()?))
        } else if !self.bfloat16 && is(NPY_TYPES::NPY_HALF) {
            Ok(Elements::F16(self.slice::<f16>()?))
        } else {
            let (dtype, shape) = (dtype.to_string(), self.array.shape().to_vec());
            Err(InputError::Dtype { dtype, shape })
        }
    }

    /// The memory of the array, as a type of the same size for which any bits are valid.
    #[allow(unsafe_code)]
    fn slice<T>(&self) -> Result<&'a [T], InputError> {
        let strides = self.strides()?;
        let axes = || self.array.shape().iter().zip(&strides);
        if axes().any(|(&length, _)| length == 0) {
            return Ok(&[]);
        }
        let length = axes().map(|(&length, &stride)| (length - 1) * stride).sum::<usize>() + 1;
        // SAFETY: the array is aligned for its elements, which are as large as T (checked by type number,
        // and size_of below) and are plain numbers; no axis is empty and no stride negative, so numpy's
        // pointer is that of the lowest element and `length` of them lie within the memory numpy
        // describes, which lives as long as the array, borrowed for 'a. While the interpreter is
        // detached, another Python thread can still write to the array, or resize it against the check
        // of references: numpy does not guard against that either, and the documentation asks callers
        // not to. Weights read then may be old or new; they are copied into registers and checked anew, and
        // no index is made from them.
        unsafe {
            let array = self.array.as_array_ptr();
            assert_eq!(self.array.dtype().itemsize(), size_of::<T>());
            Ok(std::slice::from_raw_parts((*array).fields.data.cast::<T>(), length))
        }
    }
}

fn layout([heads, queries, keys, head_stride, query_stride]: [usize; 5]) -> Layout {
    Layout { heads, queries, keys, head_stride, query_stride }
}

/// A numpy array of a vector, which is moved, not copied.
pub(super) fn array<T: Element, D: Dimension>(
    py: Python<'_>,
    values: Vec<T>,
    shape: impl IntoDimension<Dim = D>,
) -> PyResult<Bound<'_, PyArray<T, D>>> {
    // A vector reshaped afterwards would be two objects of Python.
    let array = Array::from_shape_vec(shape.into_dimension(), values);
    let array = array.map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(PyArray::from_owned_array(py, array))
}
