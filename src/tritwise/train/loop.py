"""The training loop: float32 master weights, AdamW, everything resumable bit for bit, on one rank or several.

A run directory holds log.jsonl (one object a step), checkpoints/ and, at the end, result.json and held_out.json (nats
of each held-out document, for comparisons that are paired over documents).
"""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tritwise.common.errors import Diverged, Interrupted, TritwiseError
from tritwise.common.files import atomic_write, atomic_write_json, canonical_json, sha256_bytes
from tritwise.common.progress import format_duration, progress
from tritwise.config import Recipe, TrainRecipe
from tritwise.data import load_documents
from tritwise.model import Decoder
from tritwise.train.checkpoint import TrainState, latest_checkpoint, restore, save_checkpoint
from tritwise.train.evaluate import held_out_by_document, whole
from tritwise.train.mixes import MixedOrder, SourceUse, mix_key, open_order, repeated, source_use
from tritwise.train.ranks import Device, Ranks, join_ranks, mean_over_ranks, micro_batch_size, sum_over_ranks
from tritwise.train.schedule import learning_rate, weight_decay
from tritwise.train.start import load_weights, start_key, started_config


def compute_dtype(choice: str, device: str = "cpu") -> torch.dtype:
    """The dtype of activations and products; "auto" is bfloat16 where the processor multiplies it natively."""
    if choice == "auto":
        native = device != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        choice = "bfloat16" if native else "float32"
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[choice]


def available_threads() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_key(recipe: Recipe, variant: str, tokenizer_hash: str) -> str:
    """Hash of everything that decides a training run's numbers, apart from the processor."""
    model = recipe.model_config_of(variant)
    without = {"checkpoint_every", "ranks", "recompute"} | (set() if model.num_experts else {"router_aux_loss_coef"})
    start = recipe.variants[variant].start
    facts = ({} if start is None else {"start": start_key(Path(start))}) | {
        "seed": recipe.seed,
        "train": recipe.train.model_dump(mode="json", exclude=without),
        "model": model.model_dump(mode="json", exclude={"fim_order"}),
        "schedule": recipe.variants[variant].schedule.model_dump(mode="json"),
        "tokenizer": tokenizer_hash,
    }
    if recipe.mix is not None:
        facts["mix"] = mix_key(recipe.mix)
    return sha256_bytes(canonical_json(facts).encode())


def make_optimizer(model: Decoder, train: TrainRecipe) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) with two groups: matrices, which decay, and norms, which do not."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim != 2]
    return torch.optim.AdamW([{"params": matrices, "decays": True}, {"params": norms, "decays": False}],
                             lr=0.0, betas=train.betas, eps=train.adam_eps, weight_decay=0.0, fused=True)


@contextmanager
def _interrupt_flag() -> Iterator[list[bool]]:
    """Turn the first Ctrl-C into a flag that the loop reads between steps; the second one kills as usual."""
    flag = [False]

    def on_interrupt(_signal: int, _frame: object) -> None:
        flag[0] = True
        signal.signal(signal.SIGINT, previous)

    try:
        previous = signal.signal(signal.SIGINT, on_interrupt)
    except ValueError:  # not the main thread: nobody can press Ctrl-C at it
        yield flag
        return
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)


