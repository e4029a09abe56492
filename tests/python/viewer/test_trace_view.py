"""The view of one trace in a real browser: what stands there is what the store gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from browsers import Opened
from detect_runs import Made, causal_attention, write_run
from hallutrace.viewer.data.attention import attention_data
from hallutrace.viewer.data.trace import trace_data
from hallutrace.viewer.data.trace_parts import trace_parts
from hallutrace.viewer.page import page
from hallutrace.viewer.payload import pack
from hallutrace.viewer.providers import key_of, payload_of
from hallutrace.viewer.viewed_run import ViewedRun

SELECT = """async ([share, side]) => {
  const { "edges.js": edges, "raster.js": raster, "source.js": source } = hallutrace;
  const graph = edges.graphOf(await new source.EmbeddedSource().get("graph"));
  const tokens = [...Array(graph.tokens).keys()];
  return {
    lookedAt: tokens.map((token) => edges.lookedAt(graph, token, share)),
    lookedAtBy: tokens.map((token) => edges.lookedAtBy(graph, token, share)),
    rows: tokens.map((token) => edges.rowSummary(graph, token, share)),
    spread: edges.droppedSummary(graph),
    cells: [...raster.cells(graph, side, share)],
  };
}"""


def write_page(viewed: ViewedRun, out: Path, keys: list[str], *, edges: bool = True) -> Path:
    """A page that carries some traces of a run."""
    parts = [part for key in keys for part in trace_parts(viewed, key, edges=edges)]
    payloads = [(key_of(name, at), payload_of(viewed, name, at)) for name, at in parts]
    out.write_text("".join(page({"title": "t", "served": False}, payloads)), "utf-8")
    return out


def random_rows(rng: np.random.Generator, tokens: int) -> dict[str, np.ndarray]:
    """Rows of any number of edges, with ties, empty ones, and weights as they are stored."""
    dense = rng.random((tokens, tokens)) * np.tri(tokens) * (rng.random((tokens, tokens)) < 0.6)
    dense[rng.integers(tokens, size=3)] = 0
    dense = np.round(dense * rng.choice([4, 1000], size=(tokens, 1))).astype(np.float16)
    dense /= np.float16(2048)
    kept = dense > 0
    dropped = rng.random(tokens).astype(np.float32)
    dropped[0] = np.nan
    return {
        "dense": dense.astype(np.float64),
        "indptr": np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.uint32),
        "keys": np.nonzero(kept)[1].astype(np.uint16),
        "weights": dense[kept],
        "dropped": dropped,
    }


def carried(dense: np.ndarray, share: float) -> np.ndarray:
    """Of each row the fewest heaviest edges with a share of its sum, bool [rows, keys]."""
    found = np.zeros(dense.shape, bool)
    for row, weights in enumerate(dense):
        order = np.lexsort((np.arange(len(weights)), -weights))
        sums = np.cumsum(weights[order])
        before = np.concatenate([[0], sums[:-1]])
        found[row, order] = (before < share * sums[-1]) & (weights[order] > 0)
    return found


@pytest.mark.parametrize("share", [0.01, 0.5, 0.8, 0.99, 1.0])
@pytest.mark.parametrize("tokens", [9, 90])
def test_the_edges_that_carry_a_share_are_those_of_numpy(
    share: float, tokens: int, tmp_path: Path, opened: Any
) -> None:
    rows = random_rows(np.random.default_rng(tokens), tokens)
    dense = rows.pop("dense")
    file = tmp_path / "page.html"
    parts = [("graph", pack(rows))]
    file.write_text("".join(page({"title": "t", "served": False}, parts)), "utf-8")
    side = 7
    found = opened(file).page.evaluate(SELECT, [share, side])
    wanted = carried(dense, share)
    for token in range(tokens):
        for name, at, weights in (
            ("lookedAt", wanted[token], dense[token]),
            ("lookedAtBy", wanted[:, token], dense[:, token]),
        ):
            order = np.lexsort((np.arange(tokens), -weights))
            expected = [(int(one), float(weights[one])) for one in order if at[one]]
            assert [(one["token"], one["weight"]) for one in found[name][token]] == expected
        summary = found["rows"][token]
        assert summary["edges"] == int((dense[token] > 0).sum())
        assert summary["carried"] == int(wanted[token].sum())
        assert summary["kept"] == pytest.approx(dense[token].sum())
        assert summary["weight"] == pytest.approx(dense[token][wanted[token]].sum())
    known = rows["dropped"][1:].astype(np.float64)
    assert found["spread"]["median"] == pytest.approx(np.median(known))
    assert found["spread"]["most"] == pytest.approx(known.max())
    cells = np.zeros((side, side))
    for query, key in zip(*np.nonzero(wanted), strict=True):
        place = query * side // tokens, key * side // tokens
        cells[place] = max(cells[place], dense[query, key])
    np.testing.assert_array_equal(np.reshape(found["cells"], (side, side)), cells)


@pytest.fixture(scope="module")
def viewed(demo_run: Path, demo_evaluation: Path) -> ViewedRun:
    return ViewedRun(hallutrace.open(demo_run), demo_evaluation)


@pytest.fixture
def shown(viewed: ViewedRun, tmp_path: Path, opened: Any) -> Opened:
    """A page of three traces, at the second of them."""
    file = write_page(viewed, tmp_path / "page.html", viewed.key_texts[:3])
    found: Opened = opened(file)
    found.show(view="trace", trace=viewed.key_texts[1], layer=2)
    found.page.wait_for_selector(".row-told strong")
    return found


def texts(found: Opened, selector: str) -> list[str]:
    return list(found.page.locator(selector).all_inner_texts())


def address(found: Opened) -> dict[str, str]:
    """The state in the address."""
    return dict(
        found.page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")
    )


def open_numbers(found: Opened, title: str) -> list[list[str]]:
    """The rows of a figure's table."""
    figure = found.page.locator("figure", has=found.page.get_by_role("heading", name=title))
    if not figure.locator("table.plain").count():
        figure.locator("summary", has_text="Numbers").click()
    return [one.split("\t") for one in figure.locator("table.plain tbody tr").all_inner_texts()]


