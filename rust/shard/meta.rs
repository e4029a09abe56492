//! What a trace's `meta` has to say: the trace's key, and numbers that agree with its tensors.
//!
//! Validated on read, because the file may be damaged or hostile: nothing of it is copied, and nesting that
//! would exhaust the stack of a JSON reader is refused. Members that a trace does without are not asked for; those that are there have to fit.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::header_layout::{self, TraceEntry};
use super::portable_json::{check_portable, is_json_of};
use super::schema::{Forms, Tensor};
use super::schema_violation::MetaFault;

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
    choices: Option<&'a RawValue>,
    incorrect_answers: Option<&'a RawValue>,
    generator: Option<&'a RawValue>,
    spans: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Hidden<'a> {
    #[serde(borrow)]
    layers: &'a RawValue,
    tokens: &'a RawValue,
}

/// What made a given response.
#[derive(Deserialize)]
struct Generator<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    temperature: Option<f64>,
}

/// Characters of the answer with a label, and the answer's tokens that they are in.
#[derive(Deserialize)]
struct Span<'a> {
    #[serde(borrow)]
    label: &'a RawValue,
    start: usize,
    end: usize,
    tokens: [usize; 2],
}

/// Checks the bytes of a trace's meta.
pub(super) fn check(trace: &TraceEntry, meta: &[u8]) -> Result<(), MetaFault> {
    let text = std::str::from_utf8(meta)?;
    check_portable(text)?;
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
    if !are_texts(meta.references)? {
        return Err(MetaFault::References);
    }
    if !are_texts(meta.incorrect_answers)? {
        return Err(MetaFault::IncorrectAnswers);
    }
    check_choices(meta.choices)?;
    check_generator(meta.generator)?;
    meta.index.map(number).transpose()?;
    agree(&meta, &header_layout::forms(trace))
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
    if let Some(spans) = meta.spans {
        check_spans(spans, answer)?;
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

/// Whether a list, if it is there, holds texts alone.
fn are_texts(list: Option<&RawValue>) -> Result<bool, MetaFault> {
    Ok(list.map(List::of).transpose()?.is_none_or(|all| all.names == all.count))
}

/// Choices are pairs of a label and a text.
fn check_choices(choices: Option<&RawValue>) -> Result<(), MetaFault> {
    each(choices, |choice| match List::of(choice)? {
        pair if pair.count == 2 && pair.names == 2 => Ok(()),
        _ => Err(MetaFault::Choices),
    })
}

fn check_generator(generator: Option<&RawValue>) -> Result<(), MetaFault> {
    let Some(generator) = generator else { return Ok(()) };
    let read = serde_json::from_str::<Generator<'_>>(generator.get());
    let is_fine = generator.get().starts_with('{')
        && read.is_ok_and(|generator| {
            generator.model.is_none_or(is_text)
                && generator.temperature.is_none_or(|temperature| temperature >= 0.0)
        });
    if is_fine { Ok(()) } else { Err(MetaFault::Generator) }
}

/// Spans end where they begin or later, and have tokens of the answer.
fn check_spans(spans: &RawValue, answer: usize) -> Result<(), MetaFault> {
    each(Some(spans), |span| {
        let read = serde_json::from_str::<Span<'_>>(span.get());
        let is_fine = span.get().starts_with('{')
            && read.is_ok_and(|Span { label, start, end, tokens: [first, last] }| {
                is_text(label) && start <= end && first <= last && last <= answer
            });
        if is_fine { Ok(()) } else { Err(MetaFault::Spans) }
    })
}

/// Checks each item of a list, one at a time.
fn each(
    list: Option<&RawValue>,
    check: impl Fn(&RawValue) -> Result<(), MetaFault>,
) -> Result<(), MetaFault> {
    let Some(list) = list else { return Ok(()) };
    if !list.get().starts_with('[') {
        return Err(MetaFault::NoList);
    }
    let mut fault = None;
    let mut reader = serde_json::Deserializer::from_str(list.get());
    reader
        .deserialize_seq(Items(|item: &RawValue| match check(item) {
            Err(found) if fault.is_none() => fault = Some(found),
            _ => {}
        }))
        .map_err(no_json)?;
    fault.map_or(Ok(()), Err)
}

/// Gives each item of a list away.
struct Items<F>(F);

impl<'de, F: FnMut(&RawValue)> Visitor<'de> for Items<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element::<&RawValue>()? {
            self.0(item);
        }
        Ok(())
    }
}

fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

fn number(value: &RawValue) -> Result<usize, MetaFault> {
    value.get().parse().map_err(|_| MetaFault::NoNumber)
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
