//! Shards for Python: convert, detach from the interpreter, map the error.
#![expect(clippy::needless_pass_by_value, reason = "pyo3 hands arguments over by value")]

mod reader;
mod writer;

use std::path::PathBuf;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::errors::to_python;
use super::panics::guarded;
use crate::error::{Error, ShardError};
use crate::shard::schema::{SCHEMA, Tensor};
use crate::shard::{self, Disk, ShardPaths, TraceEntry, files};

/// Adds this room's classes to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<writer::ShardWriter>()?;
    module.add_class::<reader::Shard>()?;
    module.add_function(wrap_pyfunction!(take_published, module)?)?;
    module.add_function(wrap_pyfunction!(publish, module)?)?;
    module.add_function(wrap_pyfunction!(write_new, module)?)
}

fn tensor_named(name: &str) -> PyResult<Tensor> {
    Tensor::named(name)
        .ok_or_else(|| PyValueError::new_err(format!("no tensor {name:?} in schema {SCHEMA}")))
}

/// Lets go of the interpreter, and maps the error.
fn without_interpreter<T: Send>(
    py: Python<'_>,
    act: impl FnOnce() -> Result<T, ShardError> + Send,
) -> PyResult<T> {
    py.detach(act).map_err(|error| to_python(py, &Error::Shard(error)))
}

fn check_position(shard: &shard::Shard, position: usize) -> PyResult<()> {
    if position < shard.traces().len() {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("no trace at position {position}")))
}

/// Number, question id and sample of each trace.
type Keys = Vec<(usize, String, u32)>;

fn keys_of(traces: &[TraceEntry]) -> Keys {
    traces.iter().map(|trace| (trace.number, trace.key.0.clone(), trace.key.1)).collect()
}

/// What a finished shard says of itself (JSON), its keys, its size and its checksum; `None` without one.
#[pyfunction]
fn take_published(
    py: Python<'_>,
    run: PathBuf,
    name: &str,
) -> PyResult<Option<(String, Keys, u64, String)>> {
    let paths = ShardPaths::of(&run, name);
    let take = || shard::take_published(&Disk, &paths);
    let found = guarded(py, || without_interpreter(py, take))?;
    Ok(found.map(|shard| {
        let checksum = format!("{:016x}", shard.finished.checksum);
        (shard.commit.to_json(), keys_of(&shard.traces), shard.finished.bytes, checksum)
    }))
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
