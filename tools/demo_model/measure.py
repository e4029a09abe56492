"""Measures the small model: `python -m demo_model.measure`.

Asks every question greedily and says how often the model is right, and how well simple scores and
linear probes tell right answers from wrong ones. Plain torch, transformers and scikit-learn, so
that it is also an independent check of what the rest of hallutrace finds for this model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from demo_model.ask import Answer, ask_all
from demo_model.relations import RELATIONS
from demo_model.text import FIRM, SOFT
from hallutrace.demo import MODEL_FOLDER, QUESTIONS_FILE

RELATION_OF = {relation.name: relation for relation in RELATIONS}

SPLITS, TEST_SHARE = 3, 0.3
PROBE_STRENGTH = 0.02
"""Inverse of the probes' L2 penalty."""

TOLERANCES = {
    "right on known facts": (0.95, 1.0),
    "right on held-out facts": (0.0, 0.30),
    "AUROC of mean logprob": (0.74, 0.84),
    "probe above mean logprob": (0.05, 0.5),
}
"""What `--check` asks for: lowest and highest, both included."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Figures = dict[str, Any]


def share(flags: Iterable[bool]) -> float:
    """The share of flags that are set."""
    return float(np.mean(list(flags)))


def lengths(answers: list[Answer]) -> dict[str, float]:
    """Share of answers with each number of tokens, <eos> not counted."""
    counts = Counter(answer.length for answer in answers)
    return {str(length): counts[length] / len(answers) for length in sorted(counts)}


def hedged(answer: Answer) -> bool:
    """Whether a hedge stands in the answer."""
    hedges = {*FIRM.openings, *FIRM.endings, *SOFT.openings, *SOFT.endings}
    return any(f" {hedge} " in f" {answer.text} " for hedge in hedges)


def leads(answer: Answer) -> bool:
    """Whether the answer is a value in the commonest form for its wording of the question.

    A form that only unsure (or only sure) answers took would give them away.
    """
    relation = RELATION_OF[answer.row["id"].rsplit("-", 1)[1]]
    question = answer.row["question"]
    for template in relation.templates:
        before, after = template.question.split("{entity}")
        if question.startswith(before) and question.endswith(after):
            form, _ = template.forms[0]
            return answer.text in {value.say(form) for value in relation.values}
    return False


def balanced(answers: list[Answer]) -> list[Answer]:
    """All of the rarer of right and wrong answers, as many of the other, at random."""
    random = np.random.default_rng(0)
    right = [answer for answer in answers if answer.is_right]
    wrong = [answer for answer in answers if not answer.is_right]
    size = min(len(right), len(wrong))
    return [
        side[i] for side in (right, wrong) for i in sorted(random.permutation(len(side))[:size])
    ]


def splits(labels: Bools, groups: NDArray[Any]) -> Iterable[tuple[NDArray[Any], NDArray[Any]]]:
    """Train and test parts without a common entity; the same for every call."""
    splitter = GroupShuffleSplit(SPLITS, test_size=TEST_SHARE, random_state=0)
    yield from splitter.split(labels, labels, groups)


def fitted_auroc(train: Floats, train_labels: Bools, test: Floats, test_labels: Bools) -> float:
    """AUROC on the test part of a logistic regression fitted to the train part."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_STRENGTH, max_iter=2000))
    model.fit(train, train_labels)
    return float(roc_auc_score(test_labels, model.decision_function(test)))


def probe(states: Floats, labels: Bools, groups: NDArray[Any]) -> float:
    """AUROC of a linear probe on entities it has not seen, mean over the splits.

    Args:
        states: [answers, layers, features]; the layer is chosen within each train part.
        labels: [answers], whether the answer is right.
        groups: [answers], the entity asked about.
    """
    scores = []
    for train, test in splits(labels, groups):
        fit, choose = next(iter(splits(labels[train], groups[train])))
        layer = max(
            range(states.shape[1]),
            key=lambda i: fitted_auroc(
                states[train[fit], i], labels[train[fit]],
                states[train[choose], i], labels[train[choose]],
            ),
        )  # fmt: skip
        scores.append(
            fitted_auroc(states[train, layer], labels[train], states[test, layer], labels[test])
        )
    return float(np.mean(scores))


def bags(answers: list[Answer]) -> Floats:
    """How often each token of the vocabulary is in each prompt, [answers, 1, tokens]."""
    width = 1 + max(max(answer.prompt) for answer in answers)
    counts = [np.bincount(answer.prompt, minlength=width) for answer in answers]
    return np.stack(counts).astype(np.float64)[:, None, :]


