"""Prints the libraries that are linked into rtpt for a target, with their licences' texts: licences.py TRIPLE"""

import json
import pathlib
import subprocess
import sys


def linked(triple):
    """The packages that rtpt is linked from, by what cargo resolves: no build scripts, macros or tests."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", triple]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, waiting = set(), [metadata["resolve"]["root"]]
    while waiting:
        package = waiting.pop()
        if package not in found:
            found.add(package)
            normal = [dep["pkg"] for dep in nodes[package]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
            macros = {name for name in normal if any("proc-macro" in target["kind"] for target in packages[name]["targets"])}
            waiting += [name for name in normal if name not in macros]
    found.remove(metadata["resolve"]["root"])
    return sorted((packages[package] for package in found), key=lambda package: (package["name"], package["version"]))


def texts(package):
    """The licence files that lie in a package's folder."""
    folder = pathlib.Path(package["manifest_path"]).parent
    wanted = ("licen", "copying", "notice", "unlicense", "copyright")
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and path.name.lower().startswith(wanted))
    return [path.read_text(errors="replace").strip() for path in files]


def main():
    packages = linked(sys.argv[1])
    users = {}
    print("Libraries that are linked into rtpt, with their licences. Their texts follow.\n")
    for package in packages:
        name = f"{package['name']} {package['version']}"
        print(f"{name}: {package['license'] or 'see its text'}; {', '.join(package['authors']) or package['repository'] or ''}")
        for text in texts(package):
            users.setdefault(text, []).append(name)
    for text, names in users.items():
        print(f"\n{'=' * 100}\n{', '.join(names)}\n\n{text}")


main()
