//! A panic becomes an error of Python's that can be caught and says where to report it.
//!
//! Left alone it would be a `BaseException`, which ends a run of hours for the sake of one question.

use std::any::Any;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use super::errors;

/// Where the last panic was, and what it said; of any thread, because a helper's is told by another.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps what a panic says for the error, instead of printing it into the middle of what a program shows.
pub(super) fn install_hook() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
        let said = format!("{}{place}", message(panic.payload()));
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
    }));
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

/// What a call gives; a panic is an `InternalError`, before which `spoil` is told.
pub(super) fn guarded_or<T>(
    py: Python<'_>,
    call: impl FnOnce() -> PyResult<T>,
    spoil: impl FnOnce(),
) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        spoil();
        let said = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
        let said = said.unwrap_or_else(|| message(&*payload).to_owned());
        Err(errors::internal(py, &said))
    })
}

/// What a call gives; a panic is an `InternalError`.
pub(super) fn guarded<T>(py: Python<'_>, call: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    guarded_or(py, call, || ())
}
