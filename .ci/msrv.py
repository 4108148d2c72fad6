#!/usr/bin/env python3
"""Checks that no dependency of the shipped program asks for a newer Rust than
Cargo.toml promises. That the program itself keeps the promise is clippy's
`incompatible_msrv` lint, which reads the same line."""

import json
import subprocess
import sys


def version(text):
    parts = [int(part) for part in text.split(".")]
    return tuple(parts + [0] * (3 - len(parts)))


def main():
    answer = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1",
         "--filter-platform", "x86_64-unknown-linux-gnu"],
        check=True, capture_output=True, text=True)
    metadata = json.loads(answer.stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    promised = packages[root]["rust_version"]
    seen, todo, wrong = set(), [root], []
    while todo:
        node = nodes[todo.pop()]
        for dependency in node["deps"]:
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
            if dependency["pkg"] in seen or not kinds & {None, "build"}:
                continue
            seen.add(dependency["pkg"])
            todo.append(dependency["pkg"])
            package = packages[dependency["pkg"]]
            needed = package["rust_version"]
            if needed and version(needed) > version(promised):
                wrong.append(f"{package['name']} {package['version']} needs {needed}")
    for line in wrong:
        print(f"rust-version = {promised}, but {line}", file=sys.stderr)
    print(f"rust-version = {promised} holds for {len(seen) - len(wrong)} of {len(seen)} dependencies")
    return 1 if wrong else 0


sys.exit(main())
