"""Figures of a paper: their numbers are those of run and evaluation, and each format holds text."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import hallutrace
from detect_runs import plain_auroc
from hallutrace.detect.nets.history import Epoch
from hallutrace.detect.nets.history import write as write_history
from hallutrace.errors import DamagedError, InputError, NotInRunError
from hallutrace.viewer.data.layers import layers_data
from hallutrace.viewer.evaluations.files import EvaluationFiles
from hallutrace.viewer.figures.attention_graph import strongest_edges
from hallutrace.viewer.figures.drawing import FORMATS, FigureRequest, PaperFigure
from hallutrace.viewer.figures.registry import FIGURES, make_figure
from hallutrace.viewer.figures.roc import mean_roc
from hallutrace.viewer.figures.style import DIVERGING, HALLUCINATED, RIGHT, SEQUENTIAL, WIDTHS
from hallutrace.viewer.projections import files
from hallutrace.viewer.projections.projection import project
from hallutrace.viewer.viewed_run import ViewedRun
from hostile_runs import hostile_run

Command = Callable[..., tuple[int, str, str]]
BROWSER = Path(hallutrace.__file__).parent / "viewer" / "browser"
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as training leaves it, with the history of two networks."""
    folder = tmp_path_factory.mktemp("trained") / "mlp"
    for layer in (1, 2):
        epochs = [
            Epoch(number, 1 / number, 0.5 + 0.01 * number * layer, 0.5, 1e-3, 1.0, 8, 0.1)
            for number in range(1, 13)
        ]
        write_history(folder / "training" / f"layer-{layer}", epochs, [])
    return folder


@pytest.fixture(scope="module")
def request_of(
    demo_run: Path, demo_evaluation: Path, trained: Path
) -> Callable[..., FigureRequest]:
    viewed = ViewedRun(hallutrace.open(demo_run), demo_evaluation)

    def request(name: str, **options: Any) -> FigureRequest:
        if name == "training":
            options = {"detectors": (str(trained),), **options}
        return FigureRequest(viewed, **options)

    return request


def read(figure: PaperFigure) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(figure.csv())))


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_in_each_format(
    name: str, request_of: Callable[..., FigureRequest], tmp_path: Path
) -> None:
    figure = make_figure(name, request_of(name))
    assert figure.caption.endswith((".", "?")) and len(read(figure)) == len(figure.rows) > 0
    for form in FORMATS:
        picture, table = figure.write(tmp_path / f"{name}.{form}", form)
        assert table.read_text("utf-8") == figure.csv()
        assert picture.read_bytes() == figure.picture(form), "the same numbers, other bytes"
    texts = svg_texts(tmp_path / f"{name}.svg")
    assert len(texts) > 5
    pdf = pytest.importorskip("pypdf").PdfReader(tmp_path / f"{name}.pdf")
    page = pdf.pages[0]
    width = 72 * WIDTHS[figure.column]
    assert float(page.mediabox.width) == pytest.approx(width, abs=0.5)
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    assert {font["/Subtype"] for font in fonts} == {"/Type0"}  # TrueType, not outlines as type 3
    assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def svg_texts(path: Path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    return ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_double_column_is_wider(request_of: Callable[..., FigureRequest]) -> None:
    figure = make_figure("roc", request_of("roc"))
    widths = []
    for column in ("single", "double"):
        root = ElementTree.fromstring(figure.picture("svg", column))  # type: ignore[arg-type]
        widths.append(float(root.attrib["width"].removesuffix("pt")))
    assert widths == pytest.approx([3.35 * 72, 6.9 * 72])


def test_text_is_of_eight_points(request_of: Callable[..., FigureRequest]) -> None:
    for name in FIGURES:
        picture = make_figure(name, request_of(name)).picture("svg").decode()
        sizes = set(re.findall(r"font:[^;\"]*?([\d.]+)px|font-size: ?([\d.]+)px", picture))
        assert sizes and {float(one or other) for one, other in sizes} == {8.0}, name


def test_the_comparison_is_the_evaluation(
    request_of: Callable[..., FigureRequest], demo_evaluation: Path
) -> None:
    content = json.loads((demo_evaluation / "evaluation.json").read_text())
    rows = read(make_figure("comparison", request_of("comparison", metric="auprc")))
    done = {one["label"]: one for one in content["detectors"] if one["status"] == "done"}
    assert {row["detector"] for row in rows} == set(done)
    tests = {one["one"]: one["p_corrected"] for one in content["against_control"]}
    for row in rows:
        expected = done[row["detector"]]["auprc"]
        assert [float(row[name]) for name in ("auprc", "low", "high")] == list(expected.values())
        p = tests.get(row["detector"])
        assert row["p_against_best_control"] == ("" if p is None else repr(p))
    assert [float(row["auprc"]) for row in rows] == sorted(
        (float(row["auprc"]) for row in rows), reverse=True
    )


def test_the_area_of_each_roc_curve_is_the_auroc_of_the_table(
    request_of: Callable[..., FigureRequest], demo_evaluation: Path
) -> None:
    content = EvaluationFiles.read(demo_evaluation).content
    labels = ("length", "perplexity", "attention-gnn epochs=1 hidden_dim=8")
    rows = read(make_figure("roc", request_of("roc", detectors=labels)))
    for label in labels:
        points = [
            (float(row["fpr"]), float(row["tpr"])) for row in rows if row["detector"] == label
        ]
        rates, hits = np.array(points).T
        area = float(((hits[1:] + hits[:-1]) / 2 * np.diff(rates)).sum())
        row = content.row(label)
        assert row.auroc is not None
        assert area == pytest.approx(row.auroc.value, abs=1e-9)
        assert points[0] == (0, 0) and points[-1] == (1, 1)


def test_a_mean_roc_curve_of_ties_and_many_folds() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(300) < 0.4).astype(np.int8)
    folds = np.arange(300) % 4
    series = np.round(rng.normal(size=(3, 300)) + 0.5 * labels, 1)
    rates, hits = mean_roc(series, labels, folds)
    areas = [
        plain_auroc(one[folds == fold], labels[folds == fold])
        for one in series
        for fold in range(4)
    ]
    area = ((hits[1:] + hits[:-1]) / 2 * np.diff(rates)).sum()
    assert area == pytest.approx(np.mean(areas), abs=1e-12)
    assert (np.diff(rates) >= 0).all() and (np.diff(hits) >= -1e-12).all()


