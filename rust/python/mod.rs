//! The module `hallutrace._core`: convert, detach from the interpreter, map the error.

mod arrays;
mod errors;
mod panics;
mod reduce;
mod shard;
mod sparsify;
mod threads;

use pyo3::prelude::*;

use crate::error::{Error, InputError};

/// Apart from torch's heap: small vectors that stay in the holes between its blocks of scores, each larger
/// than the one before, kept it from using them again (`benches/README.md`, "Replay").
#[cfg(feature = "heap")]
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

impl From<InputError> for PyErr {
    fn from(error: InputError) -> Self {
        Python::attach(|py| errors::to_python(py, &Error::Input(error)))
    }
}

/// The Rust core of hallutrace.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    panics::install_hook();
    threads::register(module)?;
    sparsify::register(module)?;
    reduce::register(module)?;
    shard::register(module)
}
