"""Writes the quickstart's training set: examples of the synthetic task, one a line (question, thinking, answer).

python scripts/make_quickstart_data.py --output runs/quickstart/examples.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from s1_jax.data.synthetic import generate_examples


def main() -> None:
    """The same seed and count give the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSONL file to write")
    parser.add_argument("--examples", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the examples (default: 0)")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    draft = options.output.with_suffix(".tmp")
    draft.write_text("".join(json.dumps(row) + "\n" for row in generate_examples(options.seed, options.examples)))
    os.replace(draft, options.output)


if __name__ == "__main__":
    main()
