"""Choices that have names, as types: options of an extraction, and arguments of the same names."""

from __future__ import annotations

from typing import Literal

Switch = Literal["auto", "on", "off"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Quantization = Literal["none", "int8", "nf4"]
Attention = Literal[
    "auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"
]
Heads = Literal["mean", "max", "each"]
Rows = Literal["all", "answer"]
EdgeDtype = Literal["float16", "float32"]
HiddenStates = Literal["none", "pooled", "answer", "all"]
HiddenDtype = Literal["native", "float16", "bfloat16", "int8"]
ReportFormat = Literal["html", "md", "json", "csv"]
