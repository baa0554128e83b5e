"""Make a data set of reasoning examples, as s1K was made: `python -m s1_jax.curate CONFIG.py [--option value ...]`.

The stages are collect, decontaminate, generate, grade, classify, measure, filter, select and write. Each writes a
Parquet file into `run_dir`. If the command is stopped, the same command resumes it: finished stages are not repeated,
and no model is asked the same question twice. If an option changes, its stage and all later ones are made again;
`--again-from STAGE` does so without a change, and `--until STAGE` stops early. The command ends with a table of the
rows that were left after each rule.
"""

from __future__ import annotations

import sys
from pathlib import Path

from s1_jax.config.curate import CurateConfig
from s1_jax.curation.pipeline import STAGES
from s1_jax.curation.report import funnel_rows, save_funnel_plot
from s1_jax.curation.stages import counts_of, run_stages
from s1_jax.errors import UserError
from s1_jax.runtime.cli import parse_with_file, program, resumable, run_main, to_json
from s1_jax.runtime.files import write_whole
from s1_jax.runtime.locks import locked_folder
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.storage import as_path, in_bucket
from s1_jax.runtime.tables import align
from s1_jax.runtime.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and run the stages. Raises UserError, RunError, KeyboardInterrupt, Terminated."""
    config = parse_with_file(
        CurateConfig, sys.argv[1:] if argv is None else argv, program("curate"), description=__doc__
    )
    with resumable():
        curate(config)


def curate(config: CurateConfig) -> None:
    """Run the stages up to `config.until`, and print and plot the funnel. Raises as `main` does."""
    if in_bucket(as_path(config.run_dir)):
        raise UserError(f"run_dir {config.run_dir} is in a bucket; tables are made on this machine: set a local folder")
    names = [stage.name for stage in STAGES]
    if config.until is not None and config.until not in names:
        raise UserError(f"until: there is no stage {config.until!r}; the stages are {', '.join(names)}")
    stages = STAGES if config.until is None else STAGES[: names.index(config.until) + 1]
    for stage in stages:
        stage.inputs(config)  # a missing file is reported now, not when its stage begins
    run_dir = Path(config.run_dir).expanduser()
    with locked_folder(run_dir):
        write_whole(run_dir / "config.json", to_json(config))

        # Collect questions, add traces and grades, then filter and select
        with progress_bar() as bar:
            last = run_stages(stages, config, run_dir, bar, config.again_from)

        # Show the rows left by each rule
        counts = counts_of(last)
        say(align(funnel_rows(counts)))
        save_funnel_plot(run_dir / "funnel.png", counts)
        say(f"plot: {run_dir / 'funnel.png'}")


if __name__ == "__main__":
    run_main(main)
