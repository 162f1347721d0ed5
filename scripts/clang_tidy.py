"""Runs clang-tidy over the product's sources in a compile database that include no LibTorch, in parallel.

    python3 scripts/clang_tidy.py BUILD_FOLDER [SOURCE…]

A source that was fine is not looked at again until it, a header of ours below it, or .clang-tidy
changes: a cache of the user's, for all of their checkouts, holds a file per hash of all of these.
"""

import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "detente", "clang-tidy")
INCLUDE = re.compile(rb'^\s*#\s*include\s+[<"]([^">]+)[">]', re.MULTILINE)
# Compiled by GCC: its warning flags are not clang's, and the compiler's own warnings are its job.
EXTRA = ["--extra-arg=-w", "--extra-arg=-Wno-unknown-warning-option"]
# Each file is read by itself, as if there were no precompiled header: it includes what it uses.
PRECOMPILED = re.compile(r" -Winvalid-pch| -fpch-preprocess| -include \S*/cmake_pch\.hxx")


def sources_in(compiled):
    """What CMake compiles as one unit."""
    if not os.path.basename(compiled).startswith("unity_"):
        return [compiled]
    with open(compiled) as stream:
        return re.findall(r'^#include "([^"]+)"', stream.read(), re.MULTILINE)


def own_commands(build):
    """For each of our sources its entry in a compile database."""
    with open(os.path.join(build, "compile_commands.json")) as stream:
        for entry in json.load(stream):
            compiled = os.path.join(entry["directory"], entry["file"])
            command = PRECOMPILED.sub("", entry["command"])
            for path in sources_in(compiled):
                ours = path.startswith(ROOT + os.sep) and not path.startswith(os.path.join(ROOT, "build"))
                # Tests and benchmarks keep the format and the sizes; tidying them too doubles the time.
                product = os.path.relpath(path, ROOT).split(os.sep)[0] not in ("tests", "bench")
                if ours and product and "torch/csrc/api/include" not in command:
                    yield {"directory": entry["directory"], "file": path,
                           "command": command.replace(entry["file"], path)}


def contents(path, known={}):
    if path not in known:
        with open(path, "rb") as stream:
            known[path] = stream.read()
    return known[path]


def below(source, build):
    """The source and every file of ours that it includes, directly or not."""
    seen, waiting = set(), [source]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in INCLUDE.findall(contents(path)):
            for folder in (ROOT, os.path.dirname(path), os.path.join(build, "generated")):
                candidate = os.path.normpath(os.path.join(folder, name.decode()))
                if os.path.isfile(candidate):
                    waiting.append(candidate)
                    break
    return sorted(seen)


def key_of(source, build, constant):
    digest = hashlib.sha256(constant)
    for path in below(source, build):
        # Neither where this checkout lies nor what its build folder is called.
        root = build if path.startswith(build + os.sep) else ROOT
        digest.update(os.path.relpath(path, root).encode())
        digest.update(contents(path))
    return digest.hexdigest()


def tidy(source, database):
    result = subprocess.run(
        ["clang-tidy", "--quiet", "-p", database, *EXTRA, source],
        stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return result.returncode, result.stdout, result.stderr


def main():
    build = os.path.abspath(sys.argv[1])
    commands = list(own_commands(build))
    database = os.path.join(build, "clang-tidy")
    os.makedirs(database, exist_ok=True)
    with open(os.path.join(database, "compile_commands.json"), "w") as stream:
        json.dump(commands, stream)
    sources = sorted({command["file"] for command in commands})
    if len(sys.argv) > 2:
        asked = {os.path.abspath(name) for name in sys.argv[2:]}
        sources = [source for source in sources if source in asked]
    version = subprocess.run(["clang-tidy", "--version"], capture_output=True).stdout
    constant = version + contents(os.path.join(ROOT, ".clang-tidy"))
    os.makedirs(CACHE, exist_ok=True)
    keys = {source: key_of(source, build, constant) for source in sources}
    stale = [s for s in sources if not os.path.exists(os.path.join(CACHE, keys[s]))]
    print(f"{len(sources)} files, {len(stale)} of them new or changed", flush=True)
    failed, done, said = 0, 0, time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {pool.submit(tidy, source, database): source for source in stale}
        for job in concurrent.futures.as_completed(jobs):
            source = jobs[job]
            code, output, errors = job.result()
            done += 1
            if code == 0:
                open(os.path.join(CACHE, keys[source]), "w").close()
            else:
                failed += 1
                print(output if output.strip() else errors, flush=True)
            if time.monotonic() - said > 20:
                said = time.monotonic()
                print(f"  {done} of {len(stale)}", flush=True)
    print(f"{len(sources) - failed} files fine, {failed} not")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
