"""The records of a run, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hallutrace.errors import DamagedError
from hallutrace.store.folder import CommitRecord, Manifest

RECORD = CommitRecord(
    name="00002",
    first=1000,
    questions=2,
    digest="d1",
    keys=[["é", 0], ["b", 1]],
    indices=[1001, 1003],
    size=4096,
    checksum="00ff",
    fingerprint="f1",
    counts={"traces": 2},
    environment={"torch": "2.15.0"},
    halvings=[[0, 8]],
)

# Runs of schema 1 are out there: other bytes need another schema.
GOLDEN = (
    '{"checksum":"00ff","counts":{"traces":2},"digest":"d1","environment":{"torch":"2.15.0"},'
    '"fingerprint":"f1","first":1000,"halvings":[[0,8]],"indices":[1001,1003],'
    '"keys":[["é",0],["b",1]],"name":"00002","questions":2,"schema":1,"size":4096}\n'
)


def test_the_bytes_of_a_commit_record_are_golden(tmp_path: Path) -> None:
    assert RECORD.to_json() == GOLDEN.encode()
    path = tmp_path / "00002.json"
    path.write_bytes(RECORD.to_json())
    assert CommitRecord.read(path) == RECORD


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"schema":1', '"schema":2'),
        ('"name":"00002"', '"name":"00003"'),
        ('"indices":[1001,1003]', '"indices":[1001]'),
        ('"size":4096', '"length":4096'),
        ('"keys"', "keys"),
        ('"questions":2', '"questions":"2"'),
        ('"digest":"d1"', '"digest":null'),
        ('["b",1]', '["b"]'),
        ('["b",1]', '["b",null]'),
        ('{"traces":2}', "{}"),
        ('"halvings":[[0,8]]', '"halvings":8'),
    ],
)
def test_a_record_that_cannot_be_trusted_is_refused(
    tmp_path: Path, before: str, after: str
) -> None:
    path = tmp_path / "00002.json"
    path.write_text(GOLDEN.replace(before, after), encoding="utf-8")
    with pytest.raises(DamagedError, match="restore it from a copy"):
        CommitRecord.read(path)


def test_a_record_may_not_know_of_halvings(tmp_path: Path) -> None:
    record = replace(RECORD, halvings=None, environment={})
    path = tmp_path / "00002.json"
    path.write_bytes(record.to_json())
    assert b'"halvings":null' in path.read_bytes()
    assert CommitRecord.read(path) == record


def test_a_manifest_tells_of_its_identity() -> None:
    one, other = Manifest({"a": 1, "b": {"c": 2}}, {}), Manifest({"b": {"c": 2}, "a": 1}, {"x": 1})
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != Manifest({"a": 1, "b": {"c": 3}}, {}).fingerprint
