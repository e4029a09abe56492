//! What can be wrong with a shard, as variants; every text says what was seen.

use super::graph::Layer;
use super::schema::Tensor;
use super::schema_violation::Violation;

/// What no writer of this schema makes, as it was seen in a file.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A folder, a pipe, a device.
    #[error("something that is no file")]
    NoFile,
    /// Too few bytes for a header's length.
    #[error("{bytes} bytes")]
    Short {
        /// Bytes of the file.
        bytes: usize,
    },
    /// A header that the file has no room for, or that no reader accepts.
    #[error("a header of {length} bytes in a file of {size}")]
    HeaderLength {
        /// As the file says.
        length: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// A header of no bytes, or of so many that the data is not aligned.
    #[error("a header of {length} bytes, a shard that was never finished")]
    Unfinished {
        /// As the file says.
        length: usize,
    },
    /// The header is not the writer's next byte.
    #[error("a header in another form than the writer's at byte {at}")]
    Form {
        /// Which byte of the file.
        at: usize,
    },
    /// Another version of the format.
    #[error("schema {schema}")]
    Schema {
        /// The version.
        schema: u32,
    },
    /// Checksums that are not as many as the trace has tensors, or not hexadecimal.
    #[error("other checksums than a trace has, {position}th trace")]
    Checksums {
        /// Which trace, from 0.
        position: usize,
    },
    /// What the shard says of itself is not what its checksum knows.
    #[error("another `commit` than its checksum knows")]
    Commit,
    /// Lists of the metadata that are not equally long.
    #[error("more indices than checksums")]
    MoreIndices,
    /// Lists of the metadata that are not equally long.
    #[error("{indices} indices of {traces} traces")]
    Indices {
        /// Rows in the source.
        indices: usize,
        /// Traces, as the checksums tell.
        traces: usize,
    },
    /// Lists of the metadata that are not equally long.
    #[error("more keys than checksums")]
    MoreKeys,
    /// Lists of the metadata that are not equally long.
    #[error("more numbers than keys")]
    MoreNumbers,
    /// Lists of the metadata that are not equally long.
    #[error("{numbers} numbers and {keys} keys, and other checksums")]
    Counts {
        /// Numbers of traces.
        numbers: usize,
        /// Keys of traces.
        keys: usize,
    },
    /// A sample that is too large.
    #[error("sample {sample}")]
    Sample {
        /// The number.
        sample: usize,
    },
    /// A number that two traces have.
    #[error("trace {number:05} twice")]
    Twice {
        /// The number.
        number: usize,
    },
    /// Tensors of a trace in another order than the writer's.
    #[error("the tensors of trace {number:05} out of order")]
    Order {
        /// The trace.
        number: usize,
    },
    /// A trace that does not end where the next may begin.
    #[error("trace {number:05} cut short")]
    Cut {
        /// The trace.
        number: usize,
    },
    /// A tensor that does not begin where the one before it ends, or not end where its shape says.
    #[error("offsets [{begin}, {end}] of {tensor}, {due} and {due_end:?} due")]
    Offsets {
        /// The tensor.
        tensor: Tensor,
        /// As the header says.
        begin: usize,
        /// As the header says.
        end: usize,
        /// Where it has to begin.
        due: usize,
        /// Where it has to end; `None` where that overflows.
        due_end: Option<usize>,
    },
    /// Another length than header and data have.
    #[error("{size} bytes where the header tells of {data} + {end}")]
    Size {
        /// Bytes of the file.
        size: u64,
        /// Where the data begins.
        data: usize,
        /// Bytes of the data, as the header says.
        end: usize,
    },
    /// A file that changed its length since it was opened.
    #[error("{length} bytes where there were {was}")]
    Resized {
        /// Bytes now.
        length: u64,
        /// Bytes when it was opened.
        was: usize,
    },
    /// A header that is read back as another than was written.
    #[error("another header than was written")]
    OtherHeader,
    /// An entry of a trace that has no tensor.
    #[error("a trace without tensors")]
    NoTensors,
    /// A tensor of a trace that breaks a rule.
    #[error("{found} in `{tensor}` of trace {number:05}")]
    Trace {
        /// Number of the trace.
        number: usize,
        /// Its tensor.
        tensor: Tensor,
        /// The rule that it breaks.
        found: Violation,
    },
    /// A tensor that a graph is made of and the trace does not have.
    #[error("no {tensor} of trace {position}")]
    NoTensor {
        /// The tensor.
        tensor: Tensor,
        /// Position of the trace.
        position: usize,
    },
    /// A layer that the trace does not have.
    #[error("no {layer:?} in trace {position}")]
    NoLayer {
        /// As it was asked for.
        layer: Layer,
        /// Position of the trace.
        position: usize,
    },
}
