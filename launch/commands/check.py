"""`rostro check`: verify hashes, structure and every image of packed sets."""

from pathlib import Path

from launch.options.key_value import parse
from launch.options.option import Option, option_lines

OPTIONS = {"workers": Option(2, "processes", least=1)}
HELP = f"""
usage: rostro check DIR [workers=2]

Compares every byte of a packed set (or of all sets in a folder) with its manifest and index, and decodes
every image. Each problem is one line: shard, member, reason. Exit code 1 if there is any, else 0.

{option_lines(OPTIONS, {"DIR": "a packed set, or a folder of them"})}

example: rostro check shards/lfw
"""


def main(argv: list[str]) -> int:
    from data_shards.inspect.check import check_set, find_sets
    from data_shards.shard_format.manifest import read_manifest

    args = parse(argv, OPTIONS, positional=("DIR",), required=("DIR",))
    bad = 0
    for folder in find_sets(Path(args.DIR)):
        problems = 0
        for problem in check_set(folder, workers=args.workers):
            print(f"{folder}{'/' if problem.file else ': '}{problem}", flush=True)
            problems += 1
        if not problems:
            manifest, _ = read_manifest(folder)
            print(f"{folder}: good, {manifest['samples']} images in {len(manifest['shards'])} shards")
        bad += problems
    if bad:
        print(f"{bad} problem{'s' if bad > 1 else ''} found: copy or pack the set again")
    return 1 if bad else 0
