"""`tritwise try`: the show, the user's own texts and files, and mistakes. Nothing here asks for good code."""

import json
import os
import pty
import resource
import socket
import subprocess
import sys

import pytest

from tritwise import load
from tritwise.bundled import EXAMPLES, Example, fit_gap, limits, model_path, read_facts, write
from tritwise.cli import app

PROMPT, SUFFIX = "def add(a, b):\n    c =", "\n    return c\n"


@pytest.fixture(scope="module")
def model():
    with load(model_path(), slots=1) as opened:
        yield opened


def run(capsys, *arguments):
    status = app.main(["try", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_show_has_every_example_with_what_the_model_wrote_and_says_what_it_cannot_do(capsys, model):
    status, out, _ = run(capsys)
    assert status == 0
    for example in EXAMPLES:
        written = write(model, example)
        assert f"--- {example.title}\n{example.prompt}[[{written.text}]]" in out
    facts = read_facts()
    assert " ".join(limits(facts).split()) in " ".join(out.split())
    assert "The examples are fixed" in out
    for line in ("speed", "load", "memory", "size on disk", "bits a byte", "trained on"):
        assert f"\n  {line} " in out
    assert f"{facts.held_out.bits_per_byte:.3f} on" in out
    assert ("unfinished" in out) == (facts.training.step < facts.training.steps)
    assert "tritwise try --prompt" in out


def test_the_show_as_json_has_the_facts_and_every_text(capsys, model):
    data = json.loads(run(capsys, "--json", "--threads", 1)[1])
    assert data["facts"] == read_facts().model_dump(mode="json")
    assert data["bytes"] == read_facts().bytes
    assert [each["text"] for each in data["examples"]] == [write(model, example).text for example in EXAMPLES]
    assert (data["threads"], data["load_seconds"] > 0, data["peak_rss_bytes"] > 1e6) == (1, True, True)


def test_a_prompt_is_continued_and_a_gap_filled_as_generate_does(capsys, tritwise):
    for texts in (("--prompt", PROMPT), ("--prompt", PROMPT, "--suffix", SUFFIX)):
        status, out, err = run(capsys, *texts, "--max-tokens", 20)
        child = tritwise("generate", model_path(), *texts, "--max-tokens", 20, "--heal")
        assert (status, out) == (0, child.stdout)
        assert "tokens (" in err


def test_sampling_settings_are_those_of_generate(capsys, model):
    settings = {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.1,
                "frequency_penalty": 0.1, "presence_penalty": 0.1, "seed": 7}
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    text = run(capsys, "--prompt", PROMPT, "--suffix", SUFFIX, *flags, "--stop", "zzz", "--stop", "yyy")[1]
    assert text == model.infill(PROMPT, SUFFIX, max_tokens=64, heal=True, stop=("zzz", "yyy"), **settings).text + "\n"
    shown = json.loads(run(capsys, "--json", *flags)[1])
    assert [each["text"] for each in shown["examples"]] == [write(model, e, **settings).text for e in EXAMPLES]


def test_a_file_is_filled_in_at_the_end_of_a_line_with_what_fits_around_it(capsys, model, tmp_path):
    lines = [f"value_{number} = compute(value_{number - 1})" for number in range(1, 401)]
    (tmp_path / "code.py").write_text("\n".join(lines) + "\n")
    data = json.loads(run(capsys, "--file", tmp_path / "code.py", "--line", 200, "--json", "--max-tokens", 30)[1])
    before, behind = "\n".join(lines[:200]), "\n" + "\n".join(lines[200:]) + "\n"
    kept = fit_gap(model.codec, before, behind, model.context - 30)
    assert (data["prompt"], data["suffix"]) == kept
    assert data["left_out"] == len(before) + len(behind) - len(kept[0]) - len(kept[1]) > 0
    assert data["text"] == model.infill(*kept, max_tokens=30, heal=True).text
    assert data["prompt_tokens"] + 30 <= model.context
    _, out, err = run(capsys, "--file", tmp_path / "code.py", "--line", 200, "--max-tokens", 30)
    assert out == data["text"] + "\n"
    assert f"{data['left_out']:,} characters further away did not fit the 512 tokens" in err


def test_the_end_of_a_file_is_continued_for_nothing_stands_behind_it(capsys, model, tmp_path):
    (tmp_path / "code.py").write_text(PROMPT + "\n\n")
    data = json.loads(run(capsys, "--file", tmp_path / "code.py", "--line", 2, "--json")[1])
    assert (data["prompt"], data["suffix"]) == (PROMPT, None)
    assert data["text"] == model.generate(PROMPT, max_tokens=64, heal=True).text


def test_a_prompt_that_is_too_long_keeps_its_end(capsys, model):
    data = json.loads(run(capsys, "--prompt", "x = 1\n" * 1000 + "y =", "--json")[1])
    assert data["prompt"].endswith("x = 1\ny =")
    assert data["left_out"] > 2000
    assert write(model, Example("", data["prompt"], None, 64)).text == data["text"]


def test_a_prompt_may_be_standard_input(tritwise, model):
    child = tritwise("try", "--prompt", "-", "--max-tokens", 8, stdin=PROMPT)
    assert child.stdout == model.generate(PROMPT, max_tokens=8, heal=True).text + "\n"


def test_the_path_is_a_model_for_every_other_command(tritwise):
    path = tritwise("try", "--path").stdout.strip()
    child = tritwise("generate", path, "--prompt", PROMPT, "--max-tokens", 4)
    assert (child.returncode, path) == (0, str(model_path()))


@pytest.mark.parametrize(("arguments", "said"), [
    (("--suffix", "x"), "--suffix needs --prompt"), (("--file", "x.py"), "--file and --line belong together"),
    (("--line", "3"), "--file and --line belong together"), (("--max-tokens", "3"), "--max-tokens needs"),
    (("--file", "x.py", "--line", "1", "--prompt", "a"), "--file needs neither"), (("--path", "--json"), "goes alone"),
    (("--path", "--prompt", "x"), "goes alone"),
    (("--file", "no/such.py", "--line", "1"), "no/such.py does not exist"),
    (("--prompt", "x", "--max-tokens", "0"), "max_tokens is 0"), (("--prompt", "x", "--max-tokens", "512"), "no room"),
    (("--prompt", "x", "--kernel", "none"), "none"), (("--temperature", "-1"), "temperature"),
])
def test_mistakes_end_with_what_happened(capsys, arguments, said):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (1, "")
    assert said in err


def test_what_is_no_text_and_lines_that_are_not_there_are_refused(capsys, tmp_path):
    for content, line, said in ((b"\xff\xfe\x00", 1, "is not readable as a text to fill in"),
                                (b"a\0b\n", 1, "it has zero bytes"), (b"a\nb\n", 4, "the lines 1 to 3"),
                                (b"a", 0, "there is no line 0")):
        (tmp_path / "x").write_bytes(content)
        status, out, err = run(capsys, "--file", tmp_path / "x", "--line", line)
        assert (status, out, said in err) == (1, "", True)
    assert run(capsys, "--file", tmp_path, "--line", 1)[0] == 1


def test_on_a_terminal_what_the_model_wrote_has_a_colour_and_stands_in_its_text(model, tmp_path):
    (tmp_path / "code.py").write_text("# first\n" + "x = 1\n" * 40 + PROMPT + SUFFIX + "y = 1\n" * 40)
    reader, terminal = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLORTERM")}
    command = [sys.executable, "-m", "tritwise.cli.app", "try", "--file", tmp_path / "code.py", "--line", "43",
               "--max-tokens", "6"]
    child = subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, env=environment | {
        "TERM": "xterm-256color", "COLUMNS": "200"})
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(reader, 4096)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        shown += part
    child.stderr.close()
    assert child.wait(timeout=60) == 0
    os.close(reader)
    text = shown.decode()
    assert "\x1b[1;32m" in text
    assert "def add(a, b):" in text
    assert "return c" in text
    assert "first" not in text  # only the lines around the gap


def test_the_show_takes_less_than_three_seconds_of_processor_time(tritwise):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert tritwise("try", "--threads", 1).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


def test_no_network_is_asked_for_anything(capsys, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert run(capsys)[0] == 0
