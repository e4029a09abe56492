//! `_core.ShardWriter`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use numpy::{Element, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::reader::Shard;
use super::{check_position, tensor_named, without_interpreter};
use crate::error::ShardError;
use crate::python::panics::{guarded, guarded_or};
use crate::shard::record::{Record, StoredTypes};
use crate::shard::{self, Array, Description, Disk, Dtype, Outcome, Plan, ShardPaths, Values};

/// Streams traces into a shard; see [`crate::shard::ShardWriter`].
#[pyclass(frozen, module = "hallutrace._core")]
pub struct ShardWriter {
    writer: Mutex<shard::ShardWriter>,
}

impl ShardWriter {
    /// Lets go of the interpreter and acts on the writer.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&mut shard::ShardWriter) -> Result<T, ShardError> + Send,
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
        run, name, identity, traces, description, *, edge_weight = "float16", hidden = "float32"
    ))]
    #[expect(clippy::too_many_arguments, reason = "Python names them")]
    fn new(
        py: Python<'_>,
        run: PathBuf,
        name: &str,
        identity: String,
        traces: usize,
        description: &str,
        edge_weight: &str,
        hidden: &str,
    ) -> PyResult<Self> {
        let types =
            StoredTypes { edge_weight: dtype_named(edge_weight)?, hidden: dtype_named(hidden)? };
        let description: Description = serde_json::from_str(description).map_err(|error| {
            PyValueError::new_err(format!("no description of a shard: {error}"))
        })?;
        let paths = ShardPaths::of(&run, name);
        let plan = Plan { identity, description, traces, types };
        let begin = || shard::ShardWriter::begin(Arc::new(Disk), paths, plan);
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
        let shard = shard.get().shard();
        check_position(shard, position)?;
        self.with(py, |writer| writer.append_from(shard, position, number))
    }

    fn end_batch(&self, py: Python<'_>, note: &str) -> PyResult<()> {
        self.with(py, |writer| writer.end_batch(note))
    }

    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, shard::ShardWriter::sync)
    }

    fn check_names(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |writer| writer.check_names())
    }

    fn notes(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |writer| Ok(writer.notes().to_vec()))
    }

    fn finish(
        &self,
        py: Python<'_>,
        counts: BTreeMap<String, u64>,
        indices: Vec<u64>,
        halvings: Vec<[u32; 2]>,
    ) -> PyResult<(u64, String)> {
        let outcome = Outcome { counts, halvings, indices };
        let done = self.with(py, |writer| writer.finish(outcome))?;
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

fn dtype_named(name: &str) -> PyResult<Dtype> {
    match name {
        "float32" => Ok(Dtype::F32),
        "float16" => Ok(Dtype::F16),
        "bfloat16" => Ok(Dtype::BF16),
        "int8" => Ok(Dtype::I8),
        _ => Err(PyValueError::new_err(format!("no stored type {name:?}"))),
    }
}
