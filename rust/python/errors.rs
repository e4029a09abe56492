//! Maps the crate's error to the classes of `hallutrace.errors`, one `match`.

use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::error::{Error, ShardError};

/// The Python exception for an error of the core.
pub fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error {
        Error::Input(_)
        | Error::Shard(
            ShardError::Trace { .. }
            | ShardError::TooManyTraces { .. }
            | ShardError::LongDescription { .. }
            | ShardError::LongEntry { .. }
            | ShardError::LongHeader { .. }
            | ShardError::Indices { .. },
        ) => "InputError",
        Error::Shard(ShardError::Damaged { .. } | ShardError::OtherSchema { .. }) => "DamagedError",
        Error::Shard(ShardError::Superseded { .. }) => "SupersededError",
        Error::Shard(ShardError::Unrecorded { .. }) => "UnrecordedError",
        Error::Shard(_) => "StorageError",
    };
    of_class(py, class, error.to_string())
}

/// The Python exception for a fault of the core's own.
pub fn internal(py: Python<'_>, said: &str) -> PyErr {
    let version = env!("CARGO_PKG_VERSION");
    let text = format!(
        "Expected no fault of hallutrace's own, got: {said} - please report this with its traceback \
         to the maintainers of hallutrace {version}"
    );
    of_class(py, "InternalError", text)
}

fn of_class(py: Python<'_>, class: &str, text: String) -> PyErr {
    match find(py, class) {
        Ok(class) => PyErr::from_type(class, text),
        Err(missing) => missing,
    }
}

fn find<'py>(py: Python<'py>, class: &str) -> PyResult<Bound<'py, PyType>> {
    Ok(py.import("hallutrace.errors")?.getattr(class)?.cast_into()?)
}