def test_texts_labels_and_scores_stand_there(shown: Opened, viewed: ViewedRun) -> None:
    trace = viewed.store[1]
    rows = dict(zip(texts(shown, ".texts dt"), texts(shown, ".texts dd"), strict=True))
    assert rows["Question"] == trace.question and rows["Answer"] == trace.answer
    assert rows["References"].splitlines() == trace.references
    word = {1: "hallucinated", 0: "right"}[int(viewed.label_values("contains")[1])]
    assert f"{word} by contains" in rows["Labels"]
    shown.page.locator("summary", has_text="Scores by").click()
    scores = dict(one.split("\t") for one in texts(shown, ".trace details table.plain tbody tr"))
    for name, value in trace_data(viewed, trace=viewed.key_texts[1])["scores"].items():
        assert float(scores[name]) == pytest.approx(value, rel=1e-3)


def test_the_tokens_are_the_prompt_and_the_answer(shown: Opened, viewed: ViewedRun) -> None:
    found = trace_data(viewed, trace=viewed.key_texts[1])
    wanted = [found["tokens"]["texts"][at].replace("\n", "⏎") for at in found["tokens"]["at"]]
    assert shown.page.locator(".token").evaluate_all("all => all.map(x => x.textContent)") == wanted
    answer = shown.page.get_by_role("group", name="Answer").locator(".token")
    assert answer.count() == len(found["logprob"])


def test_the_numbers_of_a_token_are_those_of_the_trace(shown: Opened, viewed: ViewedRun) -> None:
    trace, layer = viewed.store[1], 2
    for answer in range(2):
        shown.show(token=trace.prompt_length + answer)
        names = texts(shown, ".numbers-of-token dt")
        numbers = dict(zip(names, texts(shown, ".numbers-of-token dd"), strict=True))
        at = trace.prompt_length + answer
        wanted = {
            "log-probability": trace.logprob[answer],
            "entropy of the next token": trace.token_entropy[answer],
            "attention to itself": trace.marginals.diagonal[layer, :, at].mean(),
            "received attention": trace.marginals.received_mean[layer, :, at].mean(),
            "entropy of its attention, nats": trace.marginals.entropy[layer, :, answer + 1].mean(),
            "attention that pruning dropped": attention_data(
                viewed, trace=viewed.key_texts[1], layer="2"
            )["dropped"][at],
        }
        for name, value in wanted.items():
            assert float(numbers[name]) == pytest.approx(float(value), rel=6e-3, abs=1e-3), name
        rows = [one.split("\t") for one in texts(shown, ".alternatives tr")]
        kept = trace.alternatives
        assert len(rows) == kept.tokens.shape[1]
        for row, logprob in zip(rows, kept.logprobs[answer], strict=True):
            assert float(row[1].rstrip("%")) == pytest.approx(100 * np.exp(logprob), abs=0.06)


