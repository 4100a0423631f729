"""The commands on a tiny model: text, tables in a pipe, JSON for programs."""

import json
import math
import os
import pty
import re
import shutil
import subprocess
import sys

import pytest

from tritwise import load
from tritwise.cli.output import format_bytes, print_table
from tritwise.evaluate import perplexity
from tritwise.formats import open_model

PROMPT = "def add(a, b):\n"


def test_generate_streams_the_models_text_and_puts_statistics_on_standard_error(tritwise, model_directory):
    child = tritwise("generate", model_directory, "--prompt", PROMPT, "--max-tokens", 12)
    with load(model_directory) as model:
        expected = model.generate(PROMPT, max_tokens=12)
    assert child.stdout == expected.text + "\n"
    assert len(child.stderr.splitlines()) == 1
    assert f"{expected.prompt_tokens} + {len(expected.token_ids)} tokens ({expected.finish_reason})" in child.stderr
    assert "tok/s" in child.stderr


def test_generate_takes_sampling_settings_kernel_and_threads(tritwise, model_directory):
    child = tritwise("generate", model_directory, "--prompt", "-", "--max-tokens", 12, "--temperature", 1.5, "--top-k",
                     40, "--top-p", 0.9, "--seed", 7, "--threads", 1, "--kernel", "scalar", "--head", "int8",
                     stdin=PROMPT)
    with load(model_directory, threads=2) as model:
        expected = model.generate(PROMPT, max_tokens=12, temperature=1.5, top_k=40, top_p=0.9, seed=7)
    assert child.stdout == expected.text + "\n"
    assert "scalar, 1 threads" in child.stderr


def test_a_backend_that_cannot_run_here_is_refused_with_the_one_that_can(tritwise, model_directory):
    for command in (["generate", model_directory, "--prompt", "def", "--backend", "tpu"],
                    ["perplexity", model_directory, model_directory / "config.json", "--backend", "tpu"],
                    ["bench", model_directory, "--backend", "tpu"]):
        done = tritwise(*command)
        assert done.returncode == 1
        assert "no backend 'tpu'" in done.stderr
        assert "cpu, cuda" in done.stderr


