//! Maps the crate's error to the classes of `hallutrace.errors`, one `match`.

use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::error::{Error, ShardError};

/// The Python exception for an error of the core.
pub fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error {
        Error::Input(_) | Error::Shard(ShardError::Trace { .. }) => "InputError",
        Error::Shard(ShardError::Damaged { .. }) => "DamagedError",
        Error::Shard(_) => "StorageError",
    };
    match find(py, class) {
        Ok(class) => PyErr::from_type(class, error.to_string()),
        Err(missing) => missing,
    }
}

fn find<'py>(py: Python<'py>, class: &str) -> PyResult<Bound<'py, PyType>> {
    Ok(py.import("hallutrace.errors")?.getattr(class)?.cast_into()?)
}
