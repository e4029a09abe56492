//! The shard format, schema 2: one safetensors file of up to some hundred traces.
//!
//! [`schema`] is the table of tensors and how their shapes agree, [`header_layout`] the header, [`encode`] turns
//! arrays into stored bytes, [`record`] lays a trace out, [`writer`] streams traces into a file with a
//! [`journal`] beside it, [`reader`] opens one strictly, [`graph`] makes edge lists of its traces, [`files`]
//! holds the steps that a commit is made of, on a [`storage`], which is the [`disk`], and [`damage`] and
//! [`schema_violation`] say what can be wrong.
//!
//! What is listed here is for everybody; the modules themselves are for the tests and the fuzzing of this
//! crate, and change without notice.

#[doc(hidden)]
pub mod commit;
#[doc(hidden)]
pub mod damage;
mod disk;
#[doc(hidden)]
pub mod encode;
#[doc(hidden)]
pub mod files;
#[doc(hidden)]
pub mod graph;
mod header;
#[doc(hidden)]
pub mod header_layout;
#[doc(hidden)]
pub mod journal;
mod meta;
mod portable_json;
mod published;
#[doc(hidden)]
pub mod reader;
#[doc(hidden)]
pub mod record;
mod rules;
#[doc(hidden)]
pub mod schema;
#[doc(hidden)]
pub mod schema_violation;
#[doc(hidden)]
pub mod storage;
mod text;
#[doc(hidden)]
pub mod writer;

pub use commit::{Commit, Description, Outcome, Setting};
pub use damage::Damage;
pub use disk::Disk;
pub use encode::{Array, Values};
pub use files::{publish, write_new};
pub use graph::Layer;
pub use header_layout::{TensorEntry, TraceEntry};
pub use published::{Finished, Published, take_published};
pub use reader::{Shard, Verify};
pub use record::{Record, StoredTypes};
pub use schema::{Dtype, Form, Tensor};
pub use schema_violation::{MetaFault, Violation};
pub use storage::{Storage, StorageFile};
pub use writer::{Grouping, Plan, ShardPaths, ShardWriter};
