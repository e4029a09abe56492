//! Files of a forger who knows how to make checksums: every rule of schema 2 refuses on its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod allocations;
mod forging;
mod made_up;

use allocations::peak_of;
use forging::{Forged, apart, assemble, file_of};
use hallutrace::shard::schema::{Dtype, Tensor};
use hallutrace::shard::{Shard, header_layout};
use proptest::prelude::*;

/// What a meta of the pipeline has, for the made-up trace.
const META: &str = r#"{"id":"a","sample":0,"group":"g","index":3,"question":"q?","context":null,"prompt":"p","answer":"\n","references":["r"],"prompt_length":2,"segments":[1,2],"finish_reason":"eos","hidden":{"layers":[0,1],"tokens":[1,3]}}"#;

/// What the reader says of a file, within the memory that it may take.
fn said(file: Vec<u8>) -> String {
    let size = file.len();
    let (said, peak) = peak_of(|| {
        Shard::from_bytes(file)
            .and_then(|shard| shard.verify())
            .map_or_else(|error| error.to_string(), |()| "good".to_owned())
    });
    assert!(peak <= size + (64 << 10), "{peak} bytes for a file of {size}: {said}");
    assert!(said.len() < 1000, "{said}");
    said
}

/// A trace with a full meta, forged, with right lengths, offsets and checksums.
fn forged(forge: impl FnOnce(&mut Forged)) -> Vec<u8> {
    let mut trace = apart(0, "a");
    set(&mut trace, Tensor::Meta, META.as_bytes());
    forge(&mut trace);
    file_of(vec![trace])
}

/// Other bytes for a tensor, and a length that fits where it has one axis.
fn set((entry, parts): &mut Forged, tensor: Tensor, bytes: &[u8]) {
    let at = entry.tensors.iter().position(|entry| entry.tensor == tensor).unwrap();
    let form = &mut entry.tensors[at].form;
    if let [length] = &mut form.shape[..] {
        *length = bytes.len() / form.dtype.size();
    }
    parts[at] = bytes.to_vec();
}

fn little<T, const N: usize>(values: &[T], to_bytes: fn(T) -> [u8; N]) -> Vec<u8>
where
    T: Copy,
{
    values.iter().flat_map(|&value| to_bytes(value)).collect()
}

#[test]
fn what_is_not_forged_is_good() {
    assert_eq!(said(forged(|_| {})), "good");
}

#[test]
fn edges_that_are_no_graphs_of_the_past_are_refused() {
    let offsets: [(&[i64], &str); 5] = [
        (&[0, 3, 7], "offsets that do not span 6 edges"),
        (&[1, 3, 6], "offsets that do not span 6 edges"),
        (&[0, 7, 6], "offsets [0, 7]"),
        (&[0, -1, 6], "offsets [0, -1]"),
        (&[0, i64::MAX, 6], "offsets [0, 9223372036854775807]"),
    ];
    for (values, message) in offsets {
        let bytes = little(values, i64::to_le_bytes);
        let said = said(forged(|trace| set(trace, Tensor::EdgesOffset, &bytes)));
        assert!(said.contains(&format!("{message} in `edges.offset` of trace 00000")), "{said}");
    }
    let starts: [(&[i32], &str); 5] = [
        (&[0, 1, 0, 3, 0, 1, 2, 3], "row 1 of edges [1, 0]"),
        (&[1, 1, 2, 3, 0, 1, 2, 3], "rows that do not span 3 edges"),
        (&[0, 1, 2, 4, 0, 1, 2, 3], "rows that do not span 3 edges"),
        (&[0, -1, 2, 3, 0, 1, 2, 3], "row 0 of edges [0, -1]"),
        (&[0, i32::MAX, 2, 3, 0, 1, 2, 3], "row 0 of edges [0, 2147483647]"),
    ];
    for (values, message) in starts {
        let bytes = little(values, i32::to_le_bytes);
        let said = said(forged(|trace| set(trace, Tensor::EdgesIndptr, &bytes)));
        assert!(said.contains(&format!("{message} in `edges.indptr` of trace 00000")), "{said}");
    }
    let keys: [(&[u16], &str); 3] = [
        (&[1, 1, 2, 0, 1, 2], "keys [1] of query 0"),
        (&[0, 1, 2, 0, 1, 3], "keys [3] of query 2"),
        (&[0, 1, u16::MAX, 0, 1, 2], "keys [65535] of query 2"),
    ];
    for (values, message) in keys {
        let bytes = little(values, u16::to_le_bytes);
        let said = said(forged(|trace| set(trace, Tensor::EdgesKey, &bytes)));
        assert!(said.contains(&format!("{message} in `edges.key` of trace 00000")), "{said}");
    }
}

