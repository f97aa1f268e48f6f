"""Write THIRD-PARTY-NOTICES and the bill of materials of a Debian package (CycloneDX 1.6), from what the wheels bring.

Wheels that state what was compiled into them (PEP 770) have that listed below them; for others bundled.toml does.
"""
# ruff: noqa: INP001  a script

import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

Json = dict[str, object]

_LICENCE = re.compile(r"(licen[cs]e|copying|notice|authors|edl-|epl-)", re.IGNORECASE)
_WORDS = {
    "Apache 2.0": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD, Public Domain": "BSD-2-Clause AND LicenseRef-public-domain",
    "ISC License": "ISC",
    "MIT License": "MIT",
}
"""Licences that wheels name in words of their own, as SPDX has them."""
_BUNDLED = tomllib.loads(Path(__file__).with_name("bundled.toml").read_text(encoding="utf-8"))
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def main() -> None:
    """Read the wheels' own notes in ``site``; write into ``documents``."""
    site, requirements, package, version, architecture, documents = sys.argv[1:]
    pinned = _hashes(Path(requirements))
    found = {_normal(info.name.partition("-")[0]): info for info in sorted(Path(site).glob("*.dist-info"))}
    own = found.pop("edged", None)
    if found.keys() != pinned.keys():
        sys.exit(f"error: installed and pinned differ in {', '.join(sorted(found.keys() ^ pinned.keys()))}")
    notices = [_notice(name, info, Path(site)) for name, info in found.items()]
    words = [f"--- {licence}\n\n{text.strip()}" for licence, text in _BUNDLED["words"].items()]
    Path(documents, "THIRD-PARTY-NOTICES").write_text("\n\n".join((*notices, "=" * 79, *words, "")), encoding="utf-8")
    purl = f"pkg:deb/{package}@{version}?arch={architecture}"
    described = (
        {"bom-ref": purl, "name": package, "version": version} if own is None else _component(_metadata(own), [])
    )
    root = {**described, "type": "application", "purl": purl}
    made = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC).isoformat()
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, f'{package}/{version}/{architecture}')}",
        "version": 1,
        "metadata": {"timestamp": made, "component": root},
        "components": [_with_parts(info, pinned[name]) for name, info in found.items()],
    }
    Path(documents, f"{package}.cdx.json").write_text(
        json.dumps(bill, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


def _hashes(requirements: Path) -> dict[str, list[str]]:
    pinned = {}
    for requirement in requirements.read_text(encoding="utf-8").replace("\\\n", "").splitlines():
        if not requirement.startswith("#"):
            pinned[_normal(requirement.partition("==")[0])] = re.findall(r"sha256:([0-9a-f]{64})", requirement)
    return pinned


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _metadata(info: Path) -> Message:
    return HeaderParser().parsestr((info / "METADATA").read_text(encoding="utf-8"))


def _licence(metadata: Message) -> str | None:
    """Return the SPDX expression, whether the wheel states it as such or in words."""
    if expression := metadata["License-Expression"]:
        return str(expression)
    words = str(metadata["License"] or "").strip()
    if words and words != "UNKNOWN" and "\n" not in words and not words.startswith("Copyright"):
        return _WORDS.get(words, words)
    classifiers = (value.rpartition(" :: ")[2] for value in metadata.get_all("Classifier", []))
    return next((_CLASSIFIERS[name] for name in classifiers if name in _CLASSIFIERS), None)


def _component(metadata: Message, hashes: list[str]) -> Json:
    name, version = str(metadata["Name"]), str(metadata["Version"])
    purl = f"pkg:pypi/{_normal(name)}@{version}"
    licence = _licence(metadata)
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        **({"licenses": [{"expression": licence}]} if licence else {}),
        # the wheels that were pinned, one for each architecture
        **({"hashes": [{"alg": "SHA-256", "content": one} for one in hashes]} if hashes else {}),
    }


def _with_parts(info: Path, hashes: list[str]) -> Json:
    component = _component(_metadata(info), hashes)
    parts = [
        {key: part[key] for key in ("type", "name", "version", "purl", "licenses") if key in part}
        for bill in sorted(info.glob("sboms/*.json"))
        for part in json.loads(bill.read_text(encoding="utf-8")).get("components", [])
        if _normal(part["name"]) != _normal(str(component["name"]))
    ]
    parts += [
        {"type": "library", "name": name, "licenses": [{"expression": licence}], "copyright": holder}
        for name, licence, holder in _BUNDLED["wheels"].get(_normal(str(component["name"])), [])
    ]
    once = {json.dumps(part, sort_keys=True): part for part in parts}
    return {**component, **({"components": list(once.values())} if once else {})}


def _notice(name: str, info: Path, site: Path) -> str:
    metadata = _metadata(info)
    head = f"{metadata['Name']} {metadata['Version']}"
    texts = [f"{'=' * 79}\n{head}\nLicence: {_licence(metadata) or 'see below'}\n{'=' * 79}"]
    texts += [
        f"--- {path.relative_to(site)}\n\n{path.read_text(encoding='utf-8', errors='replace').strip()}"
        for path in _licence_files(info, site)
    ]
    if len(texts) == 1:
        texts.append(f"Licence: {_licence(metadata)}, at the end of this file. Copyright: {_author(metadata)}")
    for part, licence, holder in _BUNDLED["wheels"].get(name, []):
        texts.append(f"Contains {part}. Licence: {licence}, at the end of this file. Copyright: {holder}")
    return "\n\n".join(texts)


def _author(metadata: Message) -> str:
    return str(metadata["Author"] or metadata["Author-email"] or "its authors")


def _licence_files(info: Path, site: Path) -> Iterator[Path]:
    """Yield the licences in the wheel: its own, and those that stand beside what it contains."""
    yield from (path for path in sorted(info.rglob("*")) if path.is_file() and _LICENCE.match(path.name))
    package = site / _normal(info.name.partition("-")[0]).replace("-", "_")
    yield from (path for path in sorted(package.rglob("*")) if path.is_file() and _LICENCE.match(path.name))


if __name__ == "__main__":
    main()
