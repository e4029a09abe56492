//! `_core.Shard`.

use std::path::PathBuf;

use numpy::PyArray1;
use numpy::ndarray::ArrayView1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{Keys, check_position, keys_of, tensor_named, without_interpreter};
use crate::python::panics::guarded;
use crate::python::sparsify::{Edges, edges_to_python};
use crate::shard::{self, Layer, Verify};

/// Element type, shape, and the bytes in place.
type StoredTensor<'py> = (String, Bound<'py, PyTuple>, Bound<'py, PyArray1<u8>>);

/// A shard open for reading; see [`crate::shard::Shard`].
#[pyclass(frozen, module = "hallutrace._core")]
pub struct Shard {
    shard: shard::Shard,
}

impl Shard {
    /// The shard itself.
    pub fn shard(&self) -> &shard::Shard {
        &self.shard
    }
}

#[pymethods]
impl Shard {
    #[new]
    #[pyo3(signature = (path, *, verify = "first"))]
    fn new(py: Python<'_>, path: PathBuf, verify: &str) -> PyResult<Self> {
        let when = match verify {
            "first" => Verify::First,
            "always" => Verify::Always,
            "never" => Verify::Never,
            _ => return Err(PyValueError::new_err(format!("no way to verify called {verify:?}"))),
        };
        let open = || shard::Shard::open_with(&path, when);
        Ok(Self { shard: guarded(py, || without_interpreter(py, open))? })
    }

    fn __len__(&self) -> usize {
        self.shard.traces().len()
    }

    #[getter]
    fn bytes(&self) -> usize {
        self.shard.bytes().len()
    }

    /// Per trace, in the order of the file: number, question id, sample.
    fn keys(&self) -> Keys {
        keys_of(self.shard.traces())
    }

    /// What the shard says of itself, as JSON.
    fn commit(&self) -> String {
        self.shard.commit().to_json()
    }

    /// Element type, shape and bytes (a view) of one tensor; `None` where the trace has none.
    fn tensor<'py>(
        slf: &Bound<'py, Self>,
        position: usize,
        name: &str,
    ) -> PyResult<Option<StoredTensor<'py>>> {
        let py = slf.py();
        let shard = &slf.get().shard;
        check_position(shard, position)?;
        let tensor = tensor_named(name)?;
        // A tensor that is read for the first time is hashed, which takes a while for large ones.
        let read = || shard.tensor(position, tensor);
        let found = guarded(py, || without_interpreter(py, read))?;
        let Some((form, bytes)) = found else { return Ok(None) };
        let view = ArrayView1::from(bytes);
        // SAFETY: the bytes belong to the mapping that `slf` owns, `slf` is the array's base and so
        // outlives it, and the array is made read-only before anyone sees it.
        #[allow(unsafe_code)]
        let array = unsafe { PyArray1::borrow_from_array(&view, slf.clone().into_any()) };
        array.call_method1("setflags", (false,))?;
        Ok(Some((format!("{:?}", form.dtype), PyTuple::new(py, &form.shape)?, array)))
    }

    fn layer<'py>(
        &self,
        py: Python<'py>,
        position: usize,
        at: usize,
        heads: usize,
        combine: &str,
    ) -> PyResult<Edges<'py>> {
        check_position(&self.shard, position)?;
        let layer = Layer { at, heads, combine: combine.parse()? };
        let read = || self.shard.layer(position, layer);
        edges_to_python(py, guarded(py, || without_interpreter(py, read))?)
    }

    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        guarded(py, || without_interpreter(py, || self.shard.verify()))
    }

    /// XXH3 of the whole file, in hexadecimal.
    fn digest(&self, py: Python<'_>) -> PyResult<String> {
        let digest = guarded(py, || without_interpreter(py, || self.shard.digest()))?;
        Ok(format!("{digest:016x}"))
    }
}