def test_arcs_and_dropped_mass_are_those_of_the_layer(shown: Opened, viewed: ViewedRun) -> None:
    trace = viewed.store[1]
    token, edges = trace.prompt_length, trace.layer(2)
    shown.show(token=token)
    rows = open_numbers(shown, "Attention of the token")
    before = {(int(row[3]), float(row[5])) for row in rows if row[2] == "looked at"}
    after = {(int(row[3]), float(row[5])) for row in rows if row[2] == "was looked at by"}
    mine, theirs = edges.queries == token, edges.keys == token
    for found, others, weights in (
        (before, edges.keys[mine], edges.weights[mine]),
        (after, edges.queries[theirs], edges.weights[theirs]),
    ):
        assert [one for one, _ in sorted(found)] == others.tolist()
        shown_weights = [weight for _, weight in sorted(found)]
        np.testing.assert_allclose(shown_weights, weights, rtol=1e-3)
    assert shown.page.locator(".arcs .looks").count() == int(mine.sum())
    assert shown.page.locator(".arcs .seen").count() == int(theirs.sum())
    dropped = 1 - float(edges.weights[mine].astype(np.float64).sum())
    told = shown.page.locator(".row-told").inner_text()
    assert f"Pruning had already dropped {100 * max(dropped, 0):.1f}% of this row" in told
    shown.show(trace_keep=50)
    weights = np.sort(edges.weights[mine].astype(np.float64))[::-1]
    count = int(np.searchsorted(np.cumsum(weights), 0.5 * weights.sum())) + 1
    assert shown.page.locator(".arcs .looks").count() == count
    told = shown.page.locator(".row-told").inner_text()
    assert f"{count} of {int(mine.sum())} kept edges shown" in told
    assert f"{100 * weights[:count].sum():.1f}% of its attention" in told


def test_every_head_of_the_token_is_in_the_table(shown: Opened, viewed: ViewedRun) -> None:
    trace = viewed.store[1]
    shown.show(token=trace.prompt_length, trace_marginal="diagonal")
    rows = open_numbers(shown, "The token in every layer and head")
    wanted = trace.marginals.diagonal[:, :, trace.prompt_length]
    assert len(rows) == wanted.size
    for layer, head, value in rows:
        assert float(value) == pytest.approx(wanted[int(layer), int(head)], rel=1e-3)


def test_the_keyboard_alone_is_enough(shown: Opened, viewed: ViewedRun) -> None:
    first = viewed.store[1].prompt_length
    keys = shown.page.keyboard
    shown.page.get_by_role("listbox").focus()
    keys.press("ArrowRight")
    assert address(shown)["token"] == str(first + 1)
    keys.press("Enter")
    keys.press("Home")
    keys.press("Enter")
    found = address(shown)
    assert (found["token"], found["trace_pins"]) == ("0", f"{first + 1}.0")
    pinned = shown.page.locator("[aria-selected=true]")
    assert pinned.evaluate_all("all => all.map(x => x.id)") == ["token-0", f"token-{first + 1}"]
    keys.press("Enter")
    assert address(shown)["trace_pins"] == f"{first + 1}"
    keys.press("Escape")
    assert "trace_pins" not in address(shown)
    keys.press("]")
    assert address(shown)["layer"] == "3"
    keys.press("]")  # there is no layer after the last
    keys.press("[")
    keys.press("[")
    assert address(shown)["layer"] == "1"
    active = shown.page.locator("[role=listbox]").get_attribute("aria-activedescendant")
    assert active == "token-0"


def test_the_address_brings_the_same_view_back(shown: Opened, viewed: ViewedRun) -> None:
    shown.show(token=3, trace_pins="5.7", trace_keep=60, trace_color="diagonal")
    told = shown.page.locator(".row-told").inner_text()
    colors = "all => all.map(x => x.style.backgroundColor)"
    painted = shown.page.locator(".token").evaluate_all(colors)
    shown.page.reload()
    shown.settled()
    shown.page.wait_for_selector(".row-told strong")
    assert shown.page.locator(".row-told").inner_text() == told
    assert shown.page.locator(".token").evaluate_all(colors) == painted
    assert len(set(painted)) > 3
    assert shown.page.locator(".token.pinned").count() == 2


def test_the_next_trace_begins_anew(shown: Opened, viewed: ViewedRun) -> None:
    shown.show(token=3, trace_pins="5.7")
    shown.page.get_by_role("link", name="next →").click()
    shown.settled()
    found = address(shown)
    assert found["trace"] == viewed.key_texts[2] and {"token", "trace_pins"}.isdisjoint(found)
    assert shown.page.locator(".texts dd").first.inner_text() == viewed.store[2].question
    assert not shown.page.get_by_role("link", name="next →").count()


def test_pointing_at_a_token_changes_nothing_but_what_is_shown(
    shown: Opened, viewed: ViewedRun
) -> None:
    before = address(shown)
    shown.page.locator("#token-4").hover()
    assert "token 5 of" in shown.page.locator(".token-panel").inner_text()
    assert address(shown) == before
    shown.page.locator("#token-4").click()
    assert address(shown)["trace_pins"] == "4"


