//! The tensors of a trace: names, element types, and how their shapes agree.

use std::fmt;

use super::schema_violation::Violation;

/// Version of the format, in the header of every shard.
pub const SCHEMA: u32 = 2;

/// Traces begin at multiples of this many bytes.
pub const ALIGNMENT: usize = 64;

/// Axes of the tensor that has most.
pub const MOST_AXES: usize = 4;

/// Element types of safetensors that traces use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub enum Dtype {
    I64,
    F32,
    I32,
    U32,
    F16,
    BF16,
    U16,
    I8,
    U8,
}

impl Dtype {
    const ALL: [(Self, &'static str); 9] = [
        (Self::I64, "I64"),
        (Self::F32, "F32"),
        (Self::I32, "I32"),
        (Self::U32, "U32"),
        (Self::F16, "F16"),
        (Self::BF16, "BF16"),
        (Self::U16, "U16"),
        (Self::I8, "I8"),
        (Self::U8, "U8"),
    ];

    /// The type of a name of safetensors'.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(dtype, _)| dtype)
    }

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::I64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::U16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }
}

/// The enum of tensors from the format's table: name, element types on disk, and `true` where a trace may
/// do without it.
macro_rules! tensors {
    ($($tensor:ident $name:literal $($dtype:ident)|+ $($optional:literal)?;)+) => {
        /// The tensors of a trace, in the order of the format's table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[allow(missing_docs)]
        pub enum Tensor {
            $($tensor,)+
        }

        impl Tensor {
            /// All of them, in the order of the format's table.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$tensor),+];

            /// Name within the trace, without its number.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$tensor => $name,)+
                }
            }

            /// Element types it may have on disk.
            pub const fn dtypes(self) -> &'static [Dtype] {
                match self {
                    $(Self::$tensor => &[$(Dtype::$dtype),+],)+
                }
            }

            /// Whether a trace may do without it.
            pub const fn is_optional(self) -> bool {
                match self {
                    $(Self::$tensor => false $(|| $optional)?,)+
                }
            }
        }
    };
}

// A new tensor is a line here, a rule in `agree`, and a row in the tables of the documents.
tensors! {
    EdgesOffset "edges.offset" I64;
    Logprob "logprob" F32;
    TokenEntropy "token_entropy" F32;
    Logsumexp "logsumexp" F32;
    LogDiagonal "marginals.log_diagonal" F32;
    LogSquare "marginals.log_square" F32;
    Tokens "tokens" I32;
    AlternativesToken "alternatives.token" I32 true;
    EdgesIndptr "edges.indptr" I32;
    Diagonal "marginals.diagonal" F16;
    ReceivedMean "marginals.received_mean" F16;
    Previous "marginals.previous" F16;
    Entropy "marginals.entropy" F16;
    Mass "marginals.mass" F16;
    Square "marginals.square" F16;
    Rough "marginals.rough" F16;
    ValueNorm "marginals.value_norm" F16;
    AlternativesLogprob "alternatives.logprob" F16 true;
    EdgesWeight "edges.weight" F16 | F32;
    EdgesKey "edges.key" U16 | U32;
    HiddenScale "hidden.scale" F32 true;
    Hidden "hidden" F16 | BF16 | F32 | I8 true;
    Meta "meta" U8;
}

impl Tensor {
    /// The tensor of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tensor| tensor.name() == name)
    }
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Element type and shape of one tensor.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// Element type on disk.
    pub dtype: Dtype,
    /// Lengths of its axes.
    #[serde(deserialize_with = "few_axes")]
    pub shape: Vec<usize>,
}

/// Lengths of axes, refused before they could take more memory than their text.
fn few_axes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    struct Few;
    impl<'de> serde::de::Visitor<'de> for Few {
        type Value = Vec<usize>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "at most {MOST_AXES} axes")
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut axes: A,
        ) -> Result<Vec<usize>, A::Error> {
            let mut shape = Vec::with_capacity(MOST_AXES);
            while let Some(length) = axes.next_element()? {
                if shape.len() == MOST_AXES {
                    return Err(serde::de::Error::invalid_length(MOST_AXES + 1, &self));
                }
                shape.push(length);
            }
            Ok(shape)
        }
    }
    deserializer.deserialize_seq(Few)
}

