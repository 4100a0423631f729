"""Nothing that a model brings along is executed: the source cannot, and canaries beside models stay quiet."""

import ast
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus.directories import WEIGHTS, write_good
from corpus.gguf_layout import encode, text
from corpus.gguf_models import model

from tritwise import TritwiseError, load
from tritwise.cli.app import main
from tritwise.formats import open_model

SOURCE = Path(__file__).parents[1] / "src"
# Modules that run what they read, or that exist to run something.
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "imp", "runpy",
           "code", "codeop"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {("torch", "load"), ("torch.serialization", "load"), ("torch.jit", "load"), ("torch.hub", "load"),
           ("yaml", "load"), ("os", "system"), ("os", "popen"), ("importlib", "import_module"),
           ("builtins", "eval"), ("builtins", "exec"), ("pandas", "read_pickle")}
KEYWORDS = {"trust_remote_code": True, "allow_pickle": True, "weights_only": False, "shell": True}


def faults(source: str) -> Iterator[str]:
    """What in a Python source could run code that stands in a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in MODULES:
                yield f"from {node.module} import"
            yield from (f"from {node.module} import {alias.name}" for alias in node.names
                        if (node.module, alias.name) in METHODS)
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            yield node.id
        elif isinstance(node, ast.Attribute) and (ast.unparse(node.value), node.attr) in METHODS:
            yield ast.unparse(node)
        elif isinstance(node, ast.Call):
            yield from (f"{keyword.arg}={keyword.value.value}" for keyword in node.keywords
                        if keyword.arg in KEYWORDS and isinstance(keyword.value, ast.Constant)
                        and keyword.value.value is KEYWORDS[keyword.arg])


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_source_cannot_run_what_stands_in_a_file(path):
    assert list(faults(path.read_text())) == []


@pytest.mark.parametrize("source", [
    "import pickle", "import pickle as p", "from pickle import loads", "import dill.settings", "eval('1')", "exec(a)",
    "f = eval", "import torch\ntorch.load(a)", "from torch import load", "torch.load(a, weights_only=True)",
    "import yaml", "yaml.load(a)", "AutoModel.from_pretrained(a, trust_remote_code=True)",
    "np.load(a, allow_pickle=True)", "os.system(a)",
    "subprocess.run(a, shell=True)", "importlib.import_module(a)", "__import__(a)", "compile(a, b, c)",
])
def test_the_rule_sees_what_it_is_for(source):
    assert list(faults(source))


@pytest.mark.parametrize("source", ["model.eval()", "re.compile(a)", "load_file(a)", "json.load(a)", "torch.load_me",
                                    "f(trust_remote_code=False)", "'import pickle'"])
def test_the_rule_lets_other_things_be(source):
    assert not list(faults(source))


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "sang")


@pytest.fixture
def song(tmp_path):
    """The file that exists once foreign code has run."""
    return tmp_path / "song"


@pytest.fixture
def directory(tmp_path, song):
    """A model with every way to bring code along beside it."""
    path = write_good(tmp_path / "model")
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin", "optimizer.pkl", "scheduler.pt"):
        torch.save({"canary": Canary(song)}, path / name)
    (path / "model.ckpt").write_bytes(pickle.dumps(Canary(song)))
    code = f"open({str(song)!r}, 'w').write('sang')\nclass A: pass\n"
    for name in ("modeling_canary.py", "configuration_canary.py", "__init__.py", "conftest.py", "sitecustomize.py"):
        (path / name).write_text(code)
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.popen('touch " \
               f"{song}') }}}}"
    auto_map = {"AutoConfig": "configuration_canary.A", "AutoModelForCausalLM": "modeling_canary.A"}
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"auto_map": auto_map, "architectures": ["A"]}))
    (path / "tokenizer_config.json").write_text(json.dumps(
        {"auto_map": {"AutoTokenizer": ["modeling_canary.A", None]}, "tokenizer_class": "A",
         "chat_template": template}))
    (path / "chat_template.jinja").write_text(template)
    (path / "text.txt").write_text("def add(a, b):\n    return a + b\n")
    return path


def use(path: Path, text_file: Path) -> None:
    """Everything that opens a model, mistakes included."""
    try:
        opened = open_model(path)
        for name in opened.names():
            opened.read(name)
        with load(path) as loaded:
            loaded.generate("ab", max_tokens=2)
    except TritwiseError:
        pass
    for arguments in (["inspect", path], ["perplexity", path, text_file], ["generate", path, "--prompt", "ab",
                      "--max-tokens", "2"], ["bench", path, "--prefill", "4", "--decode", "2", "--repeats", "1"]):
        main([str(argument) for argument in arguments])


def test_the_canaries_are_alive(directory, song):
    with pytest.raises(pickle.UnpicklingError):  # torch's own guard
        torch.load(directory / "pytorch_model.bin")
    assert not song.exists()
    torch.load(directory / "pytorch_model.bin", weights_only=False)
    assert song.read_text() == "sang"
    song.unlink()
    pickle.loads((directory / "model.ckpt").read_bytes())
    assert song.exists()


def test_code_beside_a_model_is_not_run(directory, song, capsys):
    use(directory, directory / "text.txt")
    assert "perplexity a token" in capsys.readouterr().out
    assert not song.exists()


def test_pickles_in_the_place_of_weights_are_refused_and_not_opened(directory, song, capsys):
    text_file = directory / "text.txt"
    (directory / WEIGHTS).unlink()
    use(directory, text_file)
    assert "a pickle can run any code" in capsys.readouterr().err
    for name in (WEIGHTS, "tokenizer.json", "config.json"):
        (directory / name).write_bytes((directory / "model.ckpt").read_bytes())
        use(directory, text_file)
        use(directory / name, text_file)
    np.save(directory / "weights.npy", np.array([Canary(song)], dtype=object))
    (directory / "pytorch_model.bin").rename(directory / "model.gguf")
    for name in ("model.gguf", "model.ckpt", "model.pt", "weights.npy", "modeling_canary.py"):
        use(directory / name, text_file)
    assert not song.exists()


def test_a_template_in_a_gguf_file_is_not_run(directory, song):
    file = model().with_key(text("tokenizer.chat_template", (directory / "chat_template.jinja").read_text()))
    (directory / "model.gguf").write_bytes(encode(file))
    use(directory / "model.gguf", directory / "text.txt")
    assert not song.exists()