def test_what_attention_is_not_stands_beside_the_graph(shown: Opened, viewed: ViewedRun) -> None:
    told = shown.page.locator(".trace .warning").inner_text()
    control = trace_data(viewed)["edges_control"][0]
    assert "no weight here is an explanation" in told
    assert f"{control['model']} reaches an AUROC of {control['auroc']:.3f}" in told
    assert f"and {control['shuffled']:.3f} with its edges shuffled" in told


def test_a_trace_without_its_graph_shows_its_tokens(
    viewed: ViewedRun, tmp_path: Path, opened: Any
) -> None:
    file = write_page(viewed, tmp_path / "page.html", viewed.key_texts[:1], edges=False)
    found = opened(file)
    found.show(view="trace")
    assert found.page.locator(".token").count() == len(viewed.store[0].tokens)
    assert "`hallutrace explore` shows them" in found.page.locator(".problem").inner_text()
    assert not found.page.locator(".arcs").is_visible()


def test_heads_that_were_kept_apart_have_a_slider(tmp_path: Path, opened: Any) -> None:
    rng = np.random.default_rng(0)
    made = Made(causal_attention((2, 3, 12), rng, 2.0), 8)
    run = write_run(tmp_path / "run", [made], combine="each")
    viewed = ViewedRun(hallutrace.open(run))
    found = opened(write_page(viewed, tmp_path / "page.html", ["q0"]))
    found.show(view="trace", token=9, layer=1, head=2)
    found.page.wait_for_selector(".row-told strong")
    dropped = attention_data(viewed, layer="1", head="2")["dropped"][9]
    assert f"{100 * dropped:.1f}%" in found.page.locator(".row-told").inner_text()
    assert "of head 2 of layer 1" in found.page.locator(".trace").inner_text()


def test_right_to_left_and_control_characters_stay_in_their_token(
    tmp_path: Path, opened: Any
) -> None:
    rng = np.random.default_rng(0)
    run = write_run(tmp_path / "run", [Made(causal_attention((1, 1, 6), rng), 4)])
    viewed = ViewedRun(hallutrace.open(run))
    odd = ["שלום", "\u202eabc", "\x1b[31m", "  ", "\n", "<img src=x onerror=alert(1)>"]
    viewed.__dict__["texts_of"] = lambda ids: [odd[one] for one in ids]
    found = opened(write_page(viewed, tmp_path / "page.html", ["q0"]))
    found.show(view="trace")
    shown = found.page.locator(".token").evaluate_all("all => all.map(x => x.textContent)")
    assert shown == ["שלום", r"\u202eabc", r"\x1b[31m", "␣␣", "⏎", odd[-1]]
    lefts = found.page.locator(".token").evaluate_all(
        "all => all.map(x => x.getBoundingClientRect().left)"
    )
    assert lefts[:4] == sorted(lefts[:4])  # those of the prompt, in one line


def test_a_long_trace_shows_its_end_and_says_so(tmp_path: Path, opened: Any) -> None:
    found = opened(write_page(*long_run(tmp_path)))
    found.show(view="trace")
    assert found.page.locator(".token").count() == 4096
    assert "The first 4 tokens are left out here" in found.page.locator(".trace").inner_text()


def long_run(folder: Path) -> tuple[ViewedRun, Path, list[str]]:
    """A trace of 4,100 tokens that each look at themselves, in one head."""
    made = Made(np.eye(4100, dtype=np.float32)[None, None], 4000)
    viewed = ViewedRun(hallutrace.open(write_run(folder / "run", [made])))
    return viewed, folder / "page.html", ["q0"]


def test_labelled_spans_are_underlined_and_named(
    viewed: ViewedRun, tmp_path: Path, opened: Any
) -> None:
    key = viewed.key_texts[0]
    content = trace_data(viewed, trace=key)
    content["texts"]["spans"] = {"items": [{"tokens": [0, 1], "label": "<b>made up"}], "count": 1}
    file = tmp_path / "page.html"
    payloads = [(key_of("trace", {"trace": key}), pack(content))]
    file.write_text("".join(page({"title": "t", "served": False}, payloads)), "utf-8")
    found = opened(file)
    found.show(view="trace", token=content["prompt_length"])
    labelled = found.page.locator(".token.labelled")
    assert labelled.evaluate_all("all => all.map(x => Number(x.dataset.token))") == [
        content["prompt_length"]
    ]
    assert "In a span labelled <b>made up." in found.page.locator(".token-panel").inner_text()
