//! The header of a shard: what safetensors asks for, and what schema 1 adds.
//!
//! ```text
//! u64 length of the header, little endian
//! {"__metadata__":{"hallutrace":"{\"checksums\":[…],\"keys\":[[id,sample],…],\"numbers\":[…],\"schema\":1}"},
//!  "00017.edges.offset":{"dtype":"I64","shape":[5],"data_offsets":[0,40]}, …}      filled up with spaces
//! data, from a multiple of 64 bytes on, trace after trace
//! ```
//! A checksum is 16 hexadecimal digits of XXH3 (64 bits); those of a trace stand in one string, in the
//! order of its tensors on disk.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::schema::{ALIGNMENT, Form, Forms, Tensor};

/// The one key of the header's metadata.
pub const METADATA_KEY: &str = "hallutrace";
/// Bytes that hold the header's length.
pub const LENGTH_BYTES: usize = 8;
/// What a header of ours begins with.
pub(super) const BEGINNING: &[u8] = br#"{"__metadata__":{"hallutrace":"#;
/// The longest header that readers of safetensors accept.
pub const LONGEST_HEADER: usize = 100_000_000;

const SPACE_FIXED: usize = 1024;
const SPACE_PER_TRACE: usize = 2560;

/// Bytes reserved for the header of a shard of up to `traces` traces, a stated function:
/// `1024 + 2560 * traces`, rounded up so that the data begins at a multiple of 64.
///
/// A header that outgrows it (very long ids) is made room for by [`super::ShardWriter::finish`].
pub fn header_space(traces: usize) -> usize {
    padded_header(SPACE_FIXED.saturating_add(SPACE_PER_TRACE.saturating_mul(traces)))
}

/// The header length, at least `bytes`, with which the data begins at a multiple of [`ALIGNMENT`].
pub fn padded_header(bytes: usize) -> usize {
    (bytes.saturating_add(LENGTH_BYTES)).next_multiple_of(ALIGNMENT) - LENGTH_BYTES
}

/// One trace as the header tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceEntry {
    /// Number within the shard; gaps are traces that failed.
    pub number: usize,
    /// Question id and sample.
    pub key: (String, u32),
    /// Its tensors, in the order of the disk.
    pub tensors: Vec<TensorEntry>,
}

/// One tensor as the header tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorEntry {
    /// Which one.
    pub tensor: Tensor,
    /// Element type and shape.
    pub form: Form,
    /// First byte, counted from the beginning of the data.
    pub begin: usize,
    /// Byte after the last.
    pub end: usize,
    /// XXH3 of its bytes.
    pub checksum: u64,
}

/// What the metadata of a shard holds; field order is canonical JSON's.
#[derive(Debug, Clone, Serialize)]
pub struct Metadata {
    /// Per trace: the checksums of its tensors, 16 hexadecimal digits each.
    pub checksums: Vec<String>,
    /// Per trace: question id and sample.
    pub keys: Vec<(String, u32)>,
    /// Per trace: its number in the shard.
    pub numbers: Vec<usize>,
    /// Version of the format.
    pub schema: u32,
}

/// The header as JSON text, without padding.
pub fn encode(traces: &[TraceEntry]) -> String {
    let metadata = Metadata {
        checksums: traces.iter().map(checksums).collect(),
        keys: traces.iter().map(|trace| trace.key.clone()).collect(),
        numbers: traces.iter().map(|trace| trace.number).collect(),
        schema: super::schema::SCHEMA,
    };
    // Neither can fail: every key is a string, and writing to a String has no error.
    let inner = serde_json::to_string(&metadata).unwrap_or_default();
    let quoted = serde_json::to_string(&inner).unwrap_or_default();
    let mut header = String::with_capacity(header_space(traces.len()));
    let _ = write!(header, "{{\"__metadata__\":{{\"{METADATA_KEY}\":{quoted}}}");
    drop((metadata, inner, quoted));
    for trace in traces {
        for TensorEntry { tensor, form, begin, end, .. } in &trace.tensors {
            let Form { dtype, shape } = form;
            let _ = write!(
                header,
                ",\"{:05}.{tensor}\":{{\"dtype\":\"{dtype:?}\",\"shape\":[",
                trace.number
            );
            for (axis, length) in shape.iter().enumerate() {
                let _ = write!(header, "{}{length}", if axis == 0 { "" } else { "," });
            }
            let _ = write!(header, "],\"data_offsets\":[{begin},{end}]}}");
        }
    }
    header.push('}');
    header
}

fn checksums(trace: &TraceEntry) -> String {
    trace.tensors.iter().fold(String::new(), |mut digits, tensor| {
        let _ = write!(digits, "{:016x}", tensor.checksum);
        digits
    })
}

/// The forms of a trace's tensors.
pub(super) fn forms(trace: &TraceEntry) -> Forms {
    let mut forms = Forms::default();
    for entry in &trace.tensors {
        forms[entry.tensor as usize] = Some(entry.form.clone());
    }
    forms
}