def aurocs(answers: list[Answer]) -> dict[str, float]:
    """How well each score tells right from wrong, on balanced answers; .5 is chance."""
    answers = balanced(answers)
    labels = np.array([answer.is_right for answer in answers])
    groups = np.array([answer.row["group"] for answer in answers])
    scores = {
        "mean logprob": [answer.logprobs.mean() for answer in answers],
        "mean logprob without <eos>": [
            answer.logprobs[: max(1, answer.length)].mean() for answer in answers
        ],
        "min logprob": [answer.logprobs.min() for answer in answers],
        "first-token entropy": [-answer.first_entropy for answer in answers],
        "answer length": [-answer.length for answer in answers],
    }
    figures = {name: float(roc_auc_score(labels, score)) for name, score in scores.items()}
    states: dict[str, Floats] = {
        "bag of question tokens": bags(answers),
        "probe, last prompt token": np.stack([answer.prompt_state for answer in answers]),
        "probe, last answer token": np.stack([answer.answer_state for answer in answers]),
    }
    return figures | {name: probe(state, labels, groups) for name, state in states.items()}


def measure(model_folder: Path = MODEL_FOLDER, questions_file: Path = QUESTIONS_FILE) -> Figures:
    """Ask all questions and measure the answers.

    Args:
        model_folder: model and tokenizer.
        questions_file: the questions it was made with.

    Returns:
        Shares and AUROCs, ready for JSON.
    """
    rows = [json.loads(line) for line in questions_file.read_text(encoding="utf-8").splitlines()]
    answers = ask_all(model_folder, rows)
    parts = {
        "known": [answer for answer in answers if not answer.row["held_out"]],
        "held_out": [answer for answer in answers if answer.row["held_out"]],
    }
    return {
        "questions": {name: len(part) for name, part in parts.items()},
        "right": {name: share(answer.is_right for answer in part) for name, part in parts.items()},
        "leading_form": {name: share(map(leads, part)) for name, part in parts.items()},
        "hedged": {name: share(map(hedged, part)) for name, part in parts.items()},
        "answer_tokens": {name: lengths(part) for name, part in parts.items()},
        "auroc": aurocs(answers),
        "auroc_among_held_out": aurocs(parts["held_out"]),
    }


def outside(figures: Figures) -> list[str]:
    """The figures outside their tolerances, as sentences; none if all is well."""
    auroc = figures["auroc"]
    better = max(auroc["probe, last prompt token"], auroc["probe, last answer token"])
    found = {
        "right on known facts": figures["right"]["known"],
        "right on held-out facts": figures["right"]["held_out"],
        "AUROC of mean logprob": auroc["mean logprob"],
        "probe above mean logprob": better - auroc["mean logprob"],
    }
    return [
        f"Expected {name} from {low:.2f} to {high:.2f}, got {found[name]:.3f}"
        for name, (low, high) in TOLERANCES.items()
        if not low <= found[name] <= high
    ]


def format_figures(figures: Figures) -> str:
    """The figures as a table to read."""
    lines = [f"{'':28}{'known':>10}{'held out':>10}"]
    rows = (("questions", "10"), ("right", "10.3f"), ("leading_form", "10.3f"), ("hedged", "10.4f"))
    for key, form in rows:
        known, held_out = figures[key]["known"], figures[key]["held_out"]
        lines.append(f"{key.replace('_', ' '):28}{known:{form}}{held_out:{form}}")
    by_length = figures["answer_tokens"]
    for length in sorted({*by_length["known"], *by_length["held_out"]}, key=int):
        known, held_out = (by_length[part].get(length, 0.0) for part in ("known", "held_out"))
        lines.append(f"{f'answers of {length} tokens':28}{known:10.3f}{held_out:10.3f}")
    lines.append(f"\n{'AUROC, right from wrong':28}{'all':>10}{'held out':>10}")
    for name, value in figures["auroc"].items():
        lines.append(f"{name:28}{value:10.3f}{figures['auroc_among_held_out'][name]:10.3f}")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m demo_model.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=MODEL_FOLDER.parent,
        help="where model/ and questions.jsonl lie (default: the package itself)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument(
        "--check", action="store_true", help="fail (exit 1) if a figure is outside its tolerance"
    )
    arguments = parser.parse_args()
    figures = measure(arguments.folder / "model", arguments.folder / "questions.jsonl")
    print(format_figures(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    problems = outside(figures)
    print("\n".join(problems) or "All figures are within their tolerances.")
    if arguments.check and problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
