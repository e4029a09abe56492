//! What can be wrong with a shard or a trace, as variants; every text says what was seen.

use super::graph::Layer;
use super::schema::{Dtype, Tensor};

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
    /// A header that would be longer than readers accept.
    #[error("a header of {length} bytes (100,000,000 at most: use smaller shards)")]
    LongHeader {
        /// Bytes that it takes.
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
        schema: usize,
    },
    /// Checksums that are not as many as the trace has tensors, or not hexadecimal.
    #[error("other checksums than a trace has, {position}th trace")]
    Checksums {
        /// Which trace, from 0.
        position: usize,
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
    /// A header that is read back as one of other traces than were written.
    #[error("a header that tells of other traces")]
    OtherTraces,
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
        found: Misfit,
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

/// How a tensor of a trace breaks the rules of the schema.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// A needed tensor that is not there.
    #[error("no such tensor")]
    Missing,
    /// A type that the tensor may not have.
    #[error("element type {dtype:?}")]
    Dtype {
        /// The type that came.
        dtype: Dtype,
    },
    /// Keys of a type that is not the one for so many tokens.
    #[error("element type {dtype:?} for {tokens} tokens")]
    KeyDtype {
        /// The type that came.
        dtype: Option<Dtype>,
        /// Tokens of the trace.
        tokens: usize,
    },
    /// Another number of axes.
    #[error("shape {shape:?}")]
    Axes {
        /// The shape that came.
        shape: Vec<usize>,
    },
    /// A shape that does not agree with the other tensors'.
    #[error("shape {shape:?} where the others say {due:?}")]
    Shape {
        /// The shape that came.
        shape: Vec<usize>,
        /// The shape that agrees.
        due: Vec<usize>,
    },
    /// More than can be counted.
    #[error("{layers} layers, {heads} heads, {tokens} tokens")]
    Large {
        /// Layers.
        layers: usize,
        /// Heads of a layer.
        heads: usize,
        /// Tokens.
        tokens: usize,
    },
    /// No answer, or no prompt.
    #[error("{answer} answer tokens of {tokens} tokens")]
    Answer {
        /// Tokens of the answer.
        answer: usize,
        /// Tokens of prompt and answer.
        tokens: usize,
    },
    /// Neither a graph for each layer nor one for each head.
    #[error("{graphs} graphs, {layers} layers, {heads} heads")]
    Graphs {
        /// Graphs.
        graphs: usize,
        /// Layers.
        layers: usize,
        /// Heads of a layer.
        heads: usize,
    },
    /// Neither the rows of the answer nor all.
    #[error("{rows} rows, {answer} answer tokens")]
    Rows {
        /// Rows.
        rows: usize,
        /// Tokens of the answer.
        answer: usize,
    },
    /// A scale where hidden states are not int8, or none where they are.
    #[error("a scale without int8, or int8 without a scale")]
    Scale,
    /// Other bytes than the shape has.
    #[error("{bytes} bytes for shape {shape:?}")]
    Bytes {
        /// Bytes that came.
        bytes: usize,
        /// The shape.
        shape: Vec<usize>,
    },
    /// A cast that the schema does not know.
    #[error("{from} elements to store as {dtype:?}")]
    Cast {
        /// The type that came.
        from: &'static str,
        /// The type that is stored.
        dtype: Dtype,
    },
    /// A finite number that float16 would make infinite.
    #[error("{value}, which float16 cannot hold (65504 at most)")]
    Overflow {
        /// The number.
        value: f32,
    },
    /// An integer that the stored type does not have.
    #[error("the number {number}")]
    Number {
        /// The number.
        number: i32,
    },
    /// Bytes that are not those of the checksum.
    #[error("bytes that their checksum does not know")]
    Checksum,
    /// Offsets of graphs that do not begin at the first edge and end at the last.
    #[error("offsets that do not span {edges} edges")]
    OffsetsSpan {
        /// Edges of the trace.
        edges: usize,
    },
    /// Offsets of a graph that do not ascend, or lie beyond the edges.
    #[error("offsets {span:?}")]
    Offsets {
        /// Begin and end of the graph.
        span: [i64; 2],
    },
    /// Rows of a graph that do not begin at its first edge and end at its last.
    #[error("rows that do not span {edges} edges")]
    RowsSpan {
        /// Edges of the graph.
        edges: usize,
    },
    /// A row that begins after its end, or lies beyond the edges.
    #[error("row {row} of edges {span:?}")]
    Row {
        /// The row.
        row: usize,
        /// Begin and end of the row.
        span: [i32; 2],
    },
    /// Keys that do not ascend, or follow their query.
    #[error("keys {keys:?}{} of query {query}", if *is_cut { " ..." } else { "" })]
    Keys {
        /// The first of them.
        keys: Vec<u32>,
        /// Whether there are more.
        is_cut: bool,
        /// The query.
        query: usize,
    },
    /// A meta that is not what it has to be.
    #[error("{0}")]
    Meta(#[from] MetaFault),
}

/// What is wrong with the JSON of a trace's meta.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetaFault {
    /// Bytes that are no text.
    #[error("no UTF-8 ({0})")]
    Utf8(#[from] std::str::Utf8Error),
    /// Text that is no JSON, or has not the members that are needed.
    #[error("text that is not JSON ({0})")]
    Json(String),
    /// JSON of another kind.
    #[error("text that is no JSON object")]
    NoObject,
    /// Nesting that would exhaust the stack of readers.
    #[error("JSON of more than {deepest} levels")]
    Deep {
        /// The most levels that are read.
        deepest: usize,
    },
    /// Half a pair of UTF-16.
    #[error("half a character")]
    HalfCharacter,
    /// A number that readers round.
    #[error("a number that is not whole or too large")]
    Fraction,
    /// A member that is no text.
    #[error("something else where text is due")]
    NoText,
    /// A member that is no number.
    #[error("something else where a number is due")]
    NoNumber,
    /// A member that is no list.
    #[error("something else where a list is due")]
    NoList,
    /// The key of another trace.
    #[error("the key of another trace")]
    OtherKey,
    /// References that are no text.
    #[error("references that are no text")]
    References,
    /// A prompt that does not leave room for the answer.
    #[error("a prompt of {prompt} tokens and an answer of {answer} in {tokens}")]
    Prompt {
        /// Tokens of the prompt, as the meta says.
        prompt: usize,
        /// Tokens of the answer.
        answer: usize,
        /// Tokens of the trace.
        tokens: usize,
    },
    /// Other segments than the masses have.
    #[error("segments that are not those of `marginals.mass`")]
    Segments,
    /// Hidden states of which it is not said what they are.
    #[error("hidden states that are not told of")]
    Untold,
    /// Hidden states of tokens that the trace does not have.
    #[error("hidden states of tokens that are not there")]
    HiddenTokens,
    /// Hidden states of another shape.
    #[error("hidden states that are not those of `hidden`")]
    OtherHidden,
}
