"""The map in a real browser: what it says and shows is what the payloads hold."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_map_data import dequantised

import hallutrace
from hallutrace.viewer.data.map import carried_maps, map_data
from hallutrace.viewer.page import page
from hallutrace.viewer.payload import pack
from hallutrace.viewer.providers import key_of, payload_of
from hallutrace.viewer.viewed_run import ViewedRun

SCATTER = """(points) => {
  const { Plane } = hallutrace["plane.js"], { scatter } = hallutrace["scatter.js"];
  const plane = new Plane(Uint16Array.from(points.x), Uint16Array.from(points.y), [0, 2, 0, 1]);
  const palette = [{ rgb: [0, 0, 0], shape: "circle" }];
  const coloring = { codes: new Uint8Array(plane.count), palette };
  globalThis.told = { window: null, open: null, selected: null };
  globalThis.plot = scatter({ plane, coloring, window: null, label: "made up",
    onWindow: (one) => { told.window = one; }, onHover: (one) => { told.hover = one; },
    onOpen: (one) => { told.open = one; }, onSelect: (ones) => { told.selected = ones; } });
  document.getElementById("view").replaceChildren(plot.element);
}"""


@pytest.fixture(scope="module")
def viewed(demo_run: Path) -> ViewedRun:
    return ViewedRun(hallutrace.open(demo_run))


@pytest.fixture(scope="module")
def map_page(viewed: ViewedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with the map's payloads alone."""
    asked = [("traces", {}), ("projections", {}), *(("map", one) for one in carried_maps(viewed))]
    payloads = [(key_of(name, given), payload_of(viewed, name, given)) for name, given in asked]
    file = tmp_path_factory.mktemp("map") / "map.html"
    file.write_text("".join(page({"title": "demo"}, payloads)), "utf-8")
    return file


@pytest.fixture
def shown(map_page: Path, opened: Any) -> Any:
    """The page's map, drawn."""
    found = opened(map_page, viewport={"width": 1100, "height": 900})
    found.show(view="map")
    drawn(found)
    return found


def drawn(found: Any, more: int = 0) -> int:
    """Waits until the map has been drawn more often than this; how often."""
    for _ in range(500):
        times = found.page.evaluate(
            "() => Number(document.querySelector('.scatter')?.dataset.drawn ?? 0)"
        )
        if times > more:
            return int(times)
        found.page.wait_for_timeout(10)
    raise TimeoutError("the map was not drawn")


def numbers_of(found: Any) -> list[dict[str, str]]:
    """The rows of the CSV behind the figure."""
    with found.page.expect_download() as waiting:
        found.page.get_by_role("button", name="Save CSV").click()
    return list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text("utf-8"))))


def test_the_sentence_and_the_numbers_are_those_of_the_run(shown: Any, viewed: ViewedRun) -> None:
    data = map_data(viewed)
    told = shown.page.locator("figcaption").inner_text()
    share, chance = data["preservation"]["share"], data["preservation"]["chance"]
    assert told.startswith("PCA of the hidden states after layer 3\n")
    assert "60 traces, each a point" in told
    assert f"{100 * data['explained'][0]:.1f}% and {100 * data['explained'][1]:.1f}%" in told
    assert f"{100 * share:.1f}% stay among the nearest here ({100 * chance:.1f}% by chance)" in told
    assert "seed 0" in shown.page.locator(".map-facts .note").first.inner_text()
    assert f"numpy {np.__version__}" in shown.page.locator(".map-facts .note").first.inner_text()
    labels = viewed.label_values("contains")
    legend = shown.page.locator(".map-legend li").all_inner_texts()
    assert legend == [f"hallucinated ({(labels == 1).sum()})", f"right ({(labels == 0).sum()})"]
    rows = numbers_of(shown)
    assert [row["trace"] for row in rows] == viewed.key_texts
    places = np.array([[float(row["x"]), float(row["y"])] for row in rows])
    np.testing.assert_allclose(places, dequantised(data), rtol=1e-4, atol=1e-4)
    words = {1: "hallucinated", 0: "right", -1: "no label"}
    assert [row["label contains"] for row in rows] == [words[label] for label in labels.tolist()]