impl Form {
    /// Bytes on disk, or `None` where that overflows.
    pub fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.size(), |bytes, &length| bytes.checked_mul(length))
    }
}

/// The forms of a trace's tensors, indexed as in [`Tensor::ALL`]; what it does not have is `None`.
pub type Forms = [Option<Form>; Tensor::ALL.len()];

/// The order of a trace's tensors on disk: wide elements first, then as in the table.
///
/// So every tensor of a trace that begins at a multiple of [`ALIGNMENT`] is aligned to its elements.
pub fn disk_order(forms: &Forms) -> Vec<Tensor> {
    let mut order: Vec<Tensor> =
        Tensor::ALL.into_iter().filter(|&tensor| forms[tensor as usize].is_some()).collect();
    // `meta` is the last of its size in the table, so a stable sort keeps it last of all.
    order.sort_by_key(|&tensor| {
        std::cmp::Reverse(forms[tensor as usize].as_ref().map_or(0, |form| form.dtype.size()))
    });
    order
}

/// How large a trace is, as its shapes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Layers captured, L.
    pub layers: usize,
    /// Heads of a layer, H.
    pub heads: usize,
    /// Tokens of prompt and answer, N.
    pub tokens: usize,
    /// Tokens of the answer, A.
    pub answer: usize,
    /// Graphs of edges, G: one a layer, or one a head.
    pub graphs: usize,
    /// Edges of all graphs, E.
    pub edges: usize,
}

/// A tensor that breaks a rule, and which.
pub type Disagreement = (Tensor, Violation);

/// Checks that all needed tensors are there, of types they may have, and that their shapes agree.
///
/// # Errors
/// The first tensor that does not fit, and what was seen.
pub fn dimensions(forms: &Forms) -> Result<Dimensions, Disagreement> {
    for tensor in Tensor::ALL {
        match &forms[tensor as usize] {
            None if !tensor.is_optional() => return Err((tensor, Violation::Missing)),
            Some(form) if !tensor.dtypes().contains(&form.dtype) => {
                return Err((tensor, Violation::Dtype { dtype: form.dtype }));
            }
            _ => {}
        }
    }
    let [layers, heads, tokens] = axes(forms, Tensor::Diagonal)?;
    let [answer] = axes(forms, Tensor::Logprob)?;
    let [graphs, _] = axes(forms, Tensor::EdgesIndptr)?;
    let [edges] = axes(forms, Tensor::EdgesKey)?;
    let dimensions = Dimensions { layers, heads, tokens, answer, graphs, edges };
    agree(forms, dimensions)?;
    Ok(dimensions)
}

