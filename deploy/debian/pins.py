"""Write requirements with hashes from what pip would install on each architecture (`pip install --report`)."""
# ruff: noqa: INP001, T201  a script, which prints

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--given", type=Path, help="requirements that another package meets")
parser.add_argument("--without", default="", help="names, with commas between, of what is never called")
parser.add_argument("reports", nargs="+", type=Path)
arguments = parser.parse_args()

given = set() if arguments.given is None else set(arguments.given.read_text(encoding="utf-8").split())
without = {"edged", *arguments.without.split(",")}
hashes: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
for report in arguments.reports:
    for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
        name, version = item["metadata"]["name"].lower().replace("_", "-"), item["metadata"]["version"]
        if name not in without and f"{name}=={version}" not in given:
            found = item["download_info"]["archive_info"]["hashes"]["sha256"]
            hashes[name, version].append(found)

names = [name for name, _ in hashes]
if differing := {name for name in names if names.count(name) > 1}:
    sys.exit(f"error: the architectures would get different versions of {', '.join(sorted(differing))}")
print("# Made by deploy/debian/lock. Hashes: the wheels for amd64 and arm64; one where they share it.")
for (name, version), found in sorted(hashes.items()):
    print(" \\\n    ".join((f"{name}=={version}", *(f"--hash=sha256:{one}" for one in dict.fromkeys(found)))))