def test_the_address_chooses_layer_token_and_colour(shown: Any, viewed: ViewedRun) -> None:
    shown.show(layer=1, mapcolor="mean_entropy")
    drawn(shown)
    assert "after layer 1" in shown.page.locator("figcaption").inner_text()
    rows = numbers_of(shown)
    entropies = [float(trace.token_entropy.mean()) for trace in viewed.store]
    found = [float(row["mean entropy (nats)"]) for row in rows]
    np.testing.assert_allclose(found, entropies, atol=5e-4)
    shown.show(layer=3)
    shown.page.locator(".controls select").nth(1).select_option("mean_answer")
    shown.settled()
    drawn(shown)
    assert "its answer (mean)" in shown.page.locator("figcaption").inner_text()
    assert shown.page.evaluate("() => location.hash").count("token=mean_answer") == 1


def test_a_point_is_told_and_opened(shown: Any, viewed: ViewedRun) -> None:
    places = dequantised(map_data(viewed))
    low, high = places.min(axis=0), places.max(axis=0)
    box = shown.page.locator(".scatter").bounding_box()
    pad = 14
    scale = min(
        (box["width"] - 2 * pad) / (high - low)[0], (box["height"] - 2 * pad) / (high - low)[1]
    )
    pixels = (places - (low + high) / 2) * scale * [1, -1] + [box["width"] / 2, box["height"] / 2]
    apart = np.linalg.norm(pixels[:, None] - pixels[None], axis=2) + 1e9 * np.eye(len(pixels))
    loneliest = int(apart.min(axis=1).argmax())
    x, y = pixels[loneliest]
    shown.page.mouse.move(box["x"] + x + 1, box["y"] + y + 1)
    tip = shown.page.locator(".map-tip")
    assert tip.is_visible()
    trace = viewed.store[loneliest]
    assert trace.question[:60] in tip.inner_text() and trace.answer.strip()[:40] in tip.inner_text()
    label = viewed.label_values("contains")[loneliest]
    assert tip.locator("p").last.inner_text() == ("hallucinated" if label else "right")
    shown.page.mouse.click(box["x"] + x + 1, box["y"] + y + 1)
    address = shown.page.evaluate(
        "() => Object.fromEntries(new URLSearchParams(location.hash.slice(1)))"
    )
    assert (address["view"], address["trace"]) == ("trace", viewed.key_texts[loneliest])


def test_keys_zoom_move_and_select(shown: Any, viewed: ViewedRun) -> None:
    times = drawn(shown)
    shown.page.locator(".scatter").focus()
    for key in ("+", "+", "ArrowLeft", "ArrowDown"):
        shown.page.keyboard.press(key)
        times = drawn(shown, times)
    shown.page.wait_for_timeout(400)
    window = shown.page.evaluate(
        "() => new URLSearchParams(location.hash.slice(1)).get('mapwindow')"
    )
    x, y, zoom = map(float, window.split(","))
    assert x < 0.5 and y < 0.5 and zoom == pytest.approx(1.4**2, rel=1e-3)
    shown.page.keyboard.press("s")
    rows = shown.page.locator("[aria-label='Selected traces'] [role=row].openable")
    heading = shown.page.locator("section h3").last.inner_text()
    count = int(heading.split()[0])
    assert 0 < count < 60 and heading.endswith("selected")
    assert shown.page.evaluate("() => document.activeElement.className") == "scatter"
    labels, rate = viewed.label_values("contains"), shown.page.locator("section > div > .note").last
    assert (
        f"on the whole map {100 * (labels == 1).mean():.1f}% of {len(labels)}" in rate.inner_text()
    )
    rows.first.press("Enter")
    assert shown.page.evaluate("() => location.hash").count("view=trace") == 1


