//! One reduction on fixed attention, for `benches/instructions.py` to count its instructions.
//!
//! instructions SET TASK DTYPE TOKENS [HEADS]

mod common;

use common::{all_in_one, attention};
use half::{bf16, f16};
use hallutrace::attention::{AttentionView, Elements, Layout};
use hallutrace::reduce::sparsify;
use hallutrace::simd::InstructionSet;
use hallutrace::sparsify::{Combine, Rules};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [set, task, dtype, tokens, heads @ ..] = arguments.as_slice() else {
        return Err("Expected SET TASK DTYPE TOKENS [HEADS]".into());
    };
    let heads = heads.first().map_or(Ok(4), |heads| heads.parse())?;
    InstructionSet::use_on_thread(Some(set.parse()?));
    let tokens = tokens.parse()?;
    let single = attention(heads, tokens);
    let half: Vec<f16> = single.iter().map(|&weight| f16::from_f32(weight)).collect();
    let brain: Vec<bf16> = single.iter().map(|&weight| bf16::from_f32(weight)).collect();
    let elements = match dtype.as_str() {
        "float32" => Elements::F32(&single),
        "float16" => Elements::F16(&half),
        "bfloat16" => Elements::Bf16(&brain),
        _ => return Err(format!("unknown dtype {dtype}").into()),
    };
    let layout = Layout::contiguous(heads, tokens, tokens);
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
        "all" => Ok(all_in_one(elements, layout)?),
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
