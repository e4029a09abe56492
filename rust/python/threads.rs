//! How many threads the core works on, and a fault on purpose.

use std::num::NonZeroUsize;

use pyo3::prelude::*;

use super::panics::guarded;
use crate::error::InputError;
use crate::threads;

/// Sets how many threads a call works on at most; `None` for the number chosen at the start.
#[pyfunction]
#[pyo3(signature = (count))]
fn set_threads(count: Option<i64>) -> PyResult<()> {
    let positive = |count: i64| usize::try_from(count).ok().and_then(NonZeroUsize::new);
    let threads = count.map(|count| positive(count).ok_or(InputError::Threads { threads: count }));
    threads::set_threads(threads.transpose()?);
    Ok(())
}

/// How many threads a call works on at most.
#[pyfunction]
fn get_threads() -> usize {
    threads::threads()
}

/// Panics, on all threads.
#[pyfunction]
fn _panic(py: Python<'_>) -> PyResult<()> {
    guarded(py, || {
        py.detach(|| threads::run_in_parallel(2, false, || panic!("on purpose")));
        Ok(())
    })
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_threads, module)?)?;
    module.add_function(wrap_pyfunction!(get_threads, module)?)?;
    module.add_function(wrap_pyfunction!(_panic, module)?)
}
