"""Write requirements with hashes from what pip would install on each architecture (`pip install --report`)."""
# ruff: noqa: INP001, T201  a script, which prints

import json
import sys
from collections import defaultdict
from pathlib import Path

hashes: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
for report in sys.argv[1:]:
    for item in json.loads(Path(report).read_text(encoding="utf-8"))["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if name != "edged":
            found = item["download_info"]["archive_info"]["hashes"]["sha256"]
            hashes[name.lower().replace("_", "-"), version].append(found)

names = [name for name, _ in hashes]
if differing := {name for name in names if names.count(name) > 1}:
    sys.exit(f"error: the architectures would get different versions of {', '.join(sorted(differing))}")
print("# Made by deploy/debian/lock. Hashes: the wheels for amd64 and arm64; one where they share it.")
for (name, version), found in sorted(hashes.items()):
    print(" \\\n    ".join((f"{name}=={version}", *(f"--hash=sha256:{one}" for one in dict.fromkeys(found)))))
