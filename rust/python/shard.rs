//! `_core.ShardWriter` and `_core.Shard`: convert, detach from the interpreter, map the error.
#![expect(clippy::needless_pass_by_value, reason = "pyo3 hands arguments over by value")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use numpy::ndarray::ArrayView1;
use numpy::{
    Element, PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::errors::to_python;
use super::panics::{guarded, guarded_or};
use super::sparsify::{Edges, edges_to_python};
use crate::error::{Error, ShardError};
use crate::shard::Disk;
use crate::shard::encode::{Array, Values};
use crate::shard::graph::Layer;
use crate::shard::reader::Verify;
use crate::shard::record::{Record, StoredTypes};
use crate::shard::schema::{Dtype, Tensor};
use crate::shard::{files, reader, writer};

/// Adds this room's classes to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ShardWriter>()?;
    module.add_class::<Shard>()?;
    module.add_function(wrap_pyfunction!(publish, module)?)?;
    module.add_function(wrap_pyfunction!(write_new, module)?)
}

/// A numpy array that is being read.
enum Held<'py> {
    F32(PyReadonlyArrayDyn<'py, f32>),
    F16(PyReadonlyArrayDyn<'py, f16>),
    I64(PyReadonlyArrayDyn<'py, i64>),
    I32(PyReadonlyArrayDyn<'py, i32>),
    U16(PyReadonlyArrayDyn<'py, u16>),
    I8(PyReadonlyArrayDyn<'py, i8>),
    U8(PyReadonlyArrayDyn<'py, u8>),
}

impl<'py> Held<'py> {
    fn of(array: &Bound<'py, PyAny>) -> PyResult<Self> {
        fn read<'py, T: Element>(array: &Bound<'py, PyAny>) -> Option<PyReadonlyArrayDyn<'py, T>> {
            array.cast::<PyArrayDyn<T>>().ok()?.try_readonly().ok()
        }
        read(array)
            .map(Self::F32)
            .or_else(|| read(array).map(Self::F16))
            .or_else(|| read(array).map(Self::I64))
            .or_else(|| read(array).map(Self::I32))
            .or_else(|| read(array).map(Self::U16))
            .or_else(|| read(array).map(Self::I8))
            .or_else(|| read(array).map(Self::U8))
            .ok_or_else(|| {
                PyTypeError::new_err("Expected a numpy array of a type that shards store")
            })
    }

    fn array(&self) -> PyResult<Array<'_>> {
        fn parts<'a, T: Element>(
            array: &'a PyReadonlyArrayDyn<'_, T>,
            values: impl Fn(&'a [T]) -> Values<'a>,
        ) -> PyResult<Array<'a>> {
            if !array.is_c_contiguous() {
                return Err(PyValueError::new_err("Expected an array in C order"));
            }
            let shape = array.as_array().shape().to_vec();
            Ok(Array { values: values(array.as_slice()?), shape })
        }
        match self {
            Self::F32(array) => parts(array, Values::F32),
            Self::F16(array) => parts(array, Values::F16),
            Self::I64(array) => parts(array, Values::I64),
            Self::I32(array) => parts(array, Values::I32),
            Self::U16(array) => parts(array, Values::U16),
            Self::I8(array) => parts(array, Values::I8),
            Self::U8(array) => parts(array, Values::U8),
        }
    }
}

fn tensor_named(name: &str) -> PyResult<Tensor> {
    Tensor::named(name)
        .ok_or_else(|| PyValueError::new_err(format!("no tensor {name:?} in schema 1")))
}

fn dtype_named(name: &str) -> PyResult<Dtype> {
    match name {
        "float32" => Ok(Dtype::F32),
        "float16" => Ok(Dtype::F16),
        "bfloat16" => Ok(Dtype::BF16),
        "int8" => Ok(Dtype::I8),
        _ => Err(PyValueError::new_err(format!("no stored type {name:?}"))),
    }
}

/// Lets go of the interpreter, and maps the error.
fn without_interpreter<T: Send>(
    py: Python<'_>,
    act: impl FnOnce() -> Result<T, ShardError> + Send,
) -> PyResult<T> {
    py.detach(act).map_err(|error| to_python(py, &Error::Shard(error)))
}

/// Streams traces into a shard; see the module `shard::writer` of the crate.
#[pyclass(frozen, module = "hallutrace._core")]
pub struct ShardWriter {
    writer: Mutex<writer::ShardWriter>,
}

impl ShardWriter {
    /// Lets go of the interpreter and acts on the writer.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&mut writer::ShardWriter) -> Result<T, ShardError> + Send,
    ) -> PyResult<T> {
        let lock = || self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        guarded_or(
            py,
            || without_interpreter(py, || act(&mut lock())),
            // What it has written is anybody's guess.
            || lock().spend(),
        )
    }
}

#[pymethods]
impl ShardWriter {
    #[new]
    #[pyo3(signature = (
        run, name, identity, traces, *, edge_weight = "float16", hidden = "float32"
    ))]
    fn new(
        py: Python<'_>,
        run: PathBuf,
        name: &str,
        identity: &str,
        traces: usize,
        edge_weight: &str,
        hidden: &str,
    ) -> PyResult<Self> {
        let types =
            StoredTypes { edge_weight: dtype_named(edge_weight)?, hidden: dtype_named(hidden)? };
        let places = writer::places(&run, name);
        let begin = || writer::ShardWriter::begin(Arc::new(Disk), places, identity, traces, types);
        let writer = guarded(py, || without_interpreter(py, begin))?;
        Ok(Self { writer: Mutex::new(writer) })
    }

    fn append(
        &self,
        py: Python<'_>,
        number: usize,
        id: String,
        sample: u32,
        arrays: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let mut held = Vec::with_capacity(arrays.len());
        for (name, array) in arrays {
            held.push((tensor_named(&name.extract::<String>()?)?, Held::of(&array)?));
        }
        let mut record = Record { number, key: (id, sample), arrays: Default::default() };
        for (tensor, array) in &held {
            record.arrays[*tensor as usize] = Some(array.array()?);
        }
        self.with(py, |writer| writer.append(&record))
    }

    fn append_from(
        &self,
        py: Python<'_>,
        shard: &Bound<'_, Shard>,
        position: usize,
        number: usize,
    ) -> PyResult<()> {
        let shard = &shard.get().shard;
        check_position(shard, position)?;
        self.with(py, |writer| writer.append_from(shard, position, number))
    }

    fn end_batch(&self, py: Python<'_>, note: &str) -> PyResult<()> {
        self.with(py, |writer| writer.end_batch(note))
    }

    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, writer::ShardWriter::sync)
    }

    fn check_names(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |writer| writer.check_names())
    }

    fn notes(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |writer| Ok(writer.notes().to_vec()))
    }

    fn finish(&self, py: Python<'_>) -> PyResult<(u64, String)> {
        let done = self.with(py, writer::ShardWriter::finish)?;
        Ok((done.bytes, format!("{:016x}", done.checksum)))
    }

    fn forget(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |writer| writer.forget())
    }

    /// Seconds spent waiting for syncs.
    #[getter]
    fn syncing(&self, py: Python<'_>) -> PyResult<f64> {
        self.with(py, |writer| Ok(writer.syncing().as_secs_f64()))
    }

    #[getter]
    fn data_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |writer| Ok(writer.data_bytes()))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |writer| Ok(writer.len()))
    }
}