class _Log:
    """log.jsonl, cut back to the step that a run resumes from."""

    def __init__(self, path: Path, resume_step: int) -> None:
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= resume_step:
                        kept.append(line)
                except (ValueError, KeyError):  # the line that a kill cut off
                    break
        atomic_write(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a", buffering=1)

    def write(self, **values: float) -> None:
        self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        self._file.close()


def _optimizer_step(model: Decoder, optimizer: torch.optim.Optimizer, batch: torch.Tensor, train: TrainRecipe,
                    step: int, ranks: Ranks = Ranks()) -> tuple[float, float]:  # noqa: B008  (it is frozen)
    """Gradients over the micro-batches and one update; returns (loss in nats, gradient norm before clipping).

    `batch` is this rank's share of the step; what is returned is of all ranks. The loss is the mean over all targets of
    the step, padding left out, so that no micro-batch and no rank counts more for having fewer. It has the experts'
    balance in it, where there are experts.
    """
    if ranks.world > 1:
        from tritwise.train.parallel import quantise_shards, set_exchange

    # A rank's share of all targets, were they shared equally: gradients are averaged over the ranks.
    targets, _ = mean_over_ranks(float((batch[:, 1:] >= 0).sum()), False, ranks)
    total = torch.zeros((), dtype=torch.float64, device=batch.device)
    parts = batch.split(micro_batch_size(train, ranks))
    for number, part in enumerate(parts, 1):
        if ranks.world > 1:
            set_exchange(model, train.ranks, last=number == len(parts))
        count = int((part[:, 1:] >= 0).sum())
        shares = targets / count if count else math.inf  # without padding the number of parts, exactly
        loss = model.loss(part[:, :-1], part[:, 1:], balance=train.router_aux_loss_coef,
                          over_ranks=sum_over_ranks if ranks.world > 1 else None)
        (loss / shares).backward()
        total += loss.detach().double() / shares
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), train.max_grad_norm)
    if ranks.world > 1:  # the norm of a sharded gradient is a sharded tensor too
        norm = norm.full_tensor()
    loss_value, norm_value = mean_over_ranks(total.item(), False, ranks)[0], norm.item()
    if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
        raise Diverged(
            f"training diverged at step {step}: loss {loss_value}, gradient norm {norm_value}",
            why="a NaN or infinite value appeared; no update was made with it",
            fix="lower the schedule's peak or train.max_grad_norm; the last good checkpoint is kept")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if ranks.world > 1:
        quantise_shards(model)
    return loss_value, norm_value


