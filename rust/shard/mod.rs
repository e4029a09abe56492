//! The shard format, schema 1: one safetensors file of up to some hundred traces.
//!
//! [`schema`] is the table of tensors and how their shapes agree, [`layout`] the header, [`encode`] turns
//! arrays into stored bytes, [`writer`] streams traces into a file, [`reader`] opens one strictly, and
//! [`files`] holds the durable file operations that a commit is made of.

pub mod encode;
pub mod files;
pub mod layout;
pub mod reader;
pub mod schema;
pub mod writer;

pub use reader::Shard;
pub use writer::ShardWriter;