def test_the_window_of_the_address_is_shown_again(shown: Any) -> None:
    times = drawn(shown)
    shown.show(mapwindow="0.25,0.75,4")
    drawn(shown, times)
    shown.page.get_by_role("button", name="Show all").click()
    shown.page.wait_for_timeout(400)
    assert "mapwindow" not in shown.page.evaluate("() => location.hash")


def test_a_change_of_theme_draws_anew(shown: Any) -> None:
    corner = (
        "() => [...document.querySelector('.scatter canvas')"
        ".getContext('2d').getImageData(1, 1, 1, 1).data]"
    )
    assert shown.page.evaluate(corner)[:3] == [255, 255, 255]
    shown.page.get_by_role("button", name="Dark").click()
    shown.settled()
    drawn(shown)
    assert shown.page.evaluate(corner)[:3] == [0x16, 0x18, 0x1B]
    shown.page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert shown.page.evaluate(corner)[:3] == [255, 255, 255]


def test_paper_is_white_in_the_dark_theme(map_page: Path, opened: Any) -> None:
    found = opened(map_page)
    found.page.get_by_role("button", name="Dark").click()
    found.page.emulate_media(media="print", color_scheme="dark")
    color = found.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert color == "rgb(255, 255, 255)"
    assert not found.page.locator(".keys").first.is_visible()


def test_a_saved_picture_has_all_points_and_the_legend(shown: Any) -> None:
    with shown.page.expect_download() as waiting:
        shown.page.get_by_role("button", name="Save picture").click()
    assert waiting.value.suggested_filename == "map-pca-layer3-last_answer.svg"
    picture = Path(waiting.value.path()).read_text("utf-8")
    assert picture.count("<path") == 60 + 2
    assert "hallucinated (" in picture and "var(--" not in picture.split("</style>")[1]


def test_without_hidden_states_the_view_says_what_gives_them(tmp_path: Path, opened: Any) -> None:
    missing = {"traces": 3, "missing": "`hallutrace extract --hidden-states answer` keeps them"}
    file = tmp_path / "page.html"
    payload = pack({**missing, "stored": [], "pca": False})
    file.write_text("".join(page({"title": "t"}, [("projections", payload)])), "utf-8")
    told = opened(file).page.locator(".problem")
    assert told.inner_text() == missing["missing"]
    assert told.get_attribute("role") == "note"


def test_bins_are_those_of_numpy(map_page: Path, opened: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 65536, (2, 5000))
    values = np.where(rng.random(5000) < 0.2, np.nan, rng.random(5000)).astype(np.float32)
    codes = rng.integers(0, 3, 5000)
    part, columns, rows = [0.1, 0.83, -0.2, 0.31], 17, 9
    found = opened(map_page).page.evaluate(
        """({x, y, values, codes, part, columns, rows}) => {
          const { Plane, binned } = hallutrace["plane.js"];
          const plane = new Plane(Uint16Array.from(x), Uint16Array.from(y), [0, 2, 0, 1]);
          const numbers = Float32Array.from(values, (one) => one ?? NaN);
          const classes = { codes: Uint8Array.from(codes), classes: 3 };
          const mean = binned(plane, part, columns, rows, { values: numbers });
          const most = binned(plane, part, columns, rows, classes);
          return {
            counts: [...mean.counts], known: [...mean.known], sums: [...mean.sums],
            most: [...most.most], again: [...most.counts],
          };
        }""",
        {
            "x": x.tolist(),
            "y": y.tolist(),
            "values": [None if np.isnan(one) else float(one) for one in values],
            "codes": codes.tolist(),
            "part": part,
            "columns": columns,
            "rows": rows,
        },
    )
    places = (y / 65535 * 0.5, x / 65535)
    edges = [np.linspace(*part[2:], rows + 1), np.linspace(*part[:2], columns + 1)]
    counts = np.histogram2d(*places, edges)[0].ravel()
    assert found["counts"] == found["again"] == counts.tolist()
    known = ~np.isnan(values)
    inside = [axis[known] for axis in places]
    assert found["known"] == np.histogram2d(*inside, edges)[0].ravel().tolist()
    sums = np.histogram2d(*inside, edges, weights=values[known].astype(np.float64))[0].ravel()
    np.testing.assert_allclose(found["sums"], sums, atol=1e-9)
    by_class = np.stack(
        [
            np.histogram2d(*(axis[codes == code] for axis in places), edges)[0].ravel()
            for code in range(3)
        ]
    )
    assert found["most"] == by_class.argmax(axis=0).tolist()