def test_without_a_gpu_the_cuda_backend_is_refused_in_the_words_of_the_library(tritwise, model_directory):
    pytest.importorskip("triton", reason="Triton is for Linux, where CI runs this")
    done = tritwise("bench", model_directory, "--backend", "cuda", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no GPU for backend=" in done.stderr
    assert "Traceback" not in done.stderr
    done = tritwise("generate", model_directory, "--prompt", "def", "--backend", "cuda", "--kernel", "scalar")
    assert done.returncode == 1
    assert "no kernel 'scalar' on a GPU" in done.stderr


def test_generate_takes_penalties_and_speculates_with_the_same_text(tritwise, model_directory):
    settings = {"max_tokens": 40, "temperature": 0.9, "min_p": 0.02, "repetition_penalty": 1.1,
                "frequency_penalty": 0.2, "presence_penalty": 0.1, "seed": 5}
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    with load(model_directory) as model:
        expected = model.generate(PROMPT, **settings).text
    for speculate in ((), ("--speculate", "ngram"), ("--speculate", model_directory)):
        child = tritwise("generate", model_directory, "--prompt", PROMPT, *flags, *speculate)
        assert child.stdout == expected + "\n"
    refused = tritwise("generate", model_directory, "--prompt", PROMPT, "--speculate", "nowhere")
    assert refused.returncode == 1
    assert "nowhere" in refused.stderr


def test_generate_stops_before_a_stop_text(tritwise, model_directory):
    with load(model_directory) as model:
        text = model.generate(PROMPT, max_tokens=30).text
    stop = text[5:7]
    child = tritwise("generate", model_directory, "--prompt", PROMPT, "--max-tokens", 30, "--stop", stop, "--stop",
                     "-@")
    assert child.stdout == text[:text.index(stop)] + "\n"


def test_generate_and_perplexity_stretch_the_models_positions(tritwise, model_directory, tmp_path):
    positions = open_model(model_directory).config.max_position_embeddings
    scaling = {"rope_type": "yarn", "factor": 4}
    long = "x = 1\n" * positions
    with load(model_directory, context=2 * positions, rope_scaling=scaling) as model:
        expected = model.generate(PROMPT, max_tokens=12).text
        nats = perplexity(model, long)
    options = ("--rope-scaling", "yarn", "--rope-scale", 4, "--context", 2 * positions)
    child = tritwise("generate", model_directory, "--prompt", PROMPT, "--max-tokens", 12, *options)
    assert child.stdout == expected + "\n"
    (tmp_path / "long.py").write_text(long)
    found = json.loads(tritwise("perplexity", model_directory, tmp_path / "long.py", "--json", *options).stdout)
    assert found == nats.to_json()
    refused = tritwise("generate", model_directory, "--prompt", PROMPT, "--rope-scale", 4)
    assert refused.returncode == 1
    assert "--rope-scale needs --rope-scaling" in refused.stderr


def test_generate_fills_a_gap_when_a_suffix_is_given(tritwise, model_directory):
    child = tritwise("generate", model_directory, "--prompt", PROMPT, "--suffix", "    return c\n", "--max-tokens", 9)
    with load(model_directory) as model:
        assert child.stdout == model.infill(PROMPT, "    return c\n", max_tokens=9).text + "\n"
        healed = tritwise("generate", model_directory, "--prompt", PROMPT + "\n ", "--heal", "--max-tokens", 9)
        assert healed.stdout == model.generate(PROMPT + "\n ", max_tokens=9, heal=True).text + "\n"


def test_generate_answers_a_chat_by_the_models_template(tritwise, model_directory, tmp_path):
    shutil.copytree(model_directory, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role|capitalize }}: {{ m.content|trim }}<|end_of_text|>{% endfor %}Assistant: ")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
    with load(tmp_path / "model") as model:
        expected = model.chat(messages, max_tokens=9)
    child = tritwise("generate", tmp_path / "model", "--chat", "-", "--system", "Be brief.", "--max-tokens", 9,
                     stdin=PROMPT)
    assert child.stdout == expected.text + "\n"
    assert f"{expected.prompt_tokens} + " in child.stderr
    for arguments, message in (((), "either --prompt or --chat"), (("--chat", "a", "--prompt", "b"), "either --prompt"),
                               (("--prompt", "a", "--system", "b"), "--system needs --chat"),
                               (("--chat", "a", "--suffix", "b"), "--suffix needs --prompt"),
                               (("--chat", "a"), "no chat template")):
        refused = tritwise("generate", model_directory, *arguments)
        assert (refused.returncode, message in refused.stderr) == (1, True)


def test_inspect_counts_codes_and_bits(tritwise, model_directory):
    data = json.loads(tritwise("inspect", model_directory, "--json").stdout)
    directory = open_model(model_directory)
    assert data["config"]["hidden_size"] == 32
    assert data["parameters"] == directory.config.parameter_count().total
    assert len(data["quantised"]) == 2 * 7
    for tensor in data["quantised"]:
        assert tensor["minus"] + tensor["zero"] + tensor["plus"] == math.prod(tensor["shape"])
    text = tritwise("inspect", model_directory).stdout
    assert "model.layers.1.mlp.down_proj.weight" in text
    assert f"{data['bits_per_weight']:.3f} bits a parameter" in text


def test_perplexity_agrees_between_a_file_and_standard_input_and_with_the_library(tritwise, model_directory, tmp_path):
    text = "def add(a, b):\n    return a + b  # é\n" * 3
    file = tmp_path / "text.py"
    file.write_text(text)
    piped = json.loads(tritwise("perplexity", model_directory, "-", "--json", stdin=text).stdout)
    child = tritwise("perplexity", model_directory, file, "--json", "--threads", 1)
    assert json.loads(child.stdout) == piped
    assert piped["bytes"] == len(text.encode())
    assert piped["bits_per_byte"] == pytest.approx(piped["total_nats"] / math.log(2) / piped["bytes"])
    shown = tritwise("perplexity", model_directory, file).stdout
    assert f"{piped['bits_per_byte']:.4f}" in shown
    windows = json.loads(tritwise("perplexity", model_directory, file, "--json", "--context", 16, "--stride", 4).stdout)
    assert windows["tokens"] == piped["tokens"]


