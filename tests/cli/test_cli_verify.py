"""`tritwise verify`: exit statuses, the sentence on standard error, the table and the JSON object."""

import json

import numpy as np
import pytest

from tritwise.cli.app import main
from tritwise.formats import TernaryTensor, open_model, write_quantised

UP = "model.layers.1.mlp.up_proj.weight"
OUT = "model.layers.1.self_attn.o_proj.weight"  # no norm undoes its scale


@pytest.fixture
def other(model_directory, tmp_path):
    """`other(**tensors)`: the tiny model with some tensors changed."""
    def write(changes):
        directory = open_model(model_directory)
        tensors = {name: directory.read(name) for name in directory.names()} | changes
        write_quantised(tmp_path / "other", directory.config, tensors, dtype="float32",
                        tokenizer_file=model_directory / "tokenizer.json")
        return tmp_path / "other"
    return write


def test_the_same_model_is_status_0_and_a_table(model_directory, other, tmp_path, capsys):
    text = tmp_path / "text.py"
    text.write_text("def add(a, b):\n    return a + b\n" * 4)
    path = other({})
    assert main(["verify", str(model_directory), str(path), "--text", str(text)]) == 0
    shown = capsys.readouterr()
    assert "the models agree" in shown.out
    assert "block linear     14                  0  equal" in shown.out
    assert "tokens of the given text" in shown.out
    assert "tritwise:" not in shown.err


def test_a_flipped_code_is_status_1_and_a_sentence(model_directory, other, capsys):
    tensor = open_model(model_directory).read(UP)
    codes = tensor.codes().copy()
    codes[3, 5] = -codes[3, 5] or 1
    path = other({UP: TernaryTensor.from_codes(codes, tensor.scale[0])})
    assert main(["verify", str(model_directory), str(path)]) == 1
    shown = capsys.readouterr()
    assert f"tritwise: the models are not the same: {UP} has 1 of 1,536 codes that are not the same" in shown.err
    assert "the models differ" in shown.out
    assert main(["verify", str(model_directory), str(path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["agrees"] is False
    assert UP in report["first_difference"]
    assert [t["name"] for t in report["tensors"] if t["codes_differ"]] == [UP]


def test_thresholds_are_options(model_directory, other, capsys):
    tensor = open_model(model_directory).read(OUT)
    path = other({OUT: TernaryTensor(tensor.packed, tensor.scale * np.float32(1.01), tensor.shape)})
    assert main(["verify", str(model_directory), str(path)]) == 1
    assert main(["verify", str(model_directory), str(path), "--scale", "0.02"]) == 0
    assert main(["verify", str(model_directory), str(path), "--scale", "0.02", "--divergence", "1e-9"]) == 1
    assert "KL(A || B)" in capsys.readouterr().err


def test_mistakes_are_status_1_with_what_to_do(model_directory, capsys):
    assert main(["verify", str(model_directory)]) == 1
    assert "try: give a second model, or --with" in capsys.readouterr().err
    assert main(["verify", str(model_directory), "nowhere"]) == 1
    assert "nowhere is not a model directory" in capsys.readouterr().err
    assert main(["verify", str(model_directory), str(model_directory), "--with", "mlx"]) == 2