#[test]
fn a_row_as_long_as_the_file_is_refused_in_few_words() {
    let edges = 300_000_i32;
    let said = said(forged(|trace| {
        set(trace, Tensor::EdgesOffset, &little(&[0, 3, 3 + i64::from(edges)], i64::to_le_bytes));
        let starts = [0, 1, 2, 3, 0, 0, 0, edges];
        set(trace, Tensor::EdgesIndptr, &little(&starts, i32::to_le_bytes));
        let keys: Vec<u16> = [0, 1, 2].into_iter().chain((0..edges).map(|_| 1)).collect();
        set(trace, Tensor::EdgesKey, &little(&keys, u16::to_le_bytes));
        set(trace, Tensor::EdgesWeight, &vec![0; 2 * keys.len()]);
    }));
    assert!(said.contains("keys [1, 1, 1, 1, 1, 1, 1, 1] ... of query 2"), "{said}");
}

#[test]
fn a_meta_that_lies_is_refused() {
    let (deep, long) = (format!("{META}{}", "[".repeat(1 << 20)), "x".repeat(1 << 20));
    let with = |from: &str, to: &str| {
        assert!(META.contains(from));
        META.replace(from, to)
    };
    let more = |name: &str, value: &str| with("\"q?\"", &format!("\"?\",\"{name}\":{value}"));
    let span =
        |tokens: &str| format!("[{{\"start\":1,\"end\":1,\"label\":\"x\",\"tokens\":{tokens}}}]");
    let cases = [
        ("[]".to_owned(), "no JSON object"),
        ("7".to_owned(), "no JSON object"),
        ("{}".to_owned(), "missing field `id`"),
        (META[..50].to_owned(), "not JSON"),
        (format!("{META}{META}"), "not JSON"),
        (deep, "more than 128 levels"),
        (with("\"a\"", "\"../../a\""), "the key of another trace"),
        (with("\"a\"", "\"b\""), "the key of another trace"),
        (with("\"a\"", "\"\\ud800\""), "half a character"),
        (with("\"q?\"", "\"\\ud800\\u0041\""), "half a character"),
        (with("\"q?\"", "\"\\udc00\""), "half a character"),
        (with("\"q?\"", "\"?\",\"more\":15e869"), "a number that is too long or too large"),
        (with("\"index\":3", "\"index\":0.5"), "where a number is due"),
        (with("\"index\":3", "\"index\":1e2"), "where a number is due"),
        (with("[1,2]", "[1.0,2]"), "where a number is due"),
        (with("\"q?\"", "\"?\",\"more\":0.50000000000000000000000001"), "too long"),
        (with("\"q?\"", &format!("\"?\",\"more\":1{}", "0".repeat(400))), "too large"),
        (with("\"a\"", "[\"a\"]"), "the key of another trace"),
        (with("\"a\",", "\"a\",\"id\":\"b\","), "duplicate field `id`"),
        (with("\"sample\":0", "\"sample\":1"), "the key of another trace"),
        (with("\"sample\":0", "\"sample\":4294967296"), "the key of another trace"),
        (with("\"sample\":0", "\"sample\":-1"), "where a number is due"),
        (with("\"sample\":0", &format!("\"sample\":\"{long}\"")), "where a number is due"),
        (with("\"index\":3", "\"index\":-3"), "where a number is due"),
        (with("\"g\"", "3"), "where text is due"),
        (with("[\"r\"]", "[1]"), "references that are no text"),
        (with("[\"r\"]", &format!("\"{long}\"")), "where a list is due"),
        (with("_length\":2", "_length\":3"), "a prompt of 3 tokens and an answer of 1 in 3"),
        (with("_length\":2", "_length\":9223372036854775807"), "a prompt of"),
        (with("_length\":2", "_length\":18446744073709551616"), "too large"),
        (more("incorrect_answers", "[1]"), "incorrect answers that are no text"),
        (more("incorrect_answers", "\"a\""), "where a list is due"),
        (more("choices", "[[\"A\"]]"), "no pairs of a label and a text"),
        (more("choices", "[[\"A\",1]]"), "no pairs of a label and a text"),
        (more("choices", "{}"), "where a list is due"),
        (more("generator", "[]"), "a generator without"),
        (more("generator", "{\"model\":1}"), "a generator without"),
        (more("generator", "{\"temperature\":-1}"), "a generator without"),
        (more("spans", &span("[1]")), "spans that are none of the answer's"),
        (more("spans", &span("[0,2]")), "spans that are none of the answer's"),
        (more("spans", &span("[1,0]")), "spans that are none of the answer's"),
        (more("spans", &span("[0,1]").replace("\"end\":1", "\"end\":0")), "spans that are none"),
        (more("spans", &span("[0,1]").replace("\"x\"", "3")), "spans that are none"),
        (more("spans", &format!("[{}]", "[".repeat(1 << 20))), "more than 128 levels"),
        (with("[1,2]", "[1]"), "segments that are not those"),
        (with("[1,2]", "[2,1]"), "segments that are not those"),
        (with("[1,2]", "[1,4]"), "segments that are not those"),
        (with("[1,3]", "[1,4]"), "tokens that are not there"),
        (with("[1,3]", "[3,1]"), "tokens that are not there"),
        (with("[1,3]", "[0,3]"), "not those of `hidden`"),
        (with("[0,1]", "[0]"), "not those of `hidden`"),
        (with("{\"layers\":[0,1],\"tokens\":[1,3]}", "[]"), "hidden states"),
    ];
    for (text, message) in cases {
        let said = said(forged(|trace| set(trace, Tensor::Meta, text.as_bytes())));
        let start = &text[..text.len().min(300)];
        assert!(
            said.contains(message) && said.contains("`meta` of trace 00000"),
            "{start}: {said}"
        );
    }
    let mut broken = META.as_bytes().to_vec();
    broken[30] = 0xff;
    assert!(said(forged(|trace| set(trace, Tensor::Meta, &broken))).contains("no UTF-8"));
    let others = [
        with("[1,3]", "[\"last_prompt\",\"last\"]"),
        with("\"q?\"", "\"\\ud83d\\ude00 1e9 0.5 \\\\ud800 \\\"[[\""),
        with("\"q?\"", "\"?\",\"more\":[true,false,null,-1,0.7,-1e-05]"),
        more("choices", "[[\"A\",\"one\"],[\"B\",\"two\"]]"),
        more("incorrect_answers", "[\"a\",\"b\"]"),
        more("generator", "{\"model\":\"m\",\"temperature\":0.7}"),
        more("generator", "{\"model\":null,\"temperature\":null}"),
        more("spans", &span("[0,1]")),
        more("spans", "[]"),
    ];
    for text in others {
        let file = forged(|trace| set(trace, Tensor::Meta, text.as_bytes()));
        assert_eq!(said(file), "good", "{text}");
    }
}