def train(recipe: Recipe, variant: str, data: Path, out: Path, *, stop_after: int | None = None,
          threads: int | None = None, device: Device = "cpu") -> Path:
    """Train one variant of a recipe, from `out`'s newest checkpoint on if there is one; returns the final checkpoint.

    Under torchrun all ranks call this: weights are sharded (`parallel`), each rank sees its share of every batch, and
    the first writes the same checkpoints that a single process does; any number of ranks goes on from them.
    `data` is what `tritwise.data.build` wrote. `stop_after` ends this call at that step with a checkpoint, as an
    interruption would. On the CPU in float32 with the same number of threads, an interrupted run repeats an
    uninterrupted one bit for bit. Raises Diverged when the loss is not finite, Interrupted after Ctrl-C.
    """
    ranks = join_ranks(device)
    micro_batch_size(recipe.train, ranks)  # before anything is read
    order, tokenizer_hash = open_order(recipe, data)
    use: list[SourceUse] = []
    if isinstance(order, MixedOrder):
        use = source_use(recipe.mix, order, recipe.train.steps * recipe.train.batch_size)
        for warning in repeated(recipe.mix, use) if ranks.first else ():
            print(warning, file=sys.stderr, flush=True)
    key = run_key(recipe, variant, tokenizer_hash)
    train_recipe, schedule = recipe.train, recipe.variants[variant].schedule
    threads = threads or max(1, available_threads() // ranks.local_world)
    torch.set_num_threads(threads)
    config, start = recipe.model_config_of(variant), recipe.variants[variant].start
    if start is not None:
        config = started_config(config, Path(start))
    place = f"cuda:{ranks.local_rank}" if device == "cuda" else "cpu"
    model = Decoder(config, dtype=compute_dtype(train_recipe.dtype, place),
                    recompute=train_recipe.recompute == "blocks").to(place)
    optimizer = make_optimizer(model, train_recipe)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = latest_checkpoint(out)
    if checkpoint is None:
        if start is None:
            model.initialise(torch.Generator().manual_seed(recipe.seed))
        else:
            load_weights(model, Path(start))
        begin = 0
    else:
        state = restore(checkpoint, model, optimizer)
        if state.run_key != key:
            raise TritwiseError(f"{out} holds a run of other settings",
                                why=f"its checkpoint {checkpoint.name} was made with another recipe or other data",
                                fix="give another --out, or delete that directory")
        begin = state.step
    gather: dict[str, Any] = {}
    if ranks.world > 1:
        from tritwise.train.parallel import shard_with_optimizer, whole_tensor

        optimizer = shard_with_optimizer(model, optimizer, lambda shards: make_optimizer(shards, train_recipe),
                                         device, train_recipe.ranks)
        gather = {"whole": whole_tensor, "write": ranks.first}
    tokens_a_step = train_recipe.batch_size * train_recipe.sequence_length
    end = min(train_recipe.steps, stop_after or train_recipe.steps)
    log = _Log(out / "log.jsonl", begin) if ranks.first else None

    def save(step: int) -> Path:
        state = TrainState(step, variant, model.config.model_dump(mode="json", exclude_none=True), key, threads)
        return save_checkpoint(out / "checkpoints", state, model, optimizer, **gather)

    try:
        bars = progress(f"train {variant}", train_recipe.steps, completed=begin) if ranks.first else nullcontext()
        with _interrupt_flag() as interrupted, bars as bar:
            for step in range(begin + 1, end + 1):
                began = time.perf_counter()
                rate = learning_rate(schedule, step, train_recipe.steps)
                decay = weight_decay(schedule, step, train_recipe.steps)
                for group in optimizer.param_groups:
                    group["lr"], group["weight_decay"] = rate, decay if group["decays"] else 0.0
                batch = order.batch(step - 1, train_recipe.batch_size, rank=ranks.rank, world=ranks.world)
                batch = torch.from_numpy(batch).to(place)
                loss, norm = _optimizer_step(model, optimizer, batch, train_recipe, step, ranks)
                seconds = time.perf_counter() - began
                speed = tokens_a_step / seconds
                if log is not None:
                    log.write(step=step, loss=loss, learning_rate=rate, weight_decay=decay, grad_norm=norm,
                              tokens=step * tokens_a_step, seconds=round(seconds, 4), tokens_per_second=round(speed, 1))
                    bar.update(step, f"loss {loss:.3f} | lr {rate:.2e} | {speed:,.0f} tok/s")
                last = step == end
                _, stop = mean_over_ranks(0.0, interrupted[0], ranks)
                if last or stop or step % train_recipe.checkpoint_every == 0:
                    checkpoint = save(step)
                if stop and step < train_recipe.steps:
                    left = bar.seconds_left() if bar is not None else None
                    raise Interrupted(f"training stopped at step {step} of {train_recipe.steps}; {checkpoint} is saved",
                                      why="interrupted",
                                      fix="the same command goes on from there"
                                          + (f", about {format_duration(left)} are left" if left else ""))
    finally:
        if log is not None:
            log.close()
    if end == train_recipe.steps and ranks.first:
        _write_result(recipe, variant, model, data, out, checkpoint, use)
    return checkpoint


def _write_result(recipe: Recipe, variant: str, model: Decoder, data: Path, out: Path, checkpoint: Path,
                  use: list[SourceUse]) -> None:
    """Score the held-out documents in float32 and write result.json, with what was taken of each source of a mix."""
    context = recipe.train.sequence_length
    exact = Decoder(model.config).to(model.head_weight.device)
    # Of a sharded model this rank has a share only; the checkpoint has the whole.
    sharded = any(hasattr(parameter, "full_tensor") for parameter in model.parameters())
    exact.load_state_dict(load_file(checkpoint / "model.safetensors") if sharded else model.state_dict())
    documents = load_documents(data, split="held_out")
    scores = held_out_by_document(exact, data / "tokenizer.json", documents, context=context, stride=context // 2,
                                  end_of_text=recipe.tokenizer.end_of_text)
    atomic_write_json(out / "held_out.json", {"documents": [
        {"repository": document.repository, "path": document.path, "bytes": score.bytes, "tokens": score.tokens,
         "nats": score.total_nats} for document, score in zip(documents, scores, strict=True)]})
    score = whole(scores)
    atomic_write_json(out / "result.json", {
        "variant": variant, "checkpoint": checkpoint.name, "dtype": str(model.dtype).removeprefix("torch."),
        "held_out": {"bits_per_byte": score.bits_per_byte, "perplexity": score.perplexity,
                     "tokens": score.tokens, "bytes": score.bytes, "context": context, "stride": context // 2},
    } | ({"mix": [source._asdict() for source in use]} if use else {}))
