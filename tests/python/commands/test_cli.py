"""The commands as a user types them: what they print, and how they refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from conftest import Command
from hallutrace.config import ExtractConfig
from tiny_models import save_tiny, tiny_t5


@pytest.fixture
def hallutrace(command: Command) -> Command:
    """Runs a command line."""
    return command


@pytest.fixture
def options(tmp_path: Path) -> list[str | Path]:
    """Options of an extraction that takes a second."""
    lines = [{"id": f"q{n}", "question": f"what is {n}", "answers": ["a"]} for n in range(5)]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = save_tiny(tmp_path / "model")
    return ["--model", model, "--questions", questions, "--max-new-tokens", "4"]


def test_help_teaches_every_option(hallutrace: Command) -> None:
    code, out, _ = hallutrace("extract", "--help")
    assert code == 0
    for name in ExtractConfig.model_fields:
        assert "--" + name.replace("_", "-") in out
    assert "Without options: the small model in the package" in out


def test_help_loads_neither_torch_nor_transformers() -> None:
    import subprocess

    check = (
        "import sys; from hallutrace.commands.app import main\n"
        "sys.argv = ['hallutrace', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_importing_needs_numpy_alone() -> None:
    import subprocess

    check = (
        "import sys, hallutrace, numpy as np\n"
        "hallutrace.sparsify(np.eye(3, dtype=np.float32), top_k=1)\n"
        "assert not {'torch', 'transformers', 'pydantic', 'typer', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_extract_ends_with_a_summary(
    hallutrace: Command, options: list[str | Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, out, _ = hallutrace("extract", *options, "--out", run)
    assert code == 0
    assert f"5 traces in {run}" in out
    assert "0 failures, 0.0% contain a right answer" in out
    assert "traces a second" in out
    assert out.count(str(run)) == 5  # the first line, and four proposals
    code, out, _ = hallutrace("extract", *options, "--out", run)
    assert code == 0
    assert "0 of them new" in out
    assert "nothing left to do" in out


def test_inspect_shows_a_run_and_a_trace(
    hallutrace: Command, options: list[str | Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    hallutrace("extract", *options, "--out", run, "--shard-size", "2")
    code, out, _ = hallutrace("inspect", run)
    assert code == 0
    assert "5 traces in 3 of 3 shards" in out
    assert "between shards" in out
    assert "attention retained" in out
    code, out, _ = hallutrace("inspect", run, "--json", "--shard", "1")
    found = json.loads(out)
    assert [shard["name"] for shard in found["shards"]] == ["00001"]
    assert found["run"]["facts"]["captured_layers"]
    for which in ("q3", "q3/0", "3"):
        code, out, _ = hallutrace("inspect", run, "--trace", which)
        assert code == 0
        assert out.startswith("q3, sample 0: ")
        assert "what is 3" in out
        assert "Strongest edges" in out
    code, out, _ = hallutrace("inspect", run, "--trace", "q3", "--json")
    assert json.loads(out)["question"] == "what is 3"


def test_plan_tells_bytes_of_every_choice(hallutrace: Command) -> None:
    code, out, _ = hallutrace("plan", "--preset", "triviaqa-qwen3-4b", "--device", "cpu")
    assert code == 0
    for choice in ("none", "pooled", "answer (chosen)", "all"):
        assert choice in out
    code, out, _ = hallutrace("plan", "--preset", "triviaqa-qwen3-4b", "--json", "--limit", "1000")
    assert json.loads(out)["questions"] == 1000


def test_plan_measures_a_batch(hallutrace: Command, options: list[str | Path]) -> None:
    code, out, _ = hallutrace("plan", *options, "--measure", "--batch-size", "2")
    assert code == 0
    assert "Measured: 2 traces of 2 questions in" in out
    assert "5 questions take about" in out


def test_options_win_over_the_file(
    hallutrace: Command, options: list[str | Path], tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("top-k: 3\nheads: each\nlimit: 2\n")
    run = tmp_path / "run"
    hallutrace("extract", *options, "--config", file, "--top-k", "none", "--out", run)
    identity = json.loads((run / "manifest.json").read_text())["identity"]
    assert identity["sparsification"]["top_k"] is None
    assert identity["sparsification"]["heads"] == "each"


def test_runs_are_verified_merged_and_taken_apart(
    hallutrace: Command, options: list[str | Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    hallutrace("extract", *options, "--out", run, "--shard-size", "2")
    code, out, _ = hallutrace("verify", run)
    assert code == 0
    assert "3 shards with 5 traces are whole (every byte checked), 0 are damaged" in out
    for part, choice in [("a", ["--indices", "0:2,4"]), ("b", ["--ids", "q2,q3"])]:
        code, out, _ = hallutrace("subset", run, "--out", tmp_path / part, *choice)
        assert code == 0
    assert f"{tmp_path / 'b'}': 2 traces" in out
    # Parts of one run have different identities, on purpose.
    parts = [tmp_path / "a", tmp_path / "b"]
    code, _, error = hallutrace("merge", *parts, "--out", tmp_path / "all")
    assert code == 2
    assert "other subset.traces" in error
    code, out, _ = hallutrace(
        "merge", *parts, "--out", tmp_path / "all", "--force-differing", "subset"
    )
    assert f"{tmp_path / 'all'}': 5 traces" in out
    code, out, _ = hallutrace("subset", run, "--out", tmp_path / "c", "--where", "index > 2")
    assert "2 traces" in out
    with (run / "shards" / "00001.safetensors").open("rb+") as file:
        file.truncate(5000)
    code, out, _ = hallutrace("verify", run, "--json")
    assert code == 1
    assert [one["damage"] is None for one in json.loads(out)] == [True, False, True]


class TestMistakes:
    """Each ends with exit code 2 and one message; never with a traceback."""

    def refuse(self, run: Command, *arguments: str | Path) -> str:
        code, _, error = run(*arguments)
        assert code == 2
        assert "Traceback" not in error
        return error

    def test_an_unknown_model(self, hallutrace: Command, tmp_path: Path) -> None:
        error = self.refuse(
            hallutrace, "extract", "--model", tmp_path / "none", "--out", tmp_path / "run"
        )
        assert "Expected a causal language model that transformers loads" in error

    def test_an_encoder_decoder(self, hallutrace: Command, tmp_path: Path) -> None:
        tiny_t5(tmp_path / "t5")
        error = self.refuse(
            hallutrace, "extract", "--model", tmp_path / "t5", "--out", tmp_path / "run"
        )
        assert "Expected a decoder-only language model, got the encoder-decoder" in error

    def test_an_empty_question_file(self, hallutrace: Command, tmp_path: Path) -> None:
        (tmp_path / "empty.jsonl").touch()
        error = self.refuse(hallutrace, "extract", "--questions", tmp_path / "empty.jsonl")
        assert "empty.jsonl" in error

    def test_a_folder_that_is_no_run(self, hallutrace: Command, tmp_path: Path) -> None:
        error = self.refuse(hallutrace, "inspect", tmp_path)
        assert error == (
            f"Error: Expected a run in {tmp_path}, got no manifest.json in it - "
            "give the folder that `hallutrace extract` wrote\n"
        )

    def test_out_that_holds_another_run(
        self, hallutrace: Command, options: list[str | Path], tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        hallutrace("extract", *options, "--out", run)
        error = self.refuse(hallutrace, "extract", *options, "--out", run, "--top-k", "4")
        assert error.endswith(
            f"Error: Expected the settings of the run in {run}, got others "
            "(sparsification.top_k is 16, asked 4) - "
            "choose another --out, or start over with --overwrite\n"
        )

    def test_out_that_is_something_else(
        self, hallutrace: Command, options: list[str | Path], tmp_path: Path
    ) -> None:
        error = self.refuse(hallutrace, "extract", *options, "--out", tmp_path)
        assert "Expected an empty folder or a run, got" in error

    def test_out_that_cannot_be_made(
        self, hallutrace: Command, options: list[str | Path], tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        error = self.refuse(hallutrace, "extract", *options, "--out", tmp_path / "file" / "run")
        assert "Expected to make the folder" in error

    def test_a_shard_size_of_zero(self, hallutrace: Command) -> None:
        error = self.refuse(hallutrace, "extract", "--shard-size", "0")
        assert error == (
            "Error: Expected --shard-size to be greater than or equal to 1, got '0' - "
            "change --shard-size\n"
        )

    def test_a_missing_extra(
        self,
        hallutrace: Command,
        options: list[str | Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        import importlib.util

        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest),
        )
        error = self.refuse(
            hallutrace, "extract", *options, "--quantization", "int8", "--out", tmp_path / "run"
        )
        assert error.endswith(
            "Error: Expected the package `bitsandbytes` for --quantization int8, got no such "
            'package - pip install "hallutrace[quantization]"\n'
        )

    def test_a_disk_that_takes_no_more(
        self, hallutrace: Command, options: list[str | Path], tmp_path: Path
    ) -> None:
        resource = pytest.importorskip("resource")  # not on Windows
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        try:
            error = self.refuse(hallutrace, "extract", *options, "--out", tmp_path / "run")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "File too large" in error
        assert "what is committed is safe" in error
        assert hallutrace("extract", *options, "--out", tmp_path / "run")[0] == 0

    def test_values_of_a_wrong_kind(self, hallutrace: Command) -> None:
        for arguments, said in [
            (["--heads", "some"], "Expected --heads to be 'mean', 'max' or 'each', got 'some'"),
            (["--top-k", "0"], "Expected --top-k to be greater than or equal to 1, got '0'"),
            (["--prompt", "Q:"], "Expected --prompt to be a template with {question} in it"),
            (["--preset", "none-such"], "Expected a preset (triviaqa-qwen3-4b), got 'none-such'"),
            (
                ["--num-beams", "2", "--temperature", "1"],
                "Expected --num-beams 1 where --temperature",
            ),
            (["--questions", "demo:0"], "demo:0"),
        ]:
            assert said in self.refuse(hallutrace, "extract", *arguments)

    def test_a_trace_that_is_not_there(
        self, hallutrace: Command, options: list[str | Path], tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        hallutrace("extract", *options, "--out", run)
        error = self.refuse(hallutrace, "inspect", run, "--trace", "q99")
        assert "Expected the id or the number of one of 5 traces, got 'q99'" in error
