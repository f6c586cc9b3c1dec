"""Check that every defective scan of the sample archive outranks its clean twin.

    python demo/check_ranking.py --scores OUT/scores.parquet --pairs build/archive_truth/pairs.csv

Exits with 1 where one does not.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import pyarrow.parquet


def read_scores(path: Path) -> dict[str, float]:
    """Return the score of each scan by its URI."""
    table = pyarrow.parquet.read_table(path, columns=["uri", "score"]).to_pydict()
    return dict(zip(table["uri"], table["score"], strict=True))


def find_score(scores: dict[str, float], path: str) -> float:
    """Return the score of the one scan whose URI ends with `path`."""
    found = [uri for uri in scores if uri.rstrip("/").endswith(f"/{path}")]
    if len(found) != 1:
        raise LookupError(f"{len(found)} scans have a URI that ends with /{path}, need one")
    return scores[found[0]]


def compare(scores: dict[str, float], pairs: list[tuple[str, str]]) -> list[str]:
    """Print the scores of each (clean, defective) pair; returns the defective that do not win."""
    lost = []
    print(f"{'defective scan':<34}{'clean':>9}{'defective':>11}")
    for clean, defective in pairs:
        low, high = find_score(scores, clean), find_score(scores, defective)
        wins = high > low
        print(f"{defective:<34}{low:>9.4f}{high:>11.4f}{'' if wins else '   NOT ABOVE ITS TWIN'}")
        lost += [] if wins else [defective]
    return lost


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Return (clean, defective) paths, relative to the archive."""
    with path.open(newline="") as file:
        return [(row["clean"], row["defective"]) for row in csv.DictReader(file)]


def main() -> None:
    """Parse the command line, compare, exit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scores", type=Path, required=True, help="scores.parquet of a run")
    parser.add_argument("--pairs", type=Path, required=True, help="pairs.csv of make_archive.py")
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.pairs)
    lost = compare(read_scores(arguments.scores), pairs)
    print(f"{len(pairs) - len(lost)} of {len(pairs)} defective scans outrank their clean twin")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