def test_the_lasso_has_what_is_inside(map_page: Path, opened: Any) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 65536, (2, 800))
    found = opened(map_page, viewport={"width": 1000, "height": 800})
    found.page.evaluate(SCATTER, {"x": x.tolist(), "y": y.tolist()})
    drawn(found)
    box = found.page.locator(".scatter").bounding_box()
    scale = min(box["width"] - 28, (box["height"] - 28) / 0.5)
    pixels = np.stack(
        [
            box["width"] / 2 + (x / 65535 - 0.5) * scale,
            box["height"] / 2 - (y / 65535 - 0.5) * 0.5 * scale,
        ],
        axis=1,
    )
    left, right, top, bottom = 200.0, 520.0, 100.0, 300.0
    found.page.keyboard.down("Shift")
    found.page.mouse.move(box["x"] + left, box["y"] + top)
    found.page.mouse.down()
    for corner in ((right, top), (right, bottom), (left, bottom)):
        found.page.mouse.move(box["x"] + corner[0], box["y"] + corner[1], steps=5)
    found.page.mouse.up()
    found.page.keyboard.up("Shift")
    selected = set(found.page.evaluate("() => told.selected"))

    def within(spare: float) -> set[int]:
        return {
            at
            for at, (px, py) in enumerate(pixels.tolist())
            if left - spare < px < right + spare and top - spare < py < bottom + spare
        }

    assert within(-1.5) <= selected <= within(1.5)
    assert len(within(-1.5)) > 50


def test_many_points_are_bins_until_few_are_seen(map_page: Path, opened: Any) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 65536, (2, 30000))
    found = opened(map_page, viewport={"width": 1000, "height": 800})
    found.page.evaluate(SCATTER, {"x": x.tolist(), "y": y.tolist()})
    times = drawn(found)
    assert found.page.evaluate("() => plot.isBinned()")
    found.page.evaluate("() => plot.setWindow({ x: 0.5, y: 0.5, zoom: 4 })")
    drawn(found, times)
    assert not found.page.evaluate("() => plot.isBinned()")
    part = found.page.evaluate("() => plot.part()")
    px, py = x / 65535, y / 65535 * 0.5
    inside = (px >= part[0]) & (px <= part[1]) & (py >= part[2]) & (py <= part[3])
    assert sorted(found.page.evaluate("() => plot.seen()")) == np.flatnonzero(inside).tolist()


def test_the_nearest_point_is_found(map_page: Path, opened: Any) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 65536, (2, 3000))
    asked = rng.random((50, 2)) * [1, 0.5]
    found = opened(map_page).page.evaluate(
        """({x, y, asked}) => {
          const { Plane } = hallutrace["plane.js"];
          const plane = new Plane(Uint16Array.from(x), Uint16Array.from(y), [0, 2, 0, 1]);
          return asked.map(([px, py]) => plane.nearest(px, py, 0.01));
        }""",
        {"x": x.tolist(), "y": y.tolist(), "asked": asked.tolist()},
    )
    places = np.stack([x / 65535, y / 65535 * 0.5], axis=1)
    distances = np.linalg.norm(asked[:, None] - places[None], axis=2)
    expected = np.where(distances.min(axis=1) <= 0.01, distances.argmin(axis=1), -1)
    assert found == expected.tolist()
    assert -1 in found and len(set(found)) > 10
