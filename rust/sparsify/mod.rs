//! Which weights of an attention matrix become edges.
//!
//! [`rules`] says what is kept, [`select`] keeps it row by row, and [`kernels`] are the loops over a
//! row that both, and the combination of heads, are made of. The pass over a matrix that calls them is
//! [`crate::reduce`].

pub(crate) mod kernels;
mod rules;
pub(crate) mod select;

pub use rules::{Combine, Rules};