def test_the_calibration_error_of_the_bins_is_that_of_the_table(
    request_of: Callable[..., FigureRequest], demo_evaluation: Path
) -> None:
    content = EvaluationFiles.read(demo_evaluation).content
    rows = read(make_figure("calibration", request_of("calibration", detectors=("perplexity",))))
    counts, risk, share = (
        np.array([float(row[name]) for row in rows]) for name in ("count", "risk", "share")
    )
    assert counts.sum() == content.run.counts.traces
    error = (counts * np.abs(share - risk)).sum() / counts.sum()
    assert error == pytest.approx(content.row("perplexity").ece, abs=1e-12)
    assert (counts * share).sum() == pytest.approx(content.run.counts.hallucinated)


def test_an_evaluation_without_its_curves_is_told(
    demo_run: Path, demo_evaluation: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(demo_evaluation, tmp_path / "older")
    content = json.loads((folder / "evaluation.json").read_text())
    for row in content["detectors"]:
        row.pop("calibration", None)
    (folder / "evaluation.json").write_text(json.dumps(content))
    viewed = ViewedRun(hallutrace.open(demo_run), folder)
    with pytest.raises(NotInRunError, match=r"no calibration of .*: `hallutrace evaluate`"):
        make_figure("calibration", FigureRequest(viewed))


def test_the_points_of_a_map_are_the_projection(
    request_of: Callable[..., FigureRequest], demo_run: Path
) -> None:
    request = request_of("map", layer=1, token="last_prompt")
    figure = make_figure("map", request)
    positions = project(hallutrace.open(demo_run), "pca", 1, "last_prompt").positions
    labels = request.run.label_values("contains")
    for row, point, label in zip(read(figure), positions, labels, strict=True):
        assert [np.float32(row["x"]), np.float32(row["y"])] == point.tolist()
        assert row["label"] == ("" if label < 0 else str(label))
    assert "60 traces" in figure.caption and "nearest neighbours" in figure.caption


def test_a_stored_map_is_taken(demo_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(demo_run, tmp_path / "run")
    store = hallutrace.open(run)
    with pytest.raises(NotInRunError, match="`hallutrace project"):
        make_figure("map", FigureRequest(ViewedRun(store), method="umap"))
    made = project(store, "pca", 2, "last")
    moved = replace(made, positions=made.positions + np.float32(5), method="tsne")
    files.write(store, moved)
    figure = make_figure(
        "map", FigureRequest(ViewedRun(store), method="tsne", layer=2, token="last")
    )
    found = [[np.float32(row["x"]), np.float32(row["y"])] for row in read(figure)]
    np.testing.assert_array_equal(found, moved.positions)
    assert figure.caption.startswith("t-SNE of the hidden state `last` of layer 2")


def test_many_false_positive_rates_are_thinned() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(9000) < 0.5).astype(np.int8)
    scores = rng.normal(size=(1, 9000)) + labels
    rates, hits = mean_roc(scores, labels, np.zeros(9000))
    assert len(rates) <= 2000
    area = ((hits[1:] + hits[:-1]) / 2 * np.diff(rates)).sum()
    assert area == pytest.approx(plain_auroc(scores[0], labels), abs=2e-3)


@pytest.mark.parametrize("shown", ["difference", "mean", "auroc"])
def test_layers_and_heads_are_those_of_the_page(
    shown: str, request_of: Callable[..., FigureRequest]
) -> None:
    request = request_of("layers-heads", marginal="previous", shown=shown)
    data = layers_data(request.run, marginal="previous", label="contains")
    for row in read(make_figure("layers-heads", request)):
        at = int(row["layer"]), int(row["head"])
        for name in ("mean", "deviation", "difference", "low", "high", "auroc"):
            assert np.float32(row[name]) == data[name][at]
        assert float(row["p_corrected"]) == data["corrected"][at]


def test_the_edges_are_the_strongest_of_the_trace(
    request_of: Callable[..., FigureRequest], demo_run: Path
) -> None:
    store = hallutrace.open(demo_run)
    key = store[5].id
    figure = make_figure(
        "attention-graph", request_of("attention-graph", trace=key, layer=1, top_k=2)
    )
    kept = store[5].layer(1)
    rows = read(figure)
    for query in range(len(store[5].tokens)):
        edges = [
            (-float(weight), int(k))
            for k, q, weight in zip(kept.keys, kept.queries, kept.weights, strict=True)
            if q == query and k != query
        ]
        found = [
            (-float(row["weight"]), int(row["key"])) for row in rows if row["query"] == str(query)
        ]
        assert np.ravel(found) == pytest.approx(np.ravel(sorted(edges)[:2]))
    begin = store[5].prompt_length
    for row in rows:
        at = int(row["query"]) - begin
        if at < 0:
            assert row["query_probability"] == ""
        else:
            assert float(row["query_probability"]) == pytest.approx(np.exp(store[5].logprob[at]))


def test_heads_that_were_kept_apart_are_averaged(tmp_path: Path) -> None:
    from detect_runs import Made, causal_attention, write_run

    attention = causal_attention((1, 3, 6), np.random.default_rng(0))
    folder = write_run(tmp_path / "run", [Made(attention, 3)], combine="each")
    edges = strongest_edges(hallutrace.open(folder)[0], 0, 1)
    kept = hallutrace.open(folder)[0].layer(0)
    dense = np.zeros((6, 6))
    np.add.at(dense, (kept.queries, kept.keys), kept.weights.astype(np.float64) / 3)
    np.fill_diagonal(dense, 0)
    assert edges.queries.tolist() == [1, 2, 3, 4, 5]
    assert edges.keys.tolist() == dense.argmax(1)[1:].tolist()
    np.testing.assert_allclose(edges.weights, dense.max(1)[1:], rtol=1e-6)


def test_the_epochs_are_those_of_the_history(
    request_of: Callable[..., FigureRequest], trained: Path
) -> None:
    rows = read(make_figure("training", request_of("training")))
    for layer in (1, 2):
        path = trained / "training" / f"layer-{layer}" / "history.json"
        epochs = json.loads(path.read_text())["epochs"]
        found = [row for row in rows if row["network"] == f"layer-{layer}"]
        assert [float(row["loss"]) for row in found] == [one["loss"] for one in epochs]
        assert [float(row["validation_auroc"]) for row in found] == [
            one["validation_auroc"] for one in epochs
        ]


def test_a_damaged_history_is_told(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "mlp")
    next(folder.rglob("history.json")).write_text('{"epochs": [{}]}')
    with pytest.raises(DamagedError, match="Expected what `hallutrace train` wrote, got KeyError"):
        make_figure("training", FigureRequest(detectors=(str(folder),)))


def test_what_is_missing_names_the_command(demo_run: Path, tmp_path: Path) -> None:
    store = hallutrace.open(demo_run)
    with pytest.raises(NotInRunError, match="`hallutrace evaluate RUN --label NAME` makes one"):
        make_figure("roc", FigureRequest(ViewedRun(store)))
    with pytest.raises(NotInRunError, match="`hallutrace train RUN --detector mlp-probe"):
        make_figure("training", FigureRequest(detectors=(str(tmp_path),)))
    with pytest.raises(InputError, match="give its folder as RUN"):
        make_figure("layers-heads", FigureRequest())
    shutil.copytree(demo_run, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "labels")
    bare = ViewedRun(hallutrace.open(tmp_path / "bare"))
    with pytest.raises(NotInRunError, match="`hallutrace label RUN --by contains` makes them"):
        make_figure("layers-heads", FigureRequest(bare, shown="difference"))
    assert make_figure("layers-heads", FigureRequest(bare)).columns == (
        "layer", "head", "mean", "deviation"
    )  # fmt: skip


def test_strange_texts_are_drawn_as_text(tmp_path: Path) -> None:
    viewed = ViewedRun(hallutrace.open(hostile_run(tmp_path / "hostile", count=12)))
    for key in viewed.key_texts[7:10]:  # that steer a direction, a terminal, a spreadsheet
        figure = make_figure("attention-graph", FigureRequest(viewed, trace=key))
        for form in FORMATS:
            figure.picture(form)
        ElementTree.fromstring(figure.picture("svg"))
        assert "\x1b" not in figure.csv() and "\x1b" not in figure.caption


def test_the_colours_are_those_of_the_page() -> None:
    text = (BROWSER / "colors.js").read_text("utf-8")
    for name, stops in (("SEQUENTIAL", SEQUENTIAL), ("DIVERGING", DIVERGING)):
        found = re.search(rf"const {name} = (\[\[.*?\]\]);", text)
        assert found and [tuple(one) for one in json.loads(found[1])] == list(stops)
    style = (BROWSER / "style.css").read_text("utf-8")
    assert f"--right: {RIGHT}; --hallucinated: {HALLUCINATED};" in style


# The command --------------------------------------------------------------------------------------


def test_the_command_writes_picture_and_numbers(
    command: Command, demo_run: Path, demo_evaluation: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, errors = command("figure", "comparison", demo_run, "--evaluation", demo_evaluation)
    assert (code, out) == (0, "demo-comparison.svg and demo-comparison.csv, 8 rows\n"), errors
    assert "60 traces of" in errors
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "demo-comparison.csv", "demo-comparison.svg"
    ]  # fmt: skip
    code, out, errors = command("figure", "layers-heads", demo_run, "--out", "deep/a.pdf")
    assert code == 0 and (tmp_path / "deep" / "a.pdf").read_bytes()[:5] == b"%PDF-", errors


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["colour"], "Expected one of roc, "),
        (["layers-heads", "--format", "gif"], "got 'gif' - change --format"),
        (["layers-heads", "--out", "a.txt"], "got 'txt' - change --format"),
        (["layers-heads", "--out", "a.pdf", "--format", "svg"], "Expected --out to end in .svg"),
        (["layers-heads", "--column", "triple"], "Expected single or double, got 'triple'"),
        (["layers-heads", "--marginal", "mood"], "Expected one of entropy, previous"),
        (["layers-heads", "--shown", "all"], "Expected one of difference, mean, auroc"),
        (["layers-heads", "--label", "anna"], "Expected one of the labels contains, got 'anna'"),
        (["attention-graph", "--trace", "nobody"], "Expected the key of a trace of this run"),
        (["attention-graph", "--layer", "9"], "Expected a layer with captured attention"),
        (["comparison", "--metric", "luck"], "Expected one of auroc, auprc"),
        (["roc", "--detector", "guess"], "Expected one of the detectors"),
        (["roc", "--label", "anna"], "got one by contains"),
    ],
)
def test_mistakes_are_told_in_a_line(
    arguments: list[str], told: str, command: Command, demo_run: Path, demo_evaluation: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    name, *options = arguments
    code, _, errors = command("figure", name, demo_run, "--evaluation", demo_evaluation, *options)
    assert code == 2 and told in " ".join(errors.split()), errors
    assert not list(tmp_path.iterdir())


def test_without_an_evaluation_the_command_says_how_to_make_one(
    command: Command, demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(demo_run, tmp_path / "alone" / "runs" / "demo")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, _, errors = command("figure", "roc", run)
    assert code == 2 and "`hallutrace evaluate" in errors
