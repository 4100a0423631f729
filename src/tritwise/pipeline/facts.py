"""The data of a report, gathered from what the stages wrote."""

import json
import shlex
from pathlib import Path
from typing import Any

from tritwise.common.files import read_json, sha256_file
from tritwise.config import Recipe
from tritwise.measure.inspection import inspect_model
from tritwise.measure.report import layer_counts, training_curve
from tritwise.pipeline.stages import RECORD


def report_data(recipe: Recipe, recipe_path: Path, out: Path, command: str,
                stages: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything `tritwise.measure.report` shows, as plain JSON data."""
    result = read_json(out / "run" / "result.json", what="the measurements of a run")
    data = read_json(out / "data" / "report.json", what="the report of the data stage")
    machine = result["machine"]
    seconds = {stage["name"]: stage["seconds"] for stage in stages}
    models = [_model(recipe, name, out, measured, seconds[f"train-{name}"])
              for name, measured in result["models"].items()]
    held_out = models[0]["held_out"]
    return {
        "name": recipe.name,
        "models": models,
        "held_out": {"bytes": held_out["bytes"], "documents": held_out["documents"],
                     "repositories": data["held_out_repositories"], "xz_bits_per_byte": result["xz_bits_per_byte"]},
        "data": _data_facts(recipe, data),
        "machine": _machine_facts(machine),
        "stages": [{key: stage[key] for key in ("name", "key", "seconds")} for stage in stages],
        "repeat": {
            "command": shlex.join(shlex.split(command)),
            "versions": machine["versions"],
            "hashes": _hashes(recipe, recipe_path, out, data),
        },
        "recipe": recipe.model_dump(mode="json"),
    }


def _model(recipe: Recipe, name: str, out: Path, measured: dict[str, Any], seconds: float) -> dict[str, Any]:
    directory, probe = out / name, measured["probe"]
    inspection = inspect_model(directory)
    log = [json.loads(line) for line in (out / f"train-{name}" / "log.jsonl").read_text().splitlines()]
    scored = read_json(out / f"train-{name}" / "result.json", what="the result of a training")
    last = [line["loss"] for line in log[-max(1, len(log) // 20):]]
    block, embedding, norm = (inspection.parameters_block, inspection.parameters_embedding,
                              inspection.parameters_norm)
    return {
        "name": name,
        "linear_type": recipe.variants[name].linear_type,
        "config": inspection.config.model_dump(mode="json", exclude_none=True),
        "parameters": {"block": block, "embedding": embedding, "norm": norm, "total": inspection.parameters},
        "training": {
            "steps": log[-1]["step"], "tokens": log[-1]["tokens"], "seconds": seconds,
            "step_seconds": sum(line["seconds"] for line in log), "final_loss": sum(last) / len(last),
            "dtype": scored["dtype"], "bits_per_byte": scored["held_out"]["bits_per_byte"],
            "perplexity": scored["held_out"]["perplexity"], "curve": training_curve(log),
        },
        "files": {
            "bytes": sum(file.stat().st_size for file in _model_files(directory)),
            "weight_bytes": inspection.stored_bytes, "bits_per_weight": inspection.bits_per_weight,
            "bits_per_quantised_weight": inspection.bits_per_quantised_weight,
        },
        "bench": measured["bench"],
        "held_out": probe["held_out"],
        "torch_imported": probe["torch_imported"],
        "layers": layer_counts({tensor.name: {"minus": tensor.minus, "zero": tensor.zero, "plus": tensor.plus}
                                for tensor in inspection.quantised}),
        "completions": probe["completions"],
    }


def _model_files(directory: Path) -> list[Path]:
    return sorted(file for file in directory.iterdir() if file.is_file() and file.name != RECORD)


def _data_facts(recipe: Recipe, data: dict[str, Any]) -> dict[str, str]:
    train, held_out = data["train"], data["held_out"]
    names = data["held_out_repositories"]
    sources = recipe.data.sources
    library = ["the standard library of the running Python"] if sources.python_stdlib else []
    dropped = ", ".join(f"{rule['files']:,} {rule['rule']}" for rule in data["rules"])
    return {
        "source": ", ".join([*library, *sources.paths, *sources.folders]),
        "training text": f"{train['files']:,} files of {train['repositories']:,} repositories, "
                         f"{train['bytes']:,} bytes",
        "training tokens": f"{train['tokens']:,} in {train['documents']:,} documents, "
                           f"{train['fim_documents']:,} of them with a middle to fill",
        "held-out text": f"{held_out['files']:,} files of {len(names)} repositories, {held_out['bytes']:,} bytes",
        "held-out repositories": ", ".join(names[:24]) + (f" and {len(names) - 24} more" if len(names) > 24 else ""),
        "files dropped by rule": dropped or "none",
        "tokenizer": f"byte-level BPE, {data['vocab_size']:,} entries, {train['bytes_per_token']:.2f} bytes a token",
    }


def _machine_facts(machine: dict[str, Any]) -> dict[str, str]:
    bandwidth = ", ".join(f"{value / 1e9:.1f} GB/s with {threads} {'thread' if threads == '1' else 'threads'}"
                          for threads, value in machine["bandwidth_bytes_per_second"].items())
    return {
        "cpu": machine["processor"],
        "cores": f"{machine['available_cores']} available of {machine['logical_cores']} logical",
        "memory": f"{machine['memory_bytes'] / 1e9:.1f} GB, read at {bandwidth}",
        "kernels": ", ".join(machine["kernels"]),
        "system": machine["system"],
    }


def _hashes(recipe: Recipe, recipe_path: Path, out: Path, data: dict[str, Any]) -> dict[str, str]:
    hashes = {str(recipe_path): sha256_file(recipe_path)}
    hashes |= {f"data/{name}": digest for name, digest in data["hashes"].items()}
    for name in recipe.variants:
        hashes |= {f"{name}/{file.name}": sha256_file(file) for file in _model_files(out / name)
                   if file.suffix == ".safetensors"}
    return hashes