/// The rules between shapes, once the dimensions are known.
fn agree(forms: &Forms, is: Dimensions) -> Result<(), Disagreement> {
    let Dimensions { layers, heads, tokens, answer, graphs, edges } = is;
    // So that nothing below overflows, whatever a caller says; what is stored has been measured before.
    let most = usize::MAX / 16;
    if layers.checked_mul(heads).is_none_or(|all| all > most) || tokens > most || graphs > most {
        return Err((Tensor::Diagonal, Violation::Large { layers, heads, tokens }));
    }
    if answer == 0 || tokens <= answer {
        return Err((Tensor::Tokens, Violation::Answer { answer, tokens }));
    }
    if graphs != layers && graphs != layers * heads {
        return Err((Tensor::EdgesIndptr, Violation::Graphs { graphs, layers, heads }));
    }
    let [_, _, rows] = axes(forms, Tensor::Previous)?;
    if rows != answer + 1 && rows != tokens {
        return Err((Tensor::Previous, Violation::Rows { rows, answer }));
    }
    let [_, _, _, segments] = axes(forms, Tensor::Mass)?;
    let [_, value_heads, _] = axes(forms, Tensor::ValueNorm)?;
    let narrow = tokens <= usize::from(u16::MAX) + 1;
    let dtype = forms[Tensor::EdgesKey as usize].as_ref().map(|form| form.dtype);
    if dtype != Some(if narrow { Dtype::U16 } else { Dtype::U32 }) {
        return Err((Tensor::EdgesKey, Violation::KeyDtype { dtype, tokens }));
    }
    expect(forms, Tensor::EdgesOffset, &[graphs + 1])?;
    expect(forms, Tensor::TokenEntropy, &[answer])?;
    expect(forms, Tensor::Logsumexp, &[answer])?;
    expect(forms, Tensor::LogDiagonal, &[layers, heads, 2])?;
    expect(forms, Tensor::LogSquare, &[layers, heads, 2])?;
    expect(forms, Tensor::Tokens, &[tokens])?;
    expect(forms, Tensor::EdgesIndptr, &[graphs, tokens + 1])?;
    expect(forms, Tensor::ReceivedMean, &[layers, heads, tokens])?;
    expect(forms, Tensor::Previous, &[layers, heads, rows])?;
    expect(forms, Tensor::Entropy, &[layers, heads, rows])?;
    expect(forms, Tensor::Mass, &[layers, heads, rows, segments])?;
    expect(forms, Tensor::Square, &[layers, heads, rows])?;
    expect(forms, Tensor::Rough, &[layers, heads, rows, segments])?;
    expect(forms, Tensor::ValueNorm, &[layers, value_heads, tokens])?;
    expect(forms, Tensor::EdgesWeight, &[edges])?;
    agree_alternatives(forms, answer)?;
    agree_hidden(forms)
}

/// The likeliest tokens have a log-probability each; there are as many for every answer token, one at least.
fn agree_alternatives(forms: &Forms, answer: usize) -> Result<(), Disagreement> {
    let is_there = |tensor: Tensor| forms[tensor as usize].is_some();
    if is_there(Tensor::AlternativesToken) != is_there(Tensor::AlternativesLogprob) {
        return Err((Tensor::AlternativesLogprob, Violation::Alternatives));
    }
    if is_there(Tensor::AlternativesToken) {
        let [_, count] = axes(forms, Tensor::AlternativesToken)?;
        expect(forms, Tensor::AlternativesToken, &[answer, count.max(1)])?;
        expect(forms, Tensor::AlternativesLogprob, &[answer, count])?;
    }
    Ok(())
}

/// Hidden states have a scale where, and only where, they are int8.
fn agree_hidden(forms: &Forms) -> Result<(), Disagreement> {
    let is_int8 =
        forms[Tensor::Hidden as usize].as_ref().is_some_and(|form| form.dtype == Dtype::I8);
    if is_int8 != forms[Tensor::HiddenScale as usize].is_some() {
        return Err((Tensor::HiddenScale, Violation::Scale));
    }
    if forms[Tensor::Hidden as usize].is_some() {
        let [layers, tokens, _] = axes(forms, Tensor::Hidden)?;
        if is_int8 {
            expect(forms, Tensor::HiddenScale, &[layers, tokens])?;
        }
    }
    Ok(())
}

/// The axes of a tensor that has to have `N` of them.
fn axes<const N: usize>(forms: &Forms, tensor: Tensor) -> Result<[usize; N], Disagreement> {
    let shape = forms[tensor as usize].as_ref().map_or(&[][..], |form| &form.shape);
    shape.try_into().map_err(|_| (tensor, Violation::Axes { shape: shape.to_vec() }))
}

fn expect(forms: &Forms, tensor: Tensor, shape: &[usize]) -> Result<(), Disagreement> {
    match &forms[tensor as usize] {
        Some(form) if form.shape != shape => {
            Err((tensor, Violation::Shape { shape: form.shape.clone(), due: shape.to_vec() }))
        }
        _ => Ok(()),
    }
}
