"""docs/manifest.md and its JSON Schema come out of the code, and hold for every example."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.toml"))
SCHEMA: dict[str, Any] = json.loads((DOCS / "manifest.schema.json").read_text())


def test_the_documents_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr


def unknown(value: object, schema: dict[str, Any]) -> list[str]:
    """Return the keys that a schema does not allow: what an editor would underline."""
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    for one in schema.get("allOf", ()):
        schema = (
            {**one, **schema} if "$ref" not in one else {**SCHEMA["$defs"][one["$ref"].rsplit("/", 1)[1]], **schema}
        )
    if "anyOf" in schema:
        return min((unknown(value, one) for one in schema["anyOf"]), key=len)
    if isinstance(value, list):
        return [key for one in value for key in unknown(one, schema.get("items") or {})]
    if not isinstance(value, dict):
        return ["" for _ in range(schema.get("type") == "object")]
    found = []
    for key, item in value.items():
        if key in schema.get("properties", {}):
            found += unknown(item, schema["properties"][key])
        elif isinstance(schema.get("additionalProperties"), dict):
            found += unknown(item, schema["additionalProperties"])
        else:
            found.append(key)
    return found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_schema_allows_every_example_and_no_misspelt_key(path: Path) -> None:
    manifest = tomllib.loads(path.read_text())
    assert unknown(manifest, SCHEMA) == []

    manifest["input"]["chanels"] = []

    assert unknown(manifest, SCHEMA) == ["chanels"]


def test_there_is_an_example_for_each_kind_of_model() -> None:
    kinds = {tomllib.loads(path.read_text())["output"]["kind"] for path in EXAMPLES}

    assert kinds == {"classifier", "regressor", "anomaly"}
    assert any("image" in tomllib.loads(path.read_text())["input"] for path in EXAMPLES)
