"""Hugging Face directories that must not be believed: `DAMAGES` maps what is wrong to a function that does it.

    write_good(path)                                      # a small ternary model with its tokenizer
    DAMAGES["config.json is a pipe"](path)
"""

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from corpus.gguf_models import vocabulary
from tritwise.config import ModelConfig
from tritwise.formats import write_model

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX = "model.safetensors.index.json"
Q, SCALE, NORM = (f"model.layers.0.{name}" for name in
                  ("self_attn.q_proj.weight", "self_attn.q_proj.weight_scale", "input_layernorm.weight"))
Damage = tuple[str, Callable[[Path], object]]
DEEP = "[" * 100_000 + "]" * 100_000
LONG_NUMBER = "1" * 5000


def tokenizer() -> dict[str, Any]:
    """The content of a tokenizer.json: 256 bytes, one merge, two control tokens."""
    tokens = vocabulary()
    return {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
            "added_tokens": [{"id": number, "content": tokens[number], "single_word": False, "lstrip": False,
                              "rstrip": False, "normalized": False, "special": True} for number in (257, 258)],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {token: number for number, token in enumerate(tokens[:257])}, "merges": [["a", "b"]]}}


def write_good(path: Path, **changes: Any) -> Path:
    """A ternary model of one block as the writer writes it, with a tokenizer beside it."""
    config = ModelConfig(**({"vocab_size": 259, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1,
                             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
                             "eos_token_id": 257} | changes))
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(scale=0.1, size=shape).astype(np.float32)
               for name, shape in config.tensor_shapes().items()}
    write_model(path, config, tensors, form="packed", linear_class="autobitlinear", dtype="float32")
    (path / TOKENIZER).write_text(json.dumps(tokenizer()))
    return path


def _set(name: str, content: str | bytes, path: Path) -> None:
    (path / name).write_bytes(content.encode() if isinstance(content, str) else content)


def _link(name: str, target: str, path: Path) -> None:
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(target)


def _pipe(name: str, path: Path) -> None:
    (path / name).unlink()
    os.mkfifo(path / name)


def _folder(name: str, path: Path) -> None:
    (path / name).unlink()
    (path / name).mkdir()


def _long(name: str, size: int, path: Path) -> None:
    """JSON with one text of so many signs."""
    with (path / name).open("wb") as file:
        file.write(b'{"a": "')
        for _ in range(size >> 20):
            file.write(b"x" * (1 << 20))
        file.write(b'"}')


