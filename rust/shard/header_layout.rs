//! The header of a shard: what safetensors asks for, and what schema 2 adds.
//!
//! ```text
//! u64 length of the header, little endian
//! {"__metadata__":{"hallutrace":"{\"checksums\":[…],\"commit\":{…},\"commit_checksum\":\"…\",
//!  \"keys\":[[id,sample],…],\"numbers\":[…],\"schema\":2}"},
//!  "00017.edges.offset":{"dtype":"I64","shape":[5],"data_offsets":[0,40]}, …}      filled up with spaces
//! data, from a multiple of 64 bytes on, trace after trace
//! ```
//! A checksum is 16 hexadecimal digits of XXH3 (64 bits); those of a trace stand in one string, in the
//! order of its tensors on disk. What [`super::commit`] holds has one of its own.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::commit::{Commit, DESCRIPTION_LIMIT};
use super::schema::{ALIGNMENT, Form, Forms, SCHEMA, Tensor};

/// The one key of the header's metadata.
pub const METADATA_KEY: &str = "hallutrace";
/// Bytes that hold the header's length.
pub const LENGTH_BYTES: usize = 8;
/// What a header of ours begins with.
pub(super) const BEGINNING: &[u8] = br#"{"__metadata__":{"hallutrace":"#;
/// The longest header that readers of safetensors accept.
pub const LONGEST_HEADER: usize = 100_000_000;

/// Bytes reserved for what is said of the shard as a whole; twice what it takes.
const SPACE_FIXED: usize = 2048;
/// Bytes reserved for a trace: what one with all tensors takes, and an id of some 40 characters.
const SPACE_PER_TRACE: usize = 3072;
/// Most bytes that a trace may take in the header; only an id of thousands of characters needs more.
pub const TRACE_LIMIT: usize = 8192;
/// Most bytes of a trace's row in its source and of one halving, which the header has for each trace.
const LISTED: usize = 48;
/// Most traces of a shard: so many fit into the longest header, whatever they are.
pub const MOST_TRACES: usize =
    (LONGEST_HEADER - SPACE_FIXED - 2 * DESCRIPTION_LIMIT) / (TRACE_LIMIT + LISTED);

/// Bytes reserved for the header of a shard of up to `traces` traces, a stated function:
/// `2048 + 3072 * traces`, rounded up so that the data begins at a multiple of 64.
///
/// A header that outgrows it (long ids) is made room for by [`super::ShardWriter::finish`], and always can
/// be: [`MOST_TRACES`] of at most [`TRACE_LIMIT`] bytes fit into [`LONGEST_HEADER`].
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

/// The header as JSON text, without padding.
pub fn encode(commit: &Commit, traces: &[TraceEntry]) -> String {
    // The metadata in canonical JSON: names ascend.
    let mut inner = String::from(r#"{"checksums":"#);
    let checksums: Vec<String> = traces.iter().map(checksums).collect();
    let keys: Vec<&(String, u32)> = traces.iter().map(|trace| &trace.key).collect();
    let numbers: Vec<usize> = traces.iter().map(|trace| trace.number).collect();
    inner += &json(&checksums);
    let commit = commit.to_json();
    let checksum = xxh3_64(commit.as_bytes());
    let _ = write!(inner, r#","commit":{commit},"commit_checksum":"{checksum:016x}""#);
    let (keys, numbers) = (json(&keys), json(&numbers));
    let _ = write!(inner, r#","keys":{keys},"numbers":{numbers},"schema":{SCHEMA}}}"#);
    let quoted = json(&inner);
    drop((checksums, commit, keys, numbers, inner));
    let mut header = String::with_capacity(header_space(traces.len()));
    let _ = write!(header, "{{\"__metadata__\":{{\"{METADATA_KEY}\":{quoted}}}");
    drop(quoted);
    for trace in traces {
        encode_trace(trace, &mut header);
    }
    header.push('}');
    header
}

/// JSON of what has no maps with other keys than strings, so that it cannot fail.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The tensors of a trace; writing to a string has no error.
fn encode_trace(trace: &TraceEntry, header: &mut String) {
    for TensorEntry { tensor, form, begin, end, .. } in &trace.tensors {
        let Form { dtype, shape } = form;
        let number = trace.number;
        let _ = write!(header, ",\"{number:05}.{tensor}\":{{\"dtype\":\"{dtype:?}\",\"shape\":[");
        for (axis, length) in shape.iter().enumerate() {
            let _ = write!(header, "{}{length}", if axis == 0 { "" } else { "," });
        }
        let _ = write!(header, "],\"data_offsets\":[{begin},{end}]}}");
    }
}

/// Bytes that a trace takes in the header, at most: its tensors, its checksums, its key and its number.
pub(super) fn header_bytes(trace: &TraceEntry) -> usize {
    let mut text = String::new();
    encode_trace(trace, &mut text);
    // In the metadata every quote and backslash has another before it.
    let key = json(&json(&trace.key)).len();
    text.len() + 16 * trace.tensors.len() + "\\\"\\\",".len() + key + 21
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
