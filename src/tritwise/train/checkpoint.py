"""Training checkpoints: whole or absent, each file hashed, no pickle.

    step-00000500/model.safetensors       float32 master weights, Hugging Face names
                  optimizer.safetensors   AdamW's exp_avg.NAME and exp_avg_sq.NAME
                  state.json              step, model configuration, what the run is keyed by
                  manifest.json           sha256 of each of these
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_directory, atomic_write_json, read_json, sha256_file
from tritwise.config import ModelConfig

_NAME = re.compile(r"step-(\d{8})")
_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
_MOMENTS = ("exp_avg", "exp_avg_sq")
KEEP = 2


@dataclass(frozen=True)
class TrainState:
    """What besides tensors a run needs to go on."""

    step: int
    variant: str
    model: dict[str, Any]
    run_key: str
    threads: int


def save_checkpoint(directory: Path, state: TrainState, model: nn.Module, optimizer: torch.optim.Optimizer, *,
                    whole: Callable[[Tensor], Tensor] = Tensor.detach, write: bool = True) -> Path:
    """Write `directory/step-N` atomically and delete all but the newest two.

    Of sharded tensors, `whole` gathers one, and all ranks call this; those with `write` false only give their shards.
    """
    final = directory / f"step-{state.step:08d}"
    weights, moments = {}, {}
    for name, parameter in model.named_parameters():
        named = [(weights, name, parameter)]
        if parameter in optimizer.state:
            named += [(moments, f"{moment}.{name}", optimizer.state[parameter][moment]) for moment in _MOMENTS]
        for among, key, tensor in named:
            gathered = whole(tensor)
            if write:
                among[key] = gathered.contiguous()
    if not write:
        return final
    with atomic_directory(final) as partial:
        save_file(weights, partial / "model.safetensors")
        save_file(moments, partial / "optimizer.safetensors")
        atomic_write_json(partial / "state.json", vars(state))
        hashes = {name: sha256_file(partial / name) for name in _FILES}
        atomic_write_json(partial / "manifest.json", {"sha256": hashes})
    for _, old in _steps(directory)[:-KEEP]:
        shutil.rmtree(old)
    return final


def _steps(directory: Path) -> list[tuple[int, Path]]:
    if not directory.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def _fault(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be believed, or None."""
    try:
        hashes = read_json(checkpoint / "manifest.json", what="a checkpoint's manifest")["sha256"]
        for name in _FILES:
            if hashes[name] != sha256_file(checkpoint / name):
                return f"{name} does not match its hash"
    except (TritwiseError, OSError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a training directory whose files match their hashes; None when there is none at all.

    Leftovers of a killed write have other names and are ignored. If checkpoints exist but every one is damaged, that
    is an error: starting over in silence would lose the run.
    """
    faults = []
    for _, path in reversed(_steps(run / "checkpoints")):
        fault = _fault(path)
        if fault is None:
            return path
        faults.append(f"{path.name}: {fault}")
    if faults:
        raise TritwiseError(f"no checkpoint in {run / 'checkpoints'} is whole", why="; ".join(faults),
                            fix=f"restore one from a copy, or delete {run} to train from the start")
    return None


def read_state(checkpoint: Path) -> TrainState:
    """The `TrainState` of a checkpoint."""
    values = read_json(checkpoint / "state.json", what="a checkpoint's state")
    try:
        state = TrainState(**values)
        if not isinstance(state.model, dict):
            raise TypeError("its model is no object")
        return state
    except TypeError as error:
        raise TritwiseError(f"{checkpoint / 'state.json'} is not a checkpoint's state", why=str(error)) from None


def restore(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
    """Load weights, optimizer moments and step count into `model` and `optimizer`."""
    state = read_state(checkpoint)
    weights = load_file(checkpoint / "model.safetensors")
    moments = load_file(checkpoint / "optimizer.safetensors")
    parameters = dict(model.named_parameters())
    if {n: tuple(t.shape) for n, t in weights.items()} != {n: tuple(p.shape) for n, p in parameters.items()}:
        raise TritwiseError(f"{checkpoint} holds another model", why="names or shapes of its weights differ",
                            fix="use another output directory for this model")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
            if f"exp_avg.{name}" in moments:
                optimizer.state[parameter] = {"step": torch.tensor(float(state.step), device=parameter.device)} | {
                    moment: moments[f"{moment}.{name}"].to(parameter.device) for moment in _MOMENTS}
    return state


def load_checkpoint_model(checkpoint: Path) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Configuration and float32 master weights of a checkpoint directory, checked against its manifest.

    A training directory is taken too: its newest whole checkpoint is read.
    """
    checkpoint = Path(checkpoint)
    if (checkpoint / "checkpoints").is_dir():
        newest = latest_checkpoint(checkpoint)
        if newest is None:
            raise TritwiseError(f"{checkpoint} holds no finished checkpoint")
        checkpoint = newest
    elif not (checkpoint / "state.json").is_file():
        raise TritwiseError(f"{checkpoint} is not a checkpoint", why="it has no state.json",
                            fix="give a directory named step-... or the training directory above it")
    elif fault := _fault(checkpoint):
        raise TritwiseError(f"the checkpoint {checkpoint} is damaged", why=fault)
    config = ModelConfig.from_hf(read_state(checkpoint).model, source=str(checkpoint / "state.json"))
    try:
        weights = load_numpy(checkpoint / "model.safetensors")
    except SafetensorError as error:
        raise TritwiseError(f"{checkpoint / 'model.safetensors'} is damaged", why=str(error)) from None
    if config.num_hidden_layers * (config.num_experts or 1) > len(weights):  # before so many names are made
        raise TritwiseError(f"{checkpoint / 'state.json'} does not fit the weights",
                            why=f"num_hidden_layers is {config.num_hidden_layers} for {len(weights)} tensors")
    return config, weights