/// Element type, shape, and the bytes in place.
type StoredTensor<'py> = (String, Bound<'py, PyTuple>, Bound<'py, PyArray1<u8>>);

/// A shard open for reading; see the module `shard::reader` of the crate.
#[pyclass(frozen, module = "hallutrace._core")]
pub struct Shard {
    shard: reader::Shard,
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
        let open = || reader::Shard::open_with(&path, when);
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
    fn keys(&self) -> Vec<(usize, String, u32)> {
        let traces = self.shard.traces().iter();
        traces.map(|trace| (trace.number, trace.key.0.clone(), trace.key.1)).collect()
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

fn check_position(shard: &reader::Shard, position: usize) -> PyResult<()> {
    if position < shard.traces().len() {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("no trace at position {position}")))
}

/// Moves a synced file to its final name, never over another, and syncs the folders.
#[pyfunction]
fn publish(py: Python<'_>, scratch: PathBuf, to: PathBuf) -> PyResult<()> {
    guarded(py, || without_interpreter(py, || files::publish(&Disk, &scratch, &to)))
}

/// Writes a small file durably and never over another; `scratch` is where it lies until it is whole.
#[pyfunction]
fn write_new(py: Python<'_>, scratch: PathBuf, to: PathBuf, content: &[u8]) -> PyResult<()> {
    let write = || files::write_new(&Disk, &scratch, &to, content);
    guarded(py, || without_interpreter(py, write))
}
