"""One of several ranks: shards a model whose rows divide unevenly, then trains a recipe; rank 0 leaves what it saw.

    WORLD_SIZE=2 RANK=0 LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python parallel_worker.py RECIPE DATA OUT
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from tritwise.config import ModelConfig, RankSettings, Recipe, TrainRecipe
from tritwise.kernels.training_twins import unpack_codes
from tritwise.model import Decoder
from tritwise.model.bitlinear import kernels_everywhere
from tritwise.train import train
from tritwise.train.loop import _optimizer_step, make_optimizer
from tritwise.train.parallel import ShardedMaster, quantise_shards, shard, whole_tensor
from tritwise.train.ranks import Ranks, join_ranks

UNEVEN = ModelConfig(vocab_size=61, hidden_size=36, intermediate_size=45, num_hidden_layers=1, num_attention_heads=3,
                     num_key_value_heads=1, max_position_embeddings=16, tie_word_embeddings=True)


# Two tokens reach at most four of six experts, so some have no token of a rank.
EXPERTS = UNEVEN.with_changes(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=13,
                              shared_expert_intermediate_size=10)


def uneven_model(config: ModelConfig = UNEVEN, recompute: bool = False) -> Decoder:
    model = Decoder(config, recompute=recompute)
    model.initialise(torch.Generator().manual_seed(5))
    return model


# What ranks may exchange, by a name; `recomputed` is a model with activation checkpointing.
EXCHANGES = {"step": RankSettings(), "micro_batch": RankSettings(reduce_gradients="micro_batch"),
             "gathered": RankSettings(keep_gathered=True),
             "both": RankSettings(reduce_gradients="micro_batch", keep_gathered=True), "recomputed": RankSettings()}


class Exchanges(TorchDispatchMode):
    """Counts collectives by kind; their functions' names differ between versions of torch, these operators' do not."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = {"allgather": 0, "reduce_scatter": 0}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for kind in self.counts:
            self.counts[kind] += func.namespace == "c10d" and kind in func.__name__
        return func(*args, **(kwargs or {}))


def accumulating(**settings) -> TrainRecipe:
    """Six sequences a step, one at a time; updates follow the gradient."""
    return TrainRecipe(**{"steps": 2, "batch_size": 6, "micro_batch_size": 1, "sequence_length": 8, "adam_eps": 0.1,
                          "router_aux_loss_coef": 0.5} | settings)


def two_steps(model: Decoder, train: TrainRecipe, ranks: Ranks,
              length: int = 9) -> tuple[list[float], list[dict[str, int]]]:
    """The losses of two steps on the same tokens, and what was exchanged in each."""
    optimizer, found, calls = make_optimizer(model, train), [], []
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    ids = torch.randint(0, 61, (6, length), generator=torch.Generator().manual_seed(4))[ranks.rank::ranks.world]
    for step in (1, 2):
        with Exchanges() as exchanges:
            found.append(_optimizer_step(model, optimizer, ids, train, step, ranks)[0])
        calls.append(exchanges.counts)
    return found, calls


def accumulation(out: Path, ranks: Ranks) -> None:
    """Two steps of three micro-batches a rank with each way to exchange gradients and weights."""
    facts = {}
    for name, settings in EXCHANGES.items():
        model = shard(uneven_model(recompute=name == "recomputed"), settings=settings)
        found, calls = two_steps(model, accumulating(ranks=settings), ranks)
        facts[name] = {"losses": found, "calls": calls}
        weights = {key: whole_tensor(parameter).contiguous() for key, parameter in model.named_parameters()}
        if ranks.first:
            save_file(weights, out / f"accumulated-{name}.safetensors")
    if ranks.first:
        (out / "accumulation.json").write_text(json.dumps(facts))


def experts(out: Path, ranks: Ranks) -> None:
    """Two steps of a model with experts, recomputed: codes before them, losses and weights."""
    model = shard(uneven_model(EXPERTS, recompute=True))
    codes_of_ranks(model, out / "experts", ranks.first)
    found, _ = two_steps(model, accumulating(), ranks, length=3)
    weights = {key: whole_tensor(parameter).contiguous() for key, parameter in model.named_parameters()}
    if ranks.first:
        save_file(weights, out / "experts" / "weights.safetensors")
        (out / "experts" / "losses.json").write_text(json.dumps(found))


def codes_of_ranks(model: Decoder, out: Path, first: bool) -> None:
    """The codes and scales that the ranks' shards make together, and how many all-reduces it took."""
    calls = []
    original = dist.all_reduce
    dist.all_reduce = lambda *arguments, **options: (calls.append(1), original(*arguments, **options))[1]
    quantise_shards(model)
    dist.all_reduce = original
    found, rows = {}, {}
    for name, parameter in model.named_parameters():
        local = parameter.to_local()
        if isinstance(local, ShardedMaster):
            (packed,), (means, _) = local.fsdp_pre_all_gather(parameter.device_mesh)
            parts = [torch.empty_like(packed) for _ in range(dist.get_world_size())]
            dist.all_gather(parts, packed)
            found[f"codes.{name}"] = unpack_codes(torch.cat(parts)[:parameter.shape[0]], parameter.shape[1])
            found[f"means.{name}"] = means
            found[f"weight.{name}"] = whole_tensor(parameter)
            rows[name] = [packed.nbytes, local.plain.nbytes]
    if first:
        out.mkdir(exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, out / "codes.safetensors")
        (out / "facts.json").write_text(json.dumps({"all_reduces": len(calls), "bytes": rows}))


def tokens() -> torch.Tensor:
    return torch.randint(0, 61, (2, 6), generator=torch.Generator().manual_seed(2))


def gradients_on_kernels(out: Path, first: bool) -> None:
    """Gradients of two ranks whose linears run on the GPU's kernels, in the interpreter."""
    model, mine = shard(uneven_model()), tokens()[dist.get_rank()][None]
    with kernels_everywhere():
        model.loss(mine[:, :-1], mine[:, 1:]).backward()
    gradients = {name: whole_tensor(p.grad).contiguous() for name, p in model.named_parameters()}
    if first:
        save_file(gradients, out / "gradients.safetensors")


def main() -> None:
    recipe, data, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    ranks = join_ranks()
    model = shard(uneven_model())
    codes_of_ranks(model, out, ranks.first)
    with torch.no_grad():
        next(p for p in model.parameters() if isinstance(p.to_local(), ShardedMaster)).add_(0.0)
    try:
        model.loss(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64))
    except RuntimeError as error:
        (out / f"stale-{ranks.rank}.txt").write_text(str(error))
    if sys.platform == "linux":  # where Triton is
        gradients_on_kernels(out, ranks.first)
    accumulation(out, ranks)
    experts(out, ranks)
    train(Recipe.model_validate_json(recipe), "ternary", data, out / "ranks", stop_after=3, threads=1)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
