//! What a trace's `meta` has to say: the trace's key, and numbers that agree with its tensors.
//!
//! It is data from a stranger: nothing of it is copied, and nesting that would exhaust the stack of a JSON
//! reader is refused. Members that a trace does without are not asked for; those that are there have to fit.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::layout::{self, TraceEntry};
use super::misfit::MetaFault;
use super::schema::{Forms, Tensor};

/// Levels of nesting, as many as `serde_json` reads; a meta has three.
const DEEPEST: usize = 128;

/// Digits of the longest number: all that fit in 64 bits.
const MOST_DIGITS: usize = 19;

/// Raw, so that a string where a number is due is not copied into a message.
#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    sample: &'a RawValue,
    group: Option<&'a RawValue>,
    index: Option<&'a RawValue>,
    question: Option<&'a RawValue>,
    context: Option<&'a RawValue>,
    prompt: Option<&'a RawValue>,
    answer: Option<&'a RawValue>,
    references: Option<&'a RawValue>,
    finish_reason: Option<&'a RawValue>,
    prompt_length: Option<&'a RawValue>,
    segments: Option<&'a RawValue>,
    hidden: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Hidden<'a> {
    #[serde(borrow)]
    layers: &'a RawValue,
    tokens: &'a RawValue,
}

/// Checks the bytes of a trace's meta.
pub(super) fn check(trace: &TraceEntry, meta: &[u8]) -> Result<(), MetaFault> {
    let text = std::str::from_utf8(meta)?;
    check_plain(text)?;
    if !text.starts_with('{') {
        return Err(MetaFault::NoObject);
    }
    let meta: Meta<'_> = serde_json::from_str(text).map_err(no_json)?;
    if number(meta.sample)? != trace.key.1 as usize || !is_json_of(meta.id, &trace.key.0) {
        return Err(MetaFault::OtherKey);
    }
    let texts = [meta.group, meta.question, meta.context, meta.prompt, meta.answer];
    if texts.into_iter().chain([meta.finish_reason]).flatten().any(|text| !is_text(text)) {
        return Err(MetaFault::NoText);
    }
    if meta.references.map(List::of).transpose()?.is_some_and(|all| all.names != all.count) {
        return Err(MetaFault::References);
    }
    meta.index.map(number).transpose()?;
    agree(&meta, &layout::forms(trace))
}

/// The rules between a meta and the shapes of its trace.
fn agree(meta: &Meta<'_>, forms: &Forms) -> Result<(), MetaFault> {
    let length = |tensor: Tensor, axis: usize| {
        forms[tensor as usize].as_ref().and_then(|form| form.shape.get(axis)).copied()
    };
    let tokens = length(Tensor::Tokens, 0).unwrap_or(0);
    let answer = length(Tensor::Logprob, 0).unwrap_or(0);
    if let Some(prompt) = meta.prompt_length.map(number).transpose()?
        && prompt.checked_add(answer) != Some(tokens)
    {
        return Err(MetaFault::Prompt { prompt, answer, tokens });
    }
    if let Some(segments) = meta.segments.map(List::of).transpose()? {
        let is_ours = segments.is_ascending && segments.names == 0 && segments.last <= tokens;
        if !is_ours || length(Tensor::Mass, 3) != Some(segments.count + 1) {
            return Err(MetaFault::Segments);
        }
    }
    if let Some(hidden) = meta.hidden {
        if !hidden.get().starts_with('{') {
            return Err(MetaFault::Untold);
        }
        let hidden: Hidden<'_> = serde_json::from_str(hidden.get()).map_err(no_json)?;
        let (layers, rows) = (List::of(hidden.layers)?, List::of(hidden.tokens)?);
        let is_range = rows.names == 0 && rows.count == 2 && rows.is_ascending;
        let kept = match rows.names {
            0 if is_range && rows.last <= tokens => rows.last - rows.first,
            names if names == rows.count => names,
            _ => return Err(MetaFault::HiddenTokens),
        };
        let shape = [length(Tensor::Hidden, 0), length(Tensor::Hidden, 1)];
        if layers.names != 0 || shape != [Some(layers.count), Some(kept)] {
            return Err(MetaFault::OtherHidden);
        }
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "made for `map_err`")]
fn no_json(error: serde_json::Error) -> MetaFault {
    MetaFault::Json(error.to_string())
}

fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

fn number(value: &RawValue) -> Result<usize, MetaFault> {
    value.get().parse().map_err(|_| MetaFault::NoNumber)
}

/// Whether a JSON value is this string; one that cannot be is not decoded.
fn is_json_of(value: &RawValue, text: &str) -> bool {
    let json = value.get();
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => plain == text,
        // An escape is at most six bytes for one.
        Some(escaped) => {
            escaped.len() <= 6 * text.len()
                && serde_json::from_str::<String>(json).is_ok_and(|id| id == text)
        }
        None => false,
    }
}

/// Refuses what is JSON but not what every reader of JSON reads: nesting that exhausts a stack, numbers that
/// are not whole or too long for one, half characters.
fn check_plain(text: &str) -> Result<(), MetaFault> {
    let bytes = text.as_bytes();
    let (mut depth, mut digits, mut at) = (0_usize, 0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        let is_digit = byte.is_ascii_digit();
        if digits > 0 && matches!(byte, b'.' | b'e' | b'E') || digits == MOST_DIGITS && is_digit {
            return Err(MetaFault::Fraction);
        }
        digits = if is_digit { digits + 1 } else { 0 };
        match byte {
            b'"' => at += string(&bytes[at..]).ok_or(MetaFault::HalfCharacter)?,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return Err(MetaFault::Deep { deepest: DEEPEST });
        }
    }
    Ok(())
}

/// Bytes of a string up to its closing quote and with it; `None` where it has half a pair of UTF-16.
fn string(bytes: &[u8]) -> Option<usize> {
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'"' => return Some(at + 1),
            b'\\' => match unit(at) {
                Some(0xd800..0xdc00) => {
                    unit(at + 6).filter(|low| (0xdc00..0xe000).contains(low)).map(|_| 12)?
                }
                Some(0xdc00..0xe000) => return None,
                _ => 2,
            },
            _ => 1,
        };
    }
    Some(bytes.len())
}

/// A list of numbers, or of names, as far as it has to be known.
#[derive(Default)]
struct List {
    count: usize,
    names: usize,
    first: usize,
    last: usize,
    is_ascending: bool,
}

impl List {
    fn of(value: &RawValue) -> Result<Self, MetaFault> {
        if !value.get().starts_with('[') {
            return Err(MetaFault::NoList);
        }
        serde_json::from_str(value.get()).map_err(no_json)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Folded;
        impl<'de> Visitor<'de> for Folded {
            type Value = List;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of numbers or names")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List, A::Error> {
                let mut all = List { is_ascending: true, ..List::default() };
                while let Some(value) = list.next_element::<&RawValue>()? {
                    all.count += 1;
                    if is_text(value) {
                        all.names += 1;
                        continue;
                    }
                    let next = number(value).map_err(A::Error::custom)?;
                    all.first = if all.count == 1 { next } else { all.first };
                    all.is_ascending &= all.last <= next;
                    all.last = next;
                }
                Ok(all)
            }
        }
        deserializer.deserialize_seq(Folded)
    }
}
