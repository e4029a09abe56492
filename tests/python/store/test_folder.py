"""The records of a run, byte for byte."""

from __future__ import annotations

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

# Other bytes need another schema.
GOLDEN = (
    '{"checksum":"00ff","counts":{"traces":2},"digest":"d1","environment":{"torch":"2.15.0"},'
    '"fingerprint":"f1","first":1000,"halvings":[[0,8]],"indices":[1001,1003],'
    '"keys":[["é",0],["b",1]],"name":"00002","questions":2,"schema":2,"size":4096}\n'
)


def test_the_bytes_of_a_commit_record_are_golden(tmp_path: Path) -> None:
    assert RECORD.to_json() == GOLDEN.encode()
    path = tmp_path / "00002.json"
    path.write_bytes(RECORD.to_json())
    assert CommitRecord.read(path) == RECORD


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"schema":2,', ""),
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


def test_a_record_of_another_schema_is_named(tmp_path: Path) -> None:
    path = tmp_path / "00002.json"
    path.write_text(GOLDEN.replace('"schema":2', '"schema":1'), encoding="utf-8")
    with pytest.raises(DamagedError) as raised:
        CommitRecord.read(path)
    assert str(raised.value) == (
        f"Expected a commit record of schema 2, got schema 1 in {path} - another version of "
        "hallutrace wrote it: extract it anew"
    )


def test_a_fingerprint_stands_for_identity_and_facts() -> None:
    one, other = Manifest({"a": 1, "b": {"c": 2}}, {}), Manifest({"b": {"c": 2}, "a": 1}, {})
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != Manifest({"a": 1, "b": {"c": 3}}, {}).fingerprint
    assert one.fingerprint != Manifest({"a": 1, "b": {"c": 2}}, {"x": 1}).fingerprint


def test_a_manifest_has_the_same_fingerprint_once_it_was_written(tmp_path: Path) -> None:
    manifest = Manifest({"a": (1, 2)}, {"windows": {10: None, 9: 4}, "share": 0.1})
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest.to_json())
    assert Manifest.read(path).fingerprint == manifest.fingerprint


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('"heads": 2', '"heads": 3', "Expected identity and facts with the fingerprint"),
        ('"a": 1', '"a": 2', "something changed it: restore it from a copy"),
        ('"schema": 2', '"schema": 1', "Expected a manifest of schema 2, got schema 1 in"),
        ('"facts"', '"fact"', "Expected a manifest, got something else in"),
    ],
)
def test_a_manifest_that_was_changed_is_damage(
    tmp_path: Path, before: str, after: str, told: str
) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(
        Manifest({"a": 1}, {"heads": 2}).to_json().replace(before.encode(), after.encode())
    )
    with pytest.raises(DamagedError, match=told):
        Manifest.read(path)
