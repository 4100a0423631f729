"""Does 1.58 bit match 16 bit? Ternary, binary and dense twins on the same tokens, at sizes that a plan names.

    python benchmarks/evidence/evidence.py benchmarks/evidence/cpu.toml --recipe RECIPE --data DATA --dry-run
    python benchmarks/evidence/evidence.py benchmarks/evidence/cpu.toml --recipe RECIPE --data DATA --seconds 3600

RECIPE is what DATA was built with (`tritwise data build`); its data and tokenizer count, its model and variants do not.
Per size, every variant is trained with every peak of one grid on the same few tokens; the grid grows by one step for
all while the best peak of one stands at its end. Then each variant is trained with its own published schedule's shape
at its best peak, on the same tokens in the same order. Last, changes of the recipe are tried one by one.

Everything is a stage in --out: what is finished is reused, a training goes on where it was stopped. After --seconds the
work ends with a checkpoint, and the same command goes on. --report trains nothing and writes results.json, results.md
and results.svg of what is there; they are also written after every training that is not the sweep's.
"""

import argparse
import sys
from pathlib import Path

from evidence_plan import KINDS, Plan, Score, Training, flops_per_token, load_plan, next_training, points_of, recipe_of
from evidence_report import write_report
from evidence_training import Deadline, Place, Results

from tritwise.common.errors import Interrupted, TritwiseError
from tritwise.common.progress import format_duration
from tritwise.config.recipe import load_data_recipe

# Of held-out code; scoring windows overlap by half.
BYTES_PER_TOKEN, SCORED_TWICE = 3.5, 2


def planned(plan: Plan, finished: Score = lambda _training: None) -> list[Training]:
    """What is left to train if every best peak that is not known yet stood in the middle of the grid."""
    middle = plan.peaks[len(plan.peaks) // 2]
    found: list[Training] = []

    def score(training: Training) -> float | None:
        if (known := finished(training)) is not None:
            return known
        if training.name not in {each.name for each in found}:
            return None
        return 1.0 + abs(training.peak - middle)

    while (training := next_training(plan, score)) is not None:
        found.append(training)
    return found


def show_plan(place: Place, flops: float) -> str:
    """What is left to train, with tokens, parameters, FLOPs and seconds at `flops` a second."""
    lines, total, cost_of_all = [f"{'training':44}{'steps':>8}{'tokens':>13}{'block':>13}{'head':>12}{'FLOPs':>10}"
                                 f"{'time':>10}"], 0.0, 0.0
    for training in planned(place.plan, Results(place).score):
        recipe = recipe_of(place.plan, training, place.corpus)
        config, steps = recipe.model_config_of(training.variant), recipe.train.steps
        tokens = steps * recipe.train.batch_size * recipe.train.sequence_length
        # A forward pass is a third of a step; float32 is at least twice as slow as bfloat16.
        scored = (len(points_of(place.plan, training, steps)) * place.plan.held_out_bytes / BYTES_PER_TOKEN
                  * SCORED_TWICE / 3 * 2)
        cost = flops_per_token(config) * tokens
        seconds = (cost + flops_per_token(config) * scored) / flops
        total, cost_of_all = total + seconds, cost_of_all + cost
        lines.append(f"{training.name:44}{steps:8,}{tokens:13,}{config.parameter_count().block:13,}"
                     f"{config.vocab_size * config.hidden_size:12,}{cost:10.1e}{format_duration(seconds):>10}")
    lines.append(f"together {cost_of_all:.1e} FLOPs of training, {format_duration(total)} with scoring at {flops:.1e} "
                 "FLOP/s; attention is not counted, nor a grid that grows")
    return "\n".join(lines)


def work(place: Place, kinds: tuple[str, ...], seconds: float | None) -> bool:
    """Train what is not finished; returns whether everything is."""
    deadline, results = Deadline(seconds), Results(place)
    try:
        while (training := next_training(place.plan, results.score, kinds)) is not None:
            print(f"{training.name}: peak {training.peak:g}, {training.tokens:,} tokens", file=sys.stderr, flush=True)
            results.train(training, deadline)
            print(f"{training.name}: {results.score(training):.4f} bits per byte", file=sys.stderr, flush=True)
            if training.kind != "sweep":
                write_report(place, results)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("plan", type=Path)
    add("--recipe", type=Path, required=True, help="what the data was built with")
    add("--data", type=Path, required=True, help="the directory that `tritwise data build` wrote")
    add("--out", type=Path, default=Path("runs/evidence"))
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=int)
    add("--seconds", type=float, help="end after so long; the same command goes on")
    add("--only", choices=KINDS, nargs="+", default=list(KINDS))
    add("--dry-run", action="store_true", help="list what is left to train")
    add("--flops", type=float, default=1e11, help="FLOP/s that --dry-run counts with")
    add("--report", action="store_true", help="only write the report of what is there")
    arguments = parser.parse_args()
    try:
        place = Place(load_plan(arguments.plan), load_data_recipe(arguments.recipe), arguments.data, arguments.out,
                      arguments.device, arguments.threads)
        if arguments.dry_run:
            print(show_plan(place, arguments.flops))
            return 0
        finished = None if arguments.report else work(place, tuple(arguments.only), arguments.seconds)
        print(write_report(place, Results(place)))
    except TritwiseError as error:
        print(error, file=sys.stderr)
        return 1
    if finished is False:
        print("not everything is trained: the same command goes on", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