#[test]
fn an_id_that_looks_like_a_path_is_an_id_and_nothing_else() {
    let file = file_of(vec![apart(0, "../../x"), apart(1, "/etc/passwd"), apart(2, "C:\\x\0")]);
    assert_eq!(said(file), "good");
}

#[test]
fn shapes_that_disagree_are_refused() {
    // Free as far as a shard goes: value heads, the width of hidden states.
    let free = [(Tensor::ValueNorm, 1), (Tensor::Hidden, 2)];
    let entry = apart(0, "a").0;
    for (at, tensor) in entry.tensors.iter().map(|entry| entry.tensor).enumerate() {
        if tensor == Tensor::Meta {
            continue;
        }
        for axis in 0..entry.tensors[at].form.shape.len() {
            for longer in [false, true] {
                let file = forged(|(entry, parts)| {
                    let form = &mut entry.tensors[at].form;
                    form.shape[axis] = form.shape[axis] + 2 * usize::from(longer) - 1;
                    parts[at].resize(form.bytes().unwrap(), 0);
                });
                let is_good = said(file) == "good";
                assert_eq!(is_good, free.contains(&(tensor, axis)), "{tensor}, axis {axis}");
            }
        }
    }
}

#[test]
fn rows_of_detail_are_those_of_the_answer_or_all() {
    use Tensor::{Entropy, Mass, Previous, Rough, Square};
    let of_rows = [Previous, Entropy, Mass, Square, Rough];
    // Of 3 tokens, 1 of them answer.
    for (rows, is_good) in [(1, false), (2, true), (3, true), (4, false)] {
        let file = forged(|(entry, parts)| {
            for (at, part) in entry.tensors.iter_mut().zip(parts) {
                if of_rows.contains(&at.tensor) {
                    at.form.shape[2] = rows;
                    part.resize(at.form.bytes().unwrap(), 0);
                }
            }
        });
        assert_eq!(said(file) == "good", is_good, "{rows} rows");
    }
}

