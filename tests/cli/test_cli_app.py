"""The entry point: the menu, help, start-up time, and what errors and interrupts become."""

import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tritwise as package
from tritwise import TritwiseError
from tritwise.cli import app
from tritwise.common.errors import Interrupted

VERBS = [name for name, _, _ in app.COMMANDS]
ROOT = Path(__file__).parents[2]


def test_the_menu_has_every_verb_with_one_example_in_at_most_15_lines(capsys):
    assert app.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 15
    for verb in VERBS:
        assert sum(f"tritwise {verb}" in line for line in lines) == 1


def test_the_verbs_are_those_of_the_package_and_the_readme():
    files = {path.stem for path in (ROOT / "src/tritwise/cli/commands").glob("*.py")} - {"__init__"}
    files = {stem.removesuffix("_") for stem in files}  # of a verb that is a word of Python
    assert files == set(VERBS)
    readme = (ROOT / "README.md").read_text()
    assert set(re.findall(r"^    tritwise (\w+)", readme, flags=re.MULTILINE)) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_fits_a_screen_and_explains_each_option(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert app.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: tritwise {verb}" in text
    assert len(text.splitlines()) <= 40
    # An option without an explanation would end right after its type.
    assert re.findall(r"│\s+(?:\* +)?--[a-z-]+(?: [A-Z]+)?\s+│", text) == []


def test_the_version_is_the_packages(tritwise):
    assert tritwise("--version").stdout == f"{package.__version__}\n"


def test_help_starts_within_300_milliseconds_of_processor_time(tritwise):
    def seconds(run):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "Usage" in run().stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def library():  # what prints the help, with nothing of ours
        return subprocess.run([sys.executable, "-c", "import cyclopts; cyclopts.App('x')(['--help'])"],
                              capture_output=True, text=True, check=False)

    # Processor time, because other programs may be running; the least of five, because the first one fills caches. On a
    # slow processor the library alone takes most of it.
    ours = min(seconds(lambda: tritwise("--help")) for _ in range(5))
    assert ours < 0.3 or ours < min(seconds(library) for _ in range(5)) + 0.1


def test_help_imports_nothing_heavy():
    child = subprocess.run([sys.executable, "-X", "importtime", "-m", "tritwise.cli.app", "--help"],
                           capture_output=True, text=True, check=True)
    imported = set(re.findall(r"\|\s+([\w.]+)$", child.stderr, flags=re.MULTILINE))
    assert "cyclopts" in imported
    assert imported.isdisjoint({"numpy", "pydantic", "torch", "tokenizers", "safetensors", "matplotlib", "pyarrow",
                                "tritwise.config", "tritwise.engine"})


def fail_with(monkeypatch, error):
    def build():
        def run(*_, **__):
            raise error
        return run

    monkeypatch.setattr(app, "build_app", build)


def test_a_users_mistake_is_a_message_and_status_1(monkeypatch, capsys):
    fail_with(monkeypatch, TritwiseError("it broke", why="rust", fix="oil it"))
    assert app.main(["run", "x"]) == 1
    assert capsys.readouterr().err == "tritwise: it broke\nwhy: rust\ntry: oil it\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("stopped at step 3", fix="the same command")])
def test_an_interrupt_is_status_130_without_a_traceback(monkeypatch, capsys, error):
    fail_with(monkeypatch, error)
    assert app.main(["run", "x"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_programming_error_keeps_its_traceback(monkeypatch):
    fail_with(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        app.main(["run", "x"])


@pytest.mark.parametrize(("arguments", "said"), [
    (("run", "no/such/path.toml"), "no/such/path.toml does not exist"),
    (("generate", "no/such/path", "--prompt", "x"), "no/such/path is not a model directory"),
    (("bench", "--shape", "9b"), "there is no shape '9b'"),
    (("bench", "x", "--dense"), "--dense needs --shape"),
    (("bench",), "there is no single model to measure"),
    (("train", "x.toml", "--variant", "ternary", "--data", "d"), "--data and --out belong together"),
    (("perplexity", "x", "no/such/path.txt"), "no/such/path.txt cannot be read"),
])
def test_mistakes_end_with_what_happened_and_status_1(tritwise, arguments, said):
    child = tritwise(*arguments)
    assert child.returncode == 1
    assert said in child.stderr
    assert "Traceback" not in child.stderr
    assert child.stdout == ""


@pytest.mark.parametrize(("arguments", "said"), [
    (("run", "x.toml", "--jsn"), "--json"), (("run",), "RECIPE"), (("fly",), "fly"),
    (("generate", "m", "--prompt", "x", "--max-tokens", "many"), "many"),
])
def test_a_wrong_command_line_is_explained_on_standard_error(tritwise, arguments, said):
    child = tritwise(*arguments)
    assert child.returncode == 2
    assert said in child.stderr
    assert "Traceback" not in child.stderr
    assert child.stdout == ""


def test_a_reader_that_stops_early_is_no_error(model_directory):
    child = subprocess.Popen([sys.executable, "-m", "tritwise.cli.app", "inspect", str(model_directory), "--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.close()
    assert b"Traceback" not in child.stderr.read()
    child.stderr.close()
    assert child.wait(timeout=60) == 0


def test_ctrl_c_ends_a_command_with_130(model_directory):
    command = [sys.executable, "-m", "tritwise.cli.app", "perplexity", str(model_directory), "-"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # It waits for text that does not come; once its own imports are done it sleeps in the read.
    while "pipe" not in Path(f"/proc/{child.pid}/wchan").read_text() and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    child.wait(timeout=60)
    stderr = child.stderr.read()
    for stream in (child.stdin, child.stdout, child.stderr):
        stream.close()
    assert child.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