def _files() -> Iterator[Damage]:
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        yield f"{name} is a link to itself", partial(_link, name, name)
        yield f"{name} is a link to /dev/zero", partial(_link, name, "/dev/zero")
        yield f"{name} is a link to a folder", partial(_link, name, "/")
        yield f"{name} is a link to nothing", partial(_link, name, "nothing")
        yield f"{name} is a pipe", partial(_pipe, name)
        yield f"{name} is a folder", partial(_folder, name)
        yield f"{name} is empty", partial(_set, name, b"")
        yield f"{name} of zeros", partial(_set, name, bytes(100))
        yield f"{name} with a text of 100 MB", partial(_long, name, 100 << 20)
    for name in (CONFIG, TOKENIZER):
        yield f"{name} begins with a byte order mark", lambda path, name=name: _set(
            name, b"\xef\xbb\xbf" + (path / name).read_bytes(), path)
        yield f"{name} in UTF-16", lambda path, name=name: _set(
            name, (path / name).read_text().encode("utf-16"), path)
        yield f"{name} that is not UTF-8", lambda path, name=name: _set(
            name, (path / name).read_bytes().replace(b'"', b'"\xff', 1), path)
        yield f"{name} cut in half", lambda path, name=name: _set(
            name, (path / name).read_bytes()[:(path / name).stat().st_size // 2], path)
        for content, what in ((DEEP, "lists 100000 deep"), ('{"a":' * 100_000 + "1" + "}" * 100_000,
                                                            "objects 100000 deep"),
                              ("null", "null"), ("[]", "a list"), ('"x"', "a text"), (LONG_NUMBER, "a long number"),
                              ("NaN", "NaN"), ("{}", "no keys"), ("[" + "[]," * (1 << 18) + "[]]", "262144 lists")):
            yield f"{name}: {what}", partial(_set, name, content)


def edit(path: Path, keys: str, text: str) -> None:
    """Set a value of config.json to what `text` says, valid JSON or not; `keys` are joined by dots."""
    values = json.loads((path / CONFIG).read_text())
    *outer, last = keys.split(".")
    inside = values
    for key in outer:
        inside = inside.setdefault(key, {})
    inside[last] = "@VALUE@"
    (path / CONFIG).write_text(json.dumps(values).replace('"@VALUE@"', text))


def _config() -> Iterator[Damage]:
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "head_dim", "vocab_size", "max_position_embeddings")
    for key in sizes:
        for text in ("0", "-1", "1.5", "true", '"16"', "[16]", "{}", str(2**31), str(2**63), "1" + "0" * 400, "NaN",
                     "Infinity", LONG_NUMBER, "1e400"):
            yield f"{key} {text[:12]}", partial(edit, keys=key, text=text)
    for key in ("rms_norm_eps", "rope_theta", "initializer_range"):
        for text in ("NaN", "Infinity", "-Infinity", "-1", "1e400", "1e-400", "1e300", "1e-300", '"x"', "[]", "{}"):
            if (key, text) not in (("initializer_range", "1e-400"), ("initializer_range", "[]"),
                                   ("initializer_range", "{}")):  # which are as good as none
                yield f"{key} {text}", partial(edit, keys=key, text=text)
    for key, texts in {
        "model_type": ('"gpt2"', "null", "[]", "{}", "3", '"bitnet\\u0000"', '"\\u001b[2J"'),
        "linear_type": ('"binary"', '"fp4"', "[]", "{}", "true"),
        "hidden_act": ('"gelu"', "[]", "{}", "0"),
        "eos_token_id": ('"x"', "{}", "[[]]", "1.5", '["x"]', LONG_NUMBER),
        "bos_token_id": ('"x"', "[]", "{}", "NaN"),
        "tie_word_embeddings": ("true", "7", '"x"', "[]", "{}"),
        "attention_bias": ("true", "[]", "NaN", '"false"'),
        "num_experts": ("1", "-1", "[]", '"8"', str(2**31)),
        "rope_scaling": ("3", '"yarn"', "[1]", '{"rope_type": 3}', '{"rope_type": ["yarn"]}', '{"rope_type": {}}',
                         '{"rope_type": "yarn", "factor": NaN}', '{"rope_type": "yarn", "factor": 1e308}',
                         '{"rope_type": "yarn", "factor": 0}', '{"rope_type": "yarn", "factor": "2x"}',
                         '{"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 0}',
                         '{"rope_type": "yarn", "original_max_position_embeddings": -1}',
                         '{"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 1e3}',
                         f'{{"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": {10**400}}}',
                         '{"rope_type": "yarn", "factor": 2, "mscale": NaN}',
                         '{"rope_type": "yarn", "factor": 2, "mscale_all_dim": Infinity}',
                         '{"rope_type": "yarn", "factor": 2, "mscale": 1, "mscale_all_dim": -14.426950408889634}',
                         '{"rope_type": "yarn", "factor": 2, "mscale": 1e308, "mscale_all_dim": 1}',
                         '{"rope_type": "yarn", "factor": 2, "beta_fast": 1e308}',
                         '{"rope_type": "yarn", "factor": 2, "beta_slow": 64}',
                         '{"rope_type": "llama3", "factor": 2}',
                         '{"rope_type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 1}',
                         '{"rope_type": "linear", "factor": 1e39}', '{"rope_type": "linear"}',
                         '{"rope_type": "linear", "factor": 2, "x\\u001b[2J": 1}'),
        "rope_parameters": ('"x"', '{"rope_type": "default", "factor": 2}', '{"rope_theta": "x"}',
                            '{"rope_theta": []}', '{"partial_rotary_factor": []}'),
        "quantization_config": ('"x"', "3", "true", "[1]", '{"quant_method": "gptq"}', '{"quant_method": []}',
                                '{"quant_method": "bitnet", "linear_class": {}}',
                                '{"quant_method": "bitnet", "quantization_mode": "Online"}',
                                '{"quant_method": "bitnet", "modules_to_not_convert": "lm_head"}',
                                '{"quant_method": "bitnet", "modules_to_not_convert": [3]}',
                                '{"quant_method": "bitnet", "modules_to_not_convert": ["model.layers.0\\u001b[2J"]}',
                                '{"quant_method": "bitnet", "use_rms_norm": 1e400}',
                                '{"quant_method": "bitnet", "use_rms_norm": true}',
                                '{"quant_method": "bitnet", "use_rms_norm": true, "rms_norm_eps": null}',
                                '{"quant_method": "bitnet", "use_rms_norm": true, "rms_norm_eps": -1e-6}',
                                '{"quant_method": "bitnet", "use_rms_norm": true, "rms_norm_eps": 1e400}',
                                '{"quant_method": "bitnet", "use_rms_norm": true, "rms_norm_eps": "x"}',
                                '{"quant_method": "bitnet", "extra": 1}'),
        "layer_types": ('["sliding_attention"]', '"x"'),
        "sliding_window": ("16",), "a\u001b[2J\nkey": ("1",), "x" * 100_000: ("1",),
    }.items():
        for text in texts:
            yield f"{key[:20]!r} {text[:90]}", partial(edit, keys=key, text=text)
    for key in ("hidden_size", "model_type", "quantization_config"):
        yield f"{CONFIG} names {key} twice", lambda path, key=key: _set(
            CONFIG, (path / CONFIG).read_text().replace("{", f'{{"{key}": 1, ', 1), path)
    for text in ('{"a": NaN}', LONG_NUMBER, DEEP[:90_000]):
        yield f"an unknown key {text[:10]}", partial(edit, keys="unknown", text=text)


def parts_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of the directory's safetensors file."""
    content = (path / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8:8 + length]), content[8 + length:]


