//! The core of hallutrace.
//!
//! A tour, in the order data flows: [`attention`] borrows attention matrices and checks their shape,
//! [`edges`] is what sparsification gives, [`sparsify`] and [`marginals`] are the two reductions of a
//! matrix, [`reduce`] does both in one pass over blocks of rows, and [`shard`] writes and reads traces.
//! The loops over rows are written over the 16 lanes of [`simd`].
//! With the feature `python`, the module `python` wraps all of it.

pub mod attention;
pub mod edges;
pub mod error;
#[doc(hidden)]
pub mod float_environment;
pub mod marginals;
#[cfg(feature = "python")]
mod python;
pub mod reduce;
pub mod shard;
pub mod simd;
pub mod sparsify;
pub mod threads;

pub use error::{Error, Result};
