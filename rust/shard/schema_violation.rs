//! How a trace can break the rules of the schema, as variants.

use super::schema::Dtype;

/// How a tensor of a trace breaks the rules of the schema.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
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
    /// Likeliest tokens without their log-probabilities, or the other way round.
    #[error("tokens without log-probabilities, or log-probabilities without tokens")]
    Alternatives,
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
    /// A number that readers round, or read as infinite.
    #[error("a number that is too long or too large")]
    Number,
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
    /// Wrong answers that are no text.
    #[error("incorrect answers that are no text")]
    IncorrectAnswers,
    /// Choices that are no pairs of texts.
    #[error("choices that are no pairs of a label and a text")]
    Choices,
    /// A generator that is no model and temperature.
    #[error("a generator without a model's name or a temperature >= 0")]
    Generator,
    /// Spans that no answer has.
    #[error("spans that are none of the answer's")]
    Spans,
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
