"""Write what the code knows of docs/manifest.md, and docs/manifest.schema.json: ``python docs/generate.py``."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec

from edged.formats import spec
from edged.model.author import Author, ModelFile, SelfTestFile
from edged.model.signal.features import REGISTRY

_DOCS = Path(__file__).parent
_TABLES: list[tuple[str, type]] = [
    ("(the outermost keys)", Author),
    ("[model]", ModelFile),
    ("[input]", spec.Input),
    ("input.gap", spec.Gap),
    ("input.join", spec.Join),
    ("input.image", spec.Image),
    ("[window]", spec.Window),
    ("[features]", spec.Features),
    ("features.use", spec.Feature),
    ("[normalise]", spec.Normalise),
    ("[tensors.NAME]", spec.Tensor),
    ("[output]", spec.Output),
    ("[decide]", spec.Decide),
    ("decide.smooth", spec.Smooth),
    ("decide.needed", spec.Needed),
    ("[publish]", spec.Publish),
    ("[home_assistant]", spec.HomeAssistant),
    ("[self_test]", SelfTestFile),
]
_FIELD = re.compile(r"^:ivar (?P<name>\w+): (?P<text>(?:.|\n(?!:ivar))*)", re.MULTILINE)
_BLOCK = re.compile(r"(<!-- (?P<name>\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def _meanings(table: type) -> dict[str, str]:
    """Return what docstrings say of each key, those of a base class included."""
    meanings: dict[str, str] = {}
    for one in reversed(table.__mro__):
        for field in _FIELD.finditer(inspect.cleandoc(one.__doc__ or "")):
            meanings[field["name"]] = " ".join(field["text"].split())
    return meanings


def _summary(table: type) -> str:
    text = inspect.cleandoc(table.__doc__ or "").partition("\n:ivar")[0]
    return " ".join(text.replace("``", "`").split())


def _type(info: msgspec.inspect.Type) -> str:  # noqa: PLR0911  one for each kind of type
    match info:
        case msgspec.inspect.LiteralType(values=values):
            return " or ".join(f'`"{value}"`' for value in values)
        case msgspec.inspect.UnionType(types=types):
            return " or ".join(_type(one) for one in types if not isinstance(one, msgspec.inspect.NoneType))
        case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.ListType(item_type=item):
            return f"list of {_type(item)}"
        case msgspec.inspect.TupleType(item_types=items):
            return f"[{', '.join(map(_type, items))}]"
        case msgspec.inspect.DictType(value_type=value):
            return f"table of {_type(value)}"
        case msgspec.inspect.StructType():
            return "table"
    names = {"Int": "whole number", "Float": "number", "Str": "text", "Bool": "true or false", "Date": "date"}
    return names[type(info).__name__.removesuffix("Type")]


def _default(field: msgspec.inspect.Field) -> str:
    if field.required:
        return "**wanted**"
    default = field.default
    if default is msgspec.NODEFAULT or default is None or isinstance(default, msgspec.Struct) or default == ():
        return ""
    return f"`{json.dumps(default)}`"


def tables() -> Iterator[str]:
    """Yield a section for each table of the manifest."""
    for title, table in _TABLES:
        info = cast("msgspec.inspect.StructType", msgspec.inspect.type_info(table))
        meanings = _meanings(table)
        yield f"### {title}\n\n{_summary(table)}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
        prefix = "" if title.startswith("(") else title.strip("[]") + "."
        for field in info.fields:
            meaning = meanings.get(field.name, "").replace("``", "`").replace("|", "\\|")
            yield f"| `{prefix}{field.encode_name}` | {_type(field.type)} | {_default(field)} | {meaning} |\n"
        yield "\n"


def features() -> Iterator[str]:
    """Yield a table of the features with their definitions."""
    yield "| feature | definition |\n|---|---|\n"
    for name, function in REGISTRY.items():
        definition = " ".join(inspect.cleandoc(function.__doc__ or "").split()).replace("``", "`").replace("|", "\\|")
        yield f"| `{name}` | {definition} |\n"


def examples() -> Iterator[str]:
    """Yield the worked examples, each under its first comment."""
    for path in sorted((_DOCS / "examples").glob("*.toml")):
        yield f"### {path.stem.replace('-', ' ').capitalize()}\n\n```toml\n{path.read_text()}```\n\n"


def schema() -> str:
    """Return the JSON Schema of the author's file, each key with its meaning."""
    made = msgspec.json.schema(Author)
    by_name = {table.__name__: table for _, table in _TABLES}
    for name, definition in made["$defs"].items():
        if name in by_name:
            _describe(definition, by_name[name])
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edged manifest", **made}
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _describe(definition: dict[str, Any], table: type) -> None:
    definition["description"] = _summary(table)
    for key, meaning in _meanings(table).items():
        if key in definition["properties"]:
            field = definition["properties"][key]
            wrapped = {"allOf": [field]} if "$ref" in field else field
            definition["properties"][key] = {**wrapped, "description": meaning}


def generated() -> dict[Path, str]:
    """Return the files as they should be."""
    page = _DOCS / "manifest.md"
    blocks = {"tables": "".join(tables()), "features": "".join(features()), "examples": "".join(examples())}
    text = _BLOCK.sub(lambda block: f"{block[1]}\n{blocks[block['name']]}{block[3]}", page.read_text())
    return {page: text, _DOCS / "manifest.schema.json": schema()}


def main() -> None:
    """Write them, or with ``--check`` say whether they are as they should be."""
    outdated = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        sys.exit(f"outdated: {', '.join(path.name for path in outdated)}: run docs/generate.py" if outdated else 0)
    for path, text in generated().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