def join(header: bytes | str | dict[str, Any], data: bytes, length: int | None = None) -> bytes:
    """A safetensors file, whatever its header says."""
    if isinstance(header, dict):
        header = json.dumps(header)
    raw = header.encode() if isinstance(header, str) else header
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def _header(change: Callable[[dict[str, Any], bytes], bytes], path: Path) -> None:
    (path / WEIGHTS).write_bytes(change(*parts_of(path)))


def _entry(name: str, text: str, path: Path) -> None:
    """The header with other words for one tensor."""
    header, data = parts_of(path)
    header[name] = "@ENTRY@"
    (path / WEIGHTS).write_bytes(join(json.dumps(header).replace('"@ENTRY@"', text), data))


def _weights() -> Iterator[Damage]:
    def case(name: str, change: Callable[[dict[str, Any], bytes], bytes]) -> Damage:
        return f"{WEIGHTS}: {name}", partial(_header, change)

    for length in (0, 1, 7, 2**20, 2**24 + 1, 100_000_001, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1):
        yield case(f"a header of {length}", lambda h, d, length=length: join(h, d, length))
    yield case("a header of 17 MB", lambda h, d: join(json.dumps(h) + " " * (17 << 20), d))
    for text in ("", "[]", "null", "3", '"x"', "{", DEEP, '{"a":' * 300 + "1" + "}" * 300, "{}", " {}", "\xff", "NaN",
                 '{"__metadata__": []}', '{"__metadata__": {"a": 1}}', '{"__metadata__": {"a": {}}}', "{}}"):
        yield case(f"the header {text[:30]!r}", lambda _, d, text=text: join(text.encode("latin-1"), d))
    yield case("no data", lambda h, _: join(h, b""))
    yield case("a byte too few", lambda h, d: join(h, d[:-1]))
    yield case("a byte too many", lambda h, d: join(h, d + b"\0"))
    for entry in ('{"dtype":"F32","shape":[16]}', '{"dtype":"F32","data_offsets":[0,64]}',
                  '{"shape":[16],"data_offsets":[0,64]}', "[]", "null", "3", '"F32"', "{}",
                  '{"dtype":"F99","shape":[16],"data_offsets":[0,64]}',
                  '{"dtype":"f32","shape":[16],"data_offsets":[0,64]}',
                  '{"dtype":3,"shape":[16],"data_offsets":[0,64]}', '{"dtype":[],"shape":[16],"data_offsets":[0,64]}',
                  '{"dtype":"F32","shape":16,"data_offsets":[0,64]}',
                  '{"dtype":"F32","shape":[-16],"data_offsets":[0,64]}',
                  '{"dtype":"F32","shape":[16.0],"data_offsets":[0,64]}',
                  '{"dtype":"F32","shape":["16"],"data_offsets":[0,64]}',
                  '{"dtype":"F32","shape":[null],"data_offsets":[0,64]}',
                  f'{{"dtype":"F32","shape":[{2**64}],"data_offsets":[0,64]}}',
                  f'{{"dtype":"F32","shape":[{2**62 + 16}],"data_offsets":[0,64]}}',
                  f'{{"dtype":"F32","shape":[{2**32},{2**32},16],"data_offsets":[0,64]}}',
                  f'{{"dtype":"F32","shape":[{LONG_NUMBER}],"data_offsets":[0,64]}}',
                  '{"dtype":"F32","shape":' + DEEP[:600] + ',"data_offsets":[0,64]}',
                  '{"dtype":"F32","shape":[' + "1," * 100_000 + '16],"data_offsets":[0,64]}',
                  '{"dtype":"F32","shape":[16],"data_offsets":[64,0]}',
                  '{"dtype":"F32","shape":[16],"data_offsets":[0]}',
                  '{"dtype":"F32","shape":[16],"data_offsets":[0,64,128]}',
                  '{"dtype":"F32","shape":[16],"data_offsets":[-64,0]}',
                  f'{{"dtype":"F32","shape":[16],"data_offsets":[{2**64 - 64},{2**64}]}}',
                  f'{{"dtype":"F32","shape":[16],"data_offsets":[{2**64 - 64},0]}}',
                  '{"dtype":"F32","shape":[16],"data_offsets":[0,1e2]}',
                  '{"dtype":"F32","shape":[16],"data_offsets":"0,64"}',
                  '{"dtype":"F32","dtype":"F32","shape":[16],"data_offsets":[0,64]}'):
        yield f"{WEIGHTS}: a norm is {entry[:70]}", partial(_entry, NORM, entry)

    def moved(by: int, name: str = NORM):
        def change(header: dict[str, Any], data: bytes) -> bytes:
            header[name]["data_offsets"] = [offset + by for offset in header[name]["data_offsets"]]
            return join(header, data)
        return change

    def retyped(dtype: str, shape: list[int], name: str = NORM):
        def change(header: dict[str, Any], data: bytes) -> bytes:
            header[name] |= {"dtype": dtype, "shape": shape}
            return join(header, data)
        return change

    for by in (-4, 4, 64, 2**40):
        yield case(f"a norm lies {by} bytes from its place", moved(by))
    for dtype, shape in (("I32", [16]), ("U32", [16]), ("F64", [8]), ("I64", [8]), ("F16", [32]), ("BF16", [32]),
                         ("U8", [64]), ("BOOL", [64]), ("F8_E4M3", [64]), ("F8_E5M2", [64]), ("F4", [128]),
                         ("C64", [8]), ("F32", [4, 4]), ("F32", [16, 1]), ("F32", [1, 16])):
        yield case(f"a norm is {dtype} {shape}", retyped(dtype, shape))
    yield case("two norms share their bytes", lambda h, d: join(
        h | {NORM: h[NORM] | {"data_offsets": h["model.norm.weight"]["data_offsets"]}}, d))
    yield case("a tensor of no size more", lambda h, d: join(
        h | {"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, d))
    for name in ("", "a\x1b[2J", "a\nwhy: it is fine", "../a", "x" * 1_000_000, "\u202ea", "a\0"):
        yield case(f"a tensor more, named {name[:20]!r}", lambda h, d, name=name: join(
            h | {name: {"dtype": "U8", "shape": [1], "data_offsets": [len(d), len(d) + 1]}}, d + b"\0"))
    for name in (NORM, Q, SCALE):
        yield case(f"{name} is missing", lambda h, d, name=name: join(*_without(h, d, name)))
        yield case(f"{name} twice", lambda h, d, name=name: join(
            json.dumps(h)[:-1] + f', "{name}": {json.dumps(h[name])}}}', d))
    # Whoever looks for the name that comes twice must not compare every name with every other.
    yield case("the last of 20000 names twice", lambda h, d: join("{" + ",".join(
        f'"{n}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for n in [*range(20_000), 19_999]) + "}", b""))
    for value in (np.nan, np.inf, -np.inf, -1.0, 0.0):
        yield case(f"a scale of {value}", lambda h, d, value=value: join(h, _poked(h, d, SCALE, np.float32(value))))
    for value in (np.nan, np.inf):
        yield case(f"a norm of {value}", lambda h, d, value=value: join(h, _poked(h, d, NORM, np.float32(value))))
    yield case("a field 3", lambda h, d: join(h, _poked(h, d, Q, np.uint8(0xC0))))


def _without(header: dict[str, Any], data: bytes, name: str) -> tuple[dict[str, Any], bytes]:
    """Header and data without a tensor, the others moved up."""
    start, stop = header.pop(name)["data_offsets"]
    for entry in header.values():
        if "data_offsets" in entry and entry["data_offsets"][0] >= stop:
            entry["data_offsets"] = [offset - (stop - start) for offset in entry["data_offsets"]]
    return header, data[:start] + data[stop:]


def _poked(header: dict[str, Any], data: bytes, name: str, value: np.generic) -> bytes:
    start = header[name]["data_offsets"][0]
    return data[:start] + value.tobytes() + data[start + value.itemsize:]


def _index() -> Iterator[Damage]:
    def case(name: str, content: str | bytes | Callable[[dict[str, str]], Any]) -> Damage:
        def damage(path: Path) -> None:
            header, _ = parts_of(path)
            (path / WEIGHTS).rename(path / "a.safetensors")
            names = dict.fromkeys(sorted(set(header) - {"__metadata__"}), "a.safetensors")
            made = content(names) if callable(content) else content
            _set(INDEX, json.dumps(made) if isinstance(made, dict | list) else made, path)
        return f"{INDEX}: {name}", damage

    def at(shard: Any) -> Callable[[dict[str, str]], Any]:
        return lambda names: {"weight_map": names | {Q: shard}}

    for shard in ("../a.safetensors", "/etc/passwd", "/dev/zero", "..", ".", "", "./a.safetensors", "a.safetensors/",
                  "sub/../a.safetensors", "a.safetensors\0", "\0.safetensors", "\ud800.safetensors",
                  "x" * 300 + ".safetensors", "x" * 100_000 + ".safetensors", ".safetensors", "~/a.safetensors",
                  "file:///a.safetensors", "\x1b[2J.safetensors", "a.bin", None, 3, [], {}, True):
        shown = f"a name of {len(shard)}" if isinstance(shard, str) and len(shard) > 99 else repr(shard)
        yield case(f"a weight lies in {shown}", at(shard))
    for content, what in (("", "nothing"), ("[]", "a list"), ("{}", "no map"),
                          ('{"weight_map": null}', "a map of null"),
                          ('{"weight_map": {}}', "an empty map"), ('{"weight_map": [["a", "b"]]}', "a map of lists"),
                          (DEEP, "lists 100000 deep"), (b"\xff", "no UTF-8"), (LONG_NUMBER, "a long number"),
                          ('{"weight_map": {"a": "a.safetensors", "a": "a.safetensors"}}', "a name twice"),
                          ('{"weight_map": {"a": "a.safetensors"}, "weight_map": {}}', "two maps")):
        yield case(what, content)
    yield case("20000 names more", lambda names: {"weight_map": names | dict.fromkeys(
        map(str, range(20_000)), "a.safetensors")})
    yield case("20000 shards", lambda names: {"weight_map": {str(n): f"{n}.safetensors" for n in range(20_000)}})
    for what, make in (("a pipe", lambda path: os.mkfifo(path)), ("a folder", lambda path: path.mkdir()),
                       ("a link to itself", lambda path: path.symlink_to(path.name)),
                       ("a link to /dev/zero", lambda path: path.symlink_to("/dev/zero"))):
        def damage(path: Path, make: Callable[[Path], object] = make) -> None:
            make(path / "b.safetensors")
            case("", at("b.safetensors"))[1](path)
        yield f"{INDEX}: a shard is {what}", damage


def set_tokenizer(path: Path, keys: str, value: Any) -> None:
    """Set a value of tokenizer.json; `keys` are joined by dots."""
    values = json.loads((path / TOKENIZER).read_text())
    *outer, last = keys.split(".")
    inside = values
    for key in outer:
        inside = inside[key]
    inside[last] = value
    (path / TOKENIZER).write_text(json.dumps(values))


def _tokenizers() -> Iterator[Damage]:
    added = {"id": 259, "content": "<|x|>", "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
    for keys, values in {
        "model": (None, [], "BPE", {}, {"type": "Unknown"}, {"type": "BPE"}),
        "model.vocab": (None, [], {"a": -1}, {"a": 2**32}, {"a": 2**64}, {"a": 1.5}, {"a": "1"}, {"a": None}),
        "model.merges": (None, {}, ["a"], ["a b c"], [["a"]], [["a", "b", "c"]], [["a", "zz"]], [[1, 2]], [["", ""]],
                         ["x" * 1_000_000]),
        "model.dropout": (2.0, -1.0, "x"),
        "added_tokens": (3, {}, [3], [{}], [added | {"id": -1}], [added | {"id": 2**32}], [added | {"content": 3}]),
        "pre_tokenizer": (3, {}, {"type": "Nothing"}, {"type": "Split"},
                          {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}),
        "normalizer": (3, {}, {"type": "Precompiled", "precompiled_charsmap": "!"},
                       {"type": "Replace", "pattern": {"Regex": "["}, "content": ""}),
        "decoder": (3, {}, {"type": "Nothing"}), "post_processor": (3, {}, {"type": "Nothing"}),
        "truncation": (3, {"direction": "Up"}), "padding": (3, {"strategy": "x"}), "version": ("2.0", 3),
    }.items():
        for value in values:
            yield f"{TOKENIZER}: {keys} {json.dumps(value)[:60]}", partial(set_tokenizer, keys=keys, value=value)


def _named() -> dict[str, Callable[[Path], object]]:
    named: dict[str, Callable[[Path], object]] = {}
    for cases in (_files(), _config(), _weights(), _index(), _tokenizers()):
        for name, damage in cases:
            if name in named:
                raise ValueError(f"two directories are called {name!r}")
            named[name] = damage
    return named


DAMAGES = _named()