#[test]
fn tensors_that_are_missing_doubled_or_of_another_type_are_refused() {
    let count = apart(0, "a").0.tensors.len();
    for at in 0..count {
        let tensor = apart(0, "a").0.tensors[at].tensor;
        let missing = said(forged(|(entry, parts)| {
            entry.tensors.remove(at);
            parts.remove(at);
        }));
        assert_ne!(missing, "good", "{tensor}");
        let doubled = said(forged(|(entry, parts)| {
            entry.tensors.insert(at, entry.tensors[at].clone());
            parts.insert(at, parts[at].clone());
        }));
        assert_ne!(doubled, "good", "{tensor}");
        for dtype in [Dtype::I64, Dtype::F32, Dtype::U32, Dtype::BF16, Dtype::I8, Dtype::U8] {
            let form = apart(0, "a").0.tensors[at].form.clone();
            if form.dtype != dtype && tensor != Tensor::Hidden && tensor != Tensor::EdgesWeight {
                let other = said(forged(|(entry, parts)| {
                    let form = &mut entry.tensors[at].form;
                    form.dtype = dtype;
                    parts[at].resize(form.bytes().unwrap(), 0);
                }));
                assert_ne!(other, "good", "{tensor} as {dtype:?}");
            }
        }
    }
}

#[test]
fn headers_that_no_writer_writes_are_refused() {
    let file = file_of(vec![apart(0, "a"), apart(7, "b")]);
    let data = 8 + usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap();
    let text = std::str::from_utf8(&file[8..data]).unwrap().trim_end();
    let rest = text.split_once("\"schema").unwrap().1;
    let cases = [
        ("\"schema\\\":2", "\"schema\\\":1", "got schema 1 in memory"),
        ("\\\"numbers\\\":[0,7]", "\\\"numbers\\\":[0,0]", "trace 00000 twice"),
        ("\\\"numbers\\\":[0,7]", "\\\"numbers\\\":[0]", "1 numbers and 2 keys"),
        ("\\\"numbers\\\":[0,7]", "\\\"numbers\\\":[0,7,8]", "more numbers than keys"),
        ("\\\"numbers\\\":[0,7]", "\\\"numbers\\\":[0,07]", "another form"),
        ("[\\\"b\\\",0]", "[\\\"b\\\",4294967296]", "sample 4294967296"),
        ("[\\\"b\\\",0]", "[\\\"b\\\",-1]", "another form"),
        ("[\\\"b\\\",0]", "[\\\"\\\\u0062\\\",0]", "another form"),
        ("[\\\"b\\\",0]", "[\\\"b\\\",0],[\\\"c\\\",0]", "more keys than checksums"),
        (",[\\\"b\\\",0]", "", "more numbers than keys"),
        ("00000.tokens", "00001.tokens", "another form"),
        ("00000.tokens", "00000.token", "another form"),
        ("00000.tokens", "00000.logprob", "out of order"),
        ("\"I32\",\"shape\":[3]", "\"I32\",\"shape\":[ 3]", "another form"),
        ("\"I32\",\"shape\":[3]", "\"I33\",\"shape\":[3]", "another form"),
        ("\"I32\",\"shape\":[3]", "\"I32\",\"shape\":[4]", "offsets"),
        ("\"I32\",\"shape\":[3]", "\"I32\",\"shape\":[3,1,1,1,1]", "another form"),
        ("\"I32\",\"shape\":[3]", "\"I32\",\"shape\":[4294967296,4294967296]", "None due"),
        ("\"I32\",\"shape\":[3]", "\"I32\",\"shape\":[18446744073709551615]", "None due"),
        ("\"I32\",\"shape\":[3]", "\"I32\",\"shape\":[18446744073709551616]", "another form"),
        ("[0,24]", "[24,0]", "offsets [24, 0]"),
        ("[0,24]", "[0,18446744073709551615]", "offsets"),
        ("[24,28]", "[20,28]", "offsets"),
        (rest, "", "another form"),
    ];
    for (from, to, message) in cases {
        assert!(text.contains(from), "{from}");
        let said = said(assemble(text.replacen(from, to, 1).as_bytes(), &file[data..]));
        assert!(said.contains(message), "{from} as {to}: {said}");
    }
    assert_eq!(said(assemble(text.as_bytes(), &file[data..])), "good");
}

proptest! {
    #[test]
    fn any_id_is_read_as_it_was_written(id in any::<String>(), sample in any::<u32>()) {
        let (mut entry, parts) = apart(3, &id);
        entry.key.1 = sample;
        let shard = Shard::from_bytes(file_of(vec![(entry, parts)])).unwrap();
        prop_assert_eq!(&shard.traces()[0].key, &(id, sample));
        let text = header_layout::encode(shard.commit(), shard.traces());
        prop_assert!(shard.bytes()[8..].starts_with(text.as_bytes()));
    }
}
