//! One reduction on fixed attention, for `benches/instructions.py` to count its instructions.
//!
//! instructions SET TASK DTYPE TOKENS

use half::{bf16, f16};
use hallutrace::attention::{AttentionView, BatchView, Elements, Layout};
use hallutrace::reduce::{LayerReducer, SequenceShape, sparsify};
use hallutrace::simd::InstructionSet;
use hallutrace::sparsify::{Combine, Rules};

const HEADS: usize = 4;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [set, task, dtype, tokens] = arguments.as_slice() else {
        return Err("Expected SET TASK DTYPE TOKENS".into());
    };
    InstructionSet::use_on_thread(Some(set.parse()?));
    let tokens = tokens.parse()?;
    let single = attention(tokens);
    let half: Vec<f16> = single.iter().map(|&weight| f16::from_f32(weight)).collect();
    let brain: Vec<bf16> = single.iter().map(|&weight| bf16::from_f32(weight)).collect();
    let elements = match dtype.as_str() {
        "float32" => Elements::F32(&single),
        "float16" => Elements::F16(&half),
        "bfloat16" => Elements::Bf16(&brain),
        _ => return Err(format!("unknown dtype {dtype}").into()),
    };
    let layout = Layout::contiguous(HEADS, tokens, tokens);
    // The first call asks the system for the memory that later ones use again.
    run(task, elements, layout)?;
    println!("{} edges", measured(task, elements, layout)?);
    Ok(())
}

/// What is counted.
#[inline(never)]
fn measured(task: &str, elements: Elements<'_>, layout: Layout) -> Result<usize, Failure> {
    run(task, elements, layout)
}

fn run(task: &str, elements: Elements<'_>, layout: Layout) -> Result<usize, Failure> {
    match task {
        "top-8" => select(elements, layout, Some(8), None),
        "top-100" => select(elements, layout, Some(100), None),
        "mass" => select(elements, layout, None, Some(0.9)),
        "all" => all_in_one(elements, layout),
        _ => Err(format!("unknown task {task}").into()),
    }
}

/// Edges of each head.
fn select(
    elements: Elements<'_>,
    layout: Layout,
    top_k: Option<usize>,
    top_mass: Option<f64>,
) -> Result<usize, Failure> {
    let view = AttentionView::new(elements, layout, true, None)?;
    Ok(sparsify(&view, Rules::new(top_k, 0.0, top_mass)?, Combine::Each)?.len())
}

/// Head mean, top-16 and all marginals of all rows.
fn all_in_one(elements: Elements<'_>, layout: Layout) -> Result<usize, Failure> {
    let prompt = layout.keys / 2;
    let shape = SequenceShape { tokens: layout.keys, prompt, segments: vec![1, prompt] };
    let selection = (Rules::new(Some(16), 0.0, None)?, Combine::Mean);
    let mut reducer = LayerReducer::new(HEADS, vec![shape], selection, false, true)?;
    reducer.push(&BatchView::new(elements, layout, 1, 0)?, 0)?;
    Ok(reducer.finish()?[0].keys.len())
}

/// Causal rows of weights whose logarithms are uniform, and which sum to 1.
fn attention(tokens: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut unit = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 * 2.0_f32.powi(-24)
    };
    let mut weights = vec![0.0; HEADS * tokens * tokens];
    for (number, row) in weights.chunks_exact_mut(tokens).enumerate() {
        let row = &mut row[..=number % tokens];
        for weight in &mut *row {
            *weight = (12.0 * unit() - 6.0).exp();
        }
        let sum: f32 = row.iter().sum();
        for weight in row {
            *weight /= sum;
        }
    }
    weights
}
