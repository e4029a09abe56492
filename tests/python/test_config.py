"""Configuration: what wins over what, and what the mistakes are told."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hallutrace.config import ExtractConfig, select_layers
from hallutrace.config_file import read_yaml
from hallutrace.errors import InputError
from hallutrace.presets import PRESETS

PRESET = "triviaqa-qwen3-4b"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def refusal(options: dict[str, Any] | None = None, **others: Any) -> str:
    with pytest.raises(InputError) as raised:
        ExtractConfig.from_options(options, **others)
    return str(raised.value)


def test_nothing_asked_is_the_small_model_on_its_questions() -> None:
    config = ExtractConfig.from_options()
    assert config == ExtractConfig()
    assert (config.model, config.questions, config.limit) == ("demo", "demo", None)
    assert (config.heads, config.top_k, config.edge_rows) == ("mean", 16, "all")
    assert (config.hidden_states, config.num_beams, config.temperature) == ("answer", 1, 0.0)
    assert (config.shard_size, config.batch_size, config.dtype) == (500, "auto", "auto")


def test_the_preset_is_the_extraction_it_is_named_for() -> None:
    config = ExtractConfig.from_options(preset=PRESET)
    assert config.model == "Qwen/Qwen3-4B-Instruct-2507"
    assert config.questions == "hf:mandarjoshi/trivia_qa/rc.nocontext/train"
    assert (config.quantization, config.num_beams, config.max_new_tokens) == ("int8", 5, 64)
    assert (config.seed, config.shard_size) == (41, 500)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(preset: str) -> None:
    assert ExtractConfig.from_options(preset=preset) != ExtractConfig()


def test_options_win_over_the_file_and_that_over_the_preset(tmp_path: Path) -> None:
    path = written(tmp_path, "num-beams: 3\nseed: 7\nshard_size: 10\n")
    config = ExtractConfig.from_options({"seed": 8}, preset=PRESET, config=path)
    assert (config.max_new_tokens, config.num_beams, config.shard_size, config.seed) == (
        64,
        3,
        10,
        8,
    )


def test_a_file_may_name_its_preset(tmp_path: Path) -> None:
    path = written(tmp_path, f"preset: {PRESET}\nnum_beams: 2\n")
    config = ExtractConfig.from_options(config=str(path))
    assert (config.num_beams, config.quantization) == (2, "int8")


def test_an_option_takes_away_what_the_file_sets(tmp_path: Path) -> None:
    path = written(tmp_path, "top_k: 4\nlimit: 5\n")
    config = ExtractConfig.from_options({"top_k": None, "limit": None}, config=path)
    assert (config.top_k, config.limit) == (None, None)


def test_values_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "hidden_layers: [0, 9]\n"
        "chat_template_kwargs: {enable_thinking: false}\n"
        'stop: ["\\n", "Q:"]\n',
    )
    config = ExtractConfig.from_options({"out": "runs/mine"}, config=path)
    assert config.hidden_layers == "0,9"
    assert config.chat_template_kwargs == {"enable_thinking": False}
    assert config.stop == ("\n", "Q:")
    assert config.out == Path("runs/mine")
    text = ExtractConfig.from_options({"chat_template_kwargs": "{enable_thinking: false}"})
    assert text.chat_template_kwargs == {"enable_thinking": False}


def test_dates_become_text_for_a_chat_template() -> None:
    asked = "{date_string: 2024-07-26, at: 2024-07-26 10:00:00, days: [2024-07-27], n: 1.5}"
    config = ExtractConfig.from_options(
        {"chat_template_kwargs": asked, "template_date": date(2024, 7, 26)}
    )
    assert config.chat_template_kwargs == {
        "date_string": "2024-07-26",
        "at": "2024-07-26T10:00:00",
        "days": ["2024-07-27"],
        "n": 1.5,
    }
    assert config.template_date == "2024-07-26"
    assert ExtractConfig(chat_template_kwargs={"x": date(1999, 5, 1)}).chat_template_kwargs == {
        "x": "1999-05-01"
    }


def test_arguments_that_are_no_yaml_are_told() -> None:
    message = refusal({"chat_template_kwargs": "{enable_thinking: "})
    assert message.startswith(
        "Expected `chat_template_kwargs` to be YAML such as '{enable_thinking: false}' (while "
    )
    assert message.endswith(", got '{enable_thinking: ' - change `chat_template_kwargs`")


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    assert read_yaml(written(tmp_path, "# later\n")) == {}


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValidationError):
        ExtractConfig().limit = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("chat: off", "chat", "off"),
        ("chat: on", "chat", "on"),
        ("response-eos: off", "response_eos", "off"),
        ("model: no", "model", "no"),
        ("id-column: yes", "id_column", "yes"),
        ("stop: [off, 'no']", "stop", ("off", "no")),
        ("overwrite: on", "overwrite", True),
        ("retry_failed: no", "retry_failed", False),
        ("overwrite: true", "overwrite", True),
        ("chat_template_kwargs: {enable_thinking: off}", "chat_template_kwargs", None),
        ("chat_template_kwargs: '{enable_thinking: off}'", "chat_template_kwargs", None),
    ],
)
def test_off_and_no_are_text_where_text_is_meant(
    tmp_path: Path, text: str, field: str, value: Any
) -> None:
    config = ExtractConfig.from_options(config=written(tmp_path, text))
    wanted = {"enable_thinking": False} if field == "chat_template_kwargs" else value
    assert getattr(config, field) == wanted


def test_a_no_that_is_none_of_the_choices_is_told(tmp_path: Path) -> None:
    assert refusal(config=written(tmp_path, "quantization: no")) == (
        "Expected `quantization` to be 'none', 'int8' or 'nf4', got 'no' - change `quantization`"
    )


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"shard_size": 0},
            "Expected `shard_size` to be greater than or equal to 1, got 0 - change `shard_size`",
        ),
        (
            {"max_new_tokens": "many"},
            "Expected `max_new_tokens` to be a valid integer, unable to parse string as an "
            "integer, got 'many' - change `max_new_tokens`",
        ),
        (
            {"quantization": "int4"},
            "Expected `quantization` to be 'none', 'int8' or 'nf4', got 'int4' - "
            "change `quantization`",
        ),
        (
            {"top_mass": 1.5},
            "Expected `top_mass` to be less than or equal to 1, got 1.5 - change `top_mass`",
        ),
        (
            {"top_mass": 0},
            "Expected `top_mass` to be greater than 0, got 0 - change `top_mass`",
        ),
        (
            {"min_weight": float("nan")},
            "Expected `min_weight` to be a finite number, got nan - change `min_weight`",
        ),
        (
            {"prompt": "What is it?"},
            "Expected `prompt` to be a template with {question} in it, got 'What is it?' - "
            "change `prompt`",
        ),
        (
            {"hidden_layers": "some"},
            "Expected `hidden_layers` to be all, every:N or layer numbers such as 0,9,18, "
            "got 'some' - change `hidden_layers`",
        ),
        (
            {"batch_size": 0},
            "Expected `batch_size` to be greater than or equal to 1, got 0 - change `batch_size`",
        ),
        (
            {"num_beams": 3, "temperature": 0.5},
            "Expected `num_beams` 1 where `temperature` is above 0 (beams do not sample) - "
            "change one of the two",
        ),
        (
            {"samples": 3},
            "Expected `temperature` above 0 where `samples` is above `num_beams` "
            "(without it every sample is the same) - change one of the two",
        ),
        (
            {"stop": ["\n", ""]},
            "Expected `stop` to be text that ends an answer (an empty one would end it at once), "
            "got ['\\n', ''] - change `stop`",
        ),
        (
            {"top_p": 0.9},
            "Expected `temperature` above 0 where `top_p` is given (nothing is sampled without "
            "it) - change one of the two",
        ),
        (
            {"min_p": 0.1, "num_beams": 2},
            "Expected `temperature` above 0 where `min_p` is given (nothing is sampled without "
            "it) - change one of the two",
        ),
        (
            {"top_k_sampling": 0, "temperature": 1.0},
            "Expected `top_k_sampling` to be greater than or equal to 1, got 0 - "
            "change `top_k_sampling`",
        ),
        (
            {"temperature": float("inf")},
            "Expected `temperature` to be a finite number, got inf - change `temperature`",
        ),
        (
            {"template_date": "26 July 2024"},
            "Expected `template_date` to be a date such as 2024-07-26, got '26 July 2024' - "
            "change `template_date`",
        ),
        (
            {"chat_template_kwargs": "{tokenize: true, x: 1}"},
            "Expected `chat_template_kwargs` to be arguments that the template itself defines, "
            "without tokenize, got '{tokenize: true, x: 1}' - change `chat_template_kwargs`",
        ),
        (
            {"chat_template_kwargs": {"x": {1, 2}}},
            "Expected `chat_template_kwargs` to be text, numbers, true, false, lists and mappings, "
            "not {1, 2}, got {'x': {1, 2}} - change `chat_template_kwargs`",
        ),
        (
            {"chat_template_kwargs": "{x: .nan}"},
            "Expected `chat_template_kwargs` to be text, numbers, true, false, lists and mappings, "
            "not nan, got '{x: .nan}' - change `chat_template_kwargs`",
        ),
        (
            {"chat_template_kwargs": "{1: x}"},
            "Expected `chat_template_kwargs` to be names that are text, not 1, got '{1: x}' - "
            "change `chat_template_kwargs`",
        ),
        (
            {"beams": 3},
            "Expected a field of ExtractConfig, got `beams` - see `hallutrace extract --help`",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_told(options: dict[str, Any], message: str) -> None:
    assert refusal(options) == message


def test_a_mistake_in_the_file_is_told_the_same_way(tmp_path: Path) -> None:
    assert refusal(config=written(tmp_path, "shard-size: 0\n")) == refusal({"shard_size": 0})


def test_several_beams_may_be_samples() -> None:
    assert ExtractConfig(num_beams=5, samples=5).samples == 5


def test_an_unknown_preset_is_told() -> None:
    expected = f"Expected a preset ({PRESET}), got 'qwen' - choose one of them"
    assert refusal(preset="qwen") == expected


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert refusal(config=path) == (
        f"Expected a configuration file, got No such file or directory at {path} - check `config`"
    )


def test_a_file_that_is_no_mapping_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "- model\n")
    assert refusal(config=path) == (
        f"Expected fields by name in {path}, got list - write lines such as `model: NAME`"
    )


def test_a_file_that_is_no_yaml_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "model: [\n")
    message = refusal(config=path)
    assert message.startswith(f"Expected YAML in {path}, got while parsing a flow node")
    assert message.endswith(" - fix the file")


# Layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "layers"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ("every:2", [0, 2, 4]),
        ("every:6", [0]),
        ("every:9", [0]),
        ("5", [5]),
        ("3, 0,3", [0, 3]),
    ],
)
def test_layers_are_chosen(choice: str, layers: list[int]) -> None:
    assert select_layers(choice, 6) == layers


@pytest.mark.parametrize(
    "choice", ["", "every:0", "every:", "every:-1", "-1", "1.5", "0-3", "²", "ALL"]
)
def test_other_choices_are_refused(choice: str) -> None:
    with pytest.raises(ValueError, match=r"^all, every:N or layer numbers such as 0,9,18$"):
        select_layers(choice, 6)


def test_layers_beyond_the_last_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^layers below 6$"):
        select_layers("0,6", 6)


@given(st.sets(st.integers(0, 40), min_size=1))
def test_numbers_of_layers_are_read_back(numbers: set[int]) -> None:
    assert select_layers(",".join(map(str, numbers)), 41) == sorted(numbers)
