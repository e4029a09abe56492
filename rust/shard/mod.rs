//! The shard format, schema 1: one safetensors file of up to some hundred traces.
//!
//! [`schema`] is the table of tensors and how their shapes agree, [`layout`] the header, [`encode`] turns
//! arrays into stored bytes, [`record`] lays a trace out, [`writer`] streams traces into a file with a [`journal`] beside it,
//! [`reader`] opens one strictly, [`graph`] makes edge lists of its traces, and [`files`] holds the steps that a commit is made of, on a [`storage`].

pub mod encode;
pub mod files;
pub mod graph;
mod header;
pub mod journal;
pub mod layout;
mod meta;
pub mod reader;
pub mod record;
mod rules;
pub mod schema;
pub mod storage;
pub mod writer;

pub use reader::{Shard, Verify};
pub use writer::ShardWriter;