def test_perplexity_refuses_what_is_not_utf8(tritwise, model_directory, tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    child = tritwise("perplexity", model_directory, tmp_path / "x")
    assert child.returncode == 1
    assert "is not UTF-8 text" in child.stderr


def test_compare_shows_what_settings_cost_and_names_a_wrong_one(tritwise, model_directory, tmp_path):
    (tmp_path / "text.py").write_text("def add(a, b):\n    return a + b\n" * 3)
    child = tritwise("compare", model_directory, tmp_path / "text.py", "--setting", "head=stored", "--setting",
                     "head=int4,threads=1", "--json")
    same, coarse = json.loads(child.stdout)["comparisons"]
    assert (same["divergence"], same["agreement"]) == (0, 1)
    assert coarse["divergence"] > 0
    assert coarse["setting"] == {"head": "int4", "threads": 1}
    shown = tritwise("compare", model_directory, tmp_path / "text.py").stdout
    assert "head=int8" in shown
    wrong = tritwise("compare", model_directory, tmp_path / "text.py", "--setting", "int4")
    assert (wrong.returncode, "key=value" in wrong.stderr) == (1, True)


def test_bench_prints_one_object_with_the_promised_keys(tritwise, model_directory):
    child = tritwise("bench", model_directory, "--threads", 1, "--prefill", 32, "--decode", 8, "--repeats", 1, "--json")
    data = json.loads(child.stdout)
    assert {"decode_tokens_per_second", "prefill_tokens_per_second", "weight_bytes_per_token", "peak_rss_bytes",
            "load_seconds", "threads", "kernel"} <= set(data)
    assert (data["threads"], data["prefill_tokens"], data["decode_tokens"]) == (1, 32, 8)
    assert data["decode_tokens_per_second"] > 0
    text = tritwise("bench", model_directory, "--prefill", 32, "--decode", 8, "--repeats", 1).stdout
    assert "tokens/s" in text


def test_doctor_names_the_processor_the_kernel_and_the_versions(tritwise):
    data = json.loads(tritwise("doctor", "--json").stdout)
    assert data["kernel"] == data["kernels"][0]
    assert data["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    text = tritwise("doctor").stdout
    for expected in (data["processor"], data["kernel"], "GB/s", data["versions"]["numpy"]):
        assert expected in text


def test_a_pipe_gets_plain_text(tritwise, model_directory):
    for arguments in (("inspect", model_directory), ("doctor",), ("--help",), ()):
        assert "\x1b" not in tritwise(*arguments).stdout


def terminal(arguments, **environment):
    """What a command writes to a terminal of 100 columns."""
    leader, follower = pty.openpty()
    child = subprocess.Popen([sys.executable, "-m", "tritwise.cli.app", *map(str, arguments)], stdout=follower,
                             env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment)
    os.close(follower)
    chunks = []
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # Linux reports the end of a terminal so
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(leader)
    assert child.wait(timeout=60) == 0
    return b"".join(chunks).decode()


def test_a_terminal_gets_a_table_and_no_colour_is_honoured(model_directory):
    assert "───" in terminal(["inspect", model_directory])
    colours = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert not colours.search(terminal(["inspect", model_directory], NO_COLOR="1"))
    assert not colours.search(terminal(["--help"], NO_COLOR="1"))


def test_plain_tables_align_numbers_to_the_right(capsys):
    print_table(["name", "size", "note"], [["a", "1.5 MB", "x"], ["longer", "12 kB", "[red]y"], ["c", "-", ""]],
                title="sizes")
    assert capsys.readouterr().out.splitlines() == [
        "sizes", "name      size  note", "a       1.5 MB  x", "longer   12 kB  [red]y", "c            -"]


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"),
                                             (213_000, "213 kB"), (999_600, "1.0 MB"), (57_700_000, "57.7 MB"),
                                             (25.3e9, "25.3 GB"), (5e15, "5000 TB")])
def test_byte_counts_have_three_digits(count, text):
    assert format_bytes(count) == text
