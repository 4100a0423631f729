"""The whole stage: splits share nothing, shards hold the documents, equal inputs give equal bytes."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import asdict

import pytest
from small_library import build_here, copy_library, make_recipe

from tritwise.common.errors import TritwiseError
from tritwise.common.files import sha256_file
from tritwise.config.tokens import END_OF_TEXT, FIM_BEGIN, FIM_END, FIM_HOLE, SPECIAL_TOKENS
from tritwise.data import build, document_text, load_documents, load_tokenizer, open_shards, path_comment
from tritwise.data.corpus_steps import Corpus, Plan
from tritwise.data.fim import known_fim_ids, restore
from tritwise.data.flow import run_steps
from tritwise.data.token_steps import recipe_hash

IDS = {token: number for number, token in enumerate(SPECIAL_TOKENS)}


def parts_of(directory, split: str) -> list[list[str]]:
    """The text of every shard document: [text], or [prefix, middle, suffix] of one in FIM form."""
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    documents = []
    for shard, number in ((s, n) for s in open_shards(directory, split).shards for n in range(len(s.ends))):
        *ids, end = shard.document(number).tolist()
        assert end == IDS[END_OF_TEXT]
        specials = [i for i in ids if i < len(SPECIAL_TOKENS)]
        if specials:
            assert (ids[0], specials) == (IDS[FIM_BEGIN], [IDS[FIM_BEGIN], IDS[FIM_HOLE], IDS[FIM_END]])
            hole, fim_end = ids.index(IDS[FIM_HOLE]), ids.index(IDS[FIM_END])
            ids = [ids[1:hole], ids[fim_end + 1:], ids[hole + 1:fim_end]]  # prefix, middle, suffix
        else:
            ids = [ids]
        documents.append([tokenizer.decode(part, skip_special_tokens=False) for part in ids])
    return documents


def texts_of(directory, split: str) -> list[str]:
    """The text of every shard document, its FIM form undone."""
    return ["".join(parts) for parts in parts_of(directory, split)]


def test_splits_share_no_repository_and_no_text(built):
    directory, report, _ = built
    train, held_out = load_documents(directory, "train"), load_documents(directory, "held_out")
    assert train
    assert held_out
    assert not {d.repository for d in train} & {d.repository for d in held_out}
    assert not {d.text for d in train} & {d.text for d in held_out}
    assert {d.repository for d in held_out} == set(report.held_out_repositories)


def test_a_held_out_document_is_one_plain_shard_document(built):
    directory, report, _ = built
    assert texts_of(directory, "held_out") == [document_text(d) for d in load_documents(directory, "held_out")]
    assert report.held_out.fim_documents == 0


def test_the_training_shard_is_every_training_file_once_repository_by_repository(built):
    directory, report, _ = built
    stream = "".join(texts_of(directory, "train"))
    documents = load_documents(directory, "train")
    assert len(stream) == sum(len(document_text(d)) for d in documents)
    places = {d: stream.index(document_text(d)) for d in documents}
    in_stream = [d.repository for d in sorted(documents, key=places.__getitem__)]
    starts = [a for a, b in zip(in_stream, [None, *in_stream], strict=False) if a != b]
    assert len(starts) == len(set(starts)) == report.train.repositories
    assert starts != sorted(starts)
    for repository in starts:  # inside, files stand as they are ordered
        positions = [d.position for d in sorted(documents, key=places.__getitem__) if d.repository == repository]
        assert positions == sorted(positions)


def test_a_path_comment_is_never_cut(built):
    directory, _, _ = built
    comments = {path_comment(d) for d in load_documents(directory, "train")}
    openings = [parts[0].split("\n", 1)[0] + "\n" for parts in parts_of(directory, "train")]
    assert len([opening for opening in openings if opening in comments]) == len(comments)


def test_half_of_the_pieces_are_in_fim_form(built):
    directory, report, recipe = built
    pieces = sum(-(-len(document_text(d)) // recipe.data.fim.max_document_chars)
                 for d in load_documents(directory, "train"))  # at least so many, and few more
    assert abs(report.train.fim_documents - pieces / 2) < pieces / 20 + 5 * (pieces / 4) ** 0.5


def test_documents_in_both_fim_orders_are_restored_from_the_shard(library, tmp_path):
    recipe = make_recipe(sources={"paths": [str(library)]}, fim={"rate": 1, "spm_rate": 0.5})
    build_here(recipe, tmp_path / "out")
    shards = open_shards(tmp_path / "out", "train").shards
    tokenizer = load_tokenizer(tmp_path / "out" / "tokenizer.json")

    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=False)

    documents = [shard.document(number) for shard in shards for number in range(len(shard.ends))]
    spm = sum(ids[1] == IDS[FIM_HOLE] for ids in documents)
    assert abs(spm - len(documents) / 2) < 5 * (len(documents) / 4) ** 0.5
    stream = "".join(restore(ids, IDS[END_OF_TEXT], known_fim_ids(tokenizer), decode) for ids in documents)
    texts = [document_text(d) for d in load_documents(tmp_path / "out", "train")]
    assert len(stream) == sum(map(len, texts))
    assert all(text in stream for text in texts)


def test_shards_name_the_recipe_but_not_where_the_source_lies(built, library):
    directory, _, recipe = built
    assert {shard.recipe_hash for shard in open_shards(directory, "train").shards} == {recipe_hash(recipe)}
    assert recipe_hash(make_recipe(sources={"paths": ["elsewhere"]})) == recipe_hash(recipe)
    for other in (make_recipe(order="path"), make_recipe(fim={"spm_rate": 0.1}), recipe.model_copy(update={"seed": 1})):
        assert recipe_hash(other) != recipe_hash(recipe)


def test_the_report_counts_what_the_files_hold(built):
    directory, report, _ = built
    assert json.loads((directory / "report.json").read_text()) == json.loads(json.dumps(asdict(report)))
    rows = load_documents(directory, split=None)
    for split in ("train", "held_out"):
        counts, stream = getattr(report, split), open_shards(directory, split)
        documents = [d for d in rows if d.split == split]
        assert (counts.files, counts.tokens, counts.documents) == (
            len(documents), len(stream.ids), sum(shard.ends.size for shard in stream.shards))
        assert counts.bytes == sum(len(d.text.encode()) for d in documents)
        assert stream.tokenizer_hash == report.tokenizer_hash == report.hashes["tokenizer.json"]
    assert report.hashes == {path.relative_to(directory).as_posix(): sha256_file(path)
                             for path in directory.rglob("*") if path.is_file() and path.name != "report.json"}
    dropped = [d for d in rows if d.dropped_by]
    kept = report.train.files + report.held_out.files
    assert sum(rule["files"] for rule in report.rules) == len(dropped) == report.funnel[0]["files"] - kept
    assert {d.dropped_by for d in dropped} == {rule["rule"] for rule in report.rules}
    assert all(rule["stage"] != "other" for rule in report.rules)
    assert report.funnel[0]["files"] == len(rows) == sum(each["before"][0] for each in report.languages)
    assert all(d.text == "" and d.split is None and d.position is None for d in dropped)


def test_equal_inputs_give_equal_bytes_whatever_the_hash_seed_threads_or_directory_order(built, library, tmp_path):
    _, report, recipe = built
    again = tmp_path / "again"
    for home in sorted(library.iterdir(), reverse=True):  # another order of creation, another inode order
        shutil.copytree(home, again / home.name)
    again_recipe = recipe.model_copy(update={"data": recipe.data.model_copy(
        update={"sources": recipe.data.sources.model_copy(update={"paths": (str(again),)})})})
    script = ("import sys; from pathlib import Path; from tritwise.config import Recipe; "
              "from functools import partial; from tritwise.data import build; "
              "from tritwise.data.flow import run_steps; run = partial(run_steps, workers=1); "
              "build(Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]), run=run)")
    environment = os.environ | {"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script, again_recipe.model_dump_json(), str(tmp_path / "out")],
                   env=environment, check=True, capture_output=True)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["hashes"] == report.hashes


def test_every_drop_has_its_rule(tmp_path):
    root = tmp_path / "repositories"
    good = "".join(f"def function_{i}(value):\n    return value + {i}\n" for i in range(300))
    contents = {
        "a/good.py": good.encode(), "b/twin.py": good.encode(), "b/good.py": good.replace("value", "other").encode(),
        "b/tiny.py": b"x\n", "b/huge.py": b"# word\n" * 10_000, "b/wide.py": b"x = 1 # " + b"word " * 300 + b"\n",
        "b/table.py": b"x = [" + b"1, 2, 3, 4,\n" * 100 + b"]\n", "b/latin.py": b"# \xe9t\xe9\n" + good.encode(),
        "b/broken.py": b"def broken(:\n" + good.encode(), "b/long.py": (b"# " + b"word " * 30 + b"\n") * 9,
        "b/page.py": b"# <?xml version='1.0'?>\n" + good.encode(),
    }
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "b" / "new\nline.py").write_bytes(good.encode())
    recipe = make_recipe(sources={"paths": [str(root)], "max_bytes": 60_000},
                         dedup={"repositories": False, "files": False})
    recipe = recipe.model_copy(update={"tokenizer": recipe.tokenizer.model_copy(update={"vocab_size": 300})})
    report = build_here(recipe, tmp_path / "out")
    samples = {rule["rule"]: sorted(f"{sample['repository']}: {sample['path']}" for sample in rule["samples"])
               for rule in report.rules}
    assert samples == {
        "path": ["b: new\\nline.py"], "too_large": ["b: huge.py"], "undecodable": ["b: latin.py"],
        "min_bytes": ["b: tiny.py"], "xml": ["b: page.py"], "max_line_length": ["b: wide.py"],
        "mean_line_length": ["b: long.py"], "alphabetic_fraction": ["b: table.py"],
        "duplicate": ["b: twin.py"], "syntax": ["b: broken.py"]}
    assert {rule["rule"]: rule["files"] for rule in report.rules} == dict.fromkeys(samples, 1)
    assert [rule["stage"] for rule in report.rules] == sorted(
        (rule["stage"] for rule in report.rules), key=[row["name"] for row in report.funnel].index)
    (broken,) = (rule["samples"][0] for rule in report.rules if rule["rule"] == "syntax")
    assert broken["text"].startswith("def broken(:")
    assert report.train.files == report.held_out.files == 1


def test_dependencies_come_first_or_paths_do(built, library, tmp_path):
    directory, _, _ = built
    rows = {d.path: d.position for d in load_documents(directory, split=None)}
    assert rows["json/decoder.py"] < rows["json/__init__.py"]
    build_here(make_recipe(sources={"paths": [str(library)]}, order="path"), tmp_path / "out")
    rows = {d.path: d.position for d in load_documents(tmp_path / "out", split=None)}
    assert rows["json/decoder.py"] > rows["json/__init__.py"]


def test_a_random_order_is_seeded_and_shuffles_the_same_files_within_their_repositories(library, tmp_path):
    def built_with(order, seed=0):
        recipe = make_recipe(sources={"paths": [str(library)]}, order=order).model_copy(update={"seed": seed})
        out = tmp_path / f"{order}-{seed}-{len(list(tmp_path.iterdir()))}"
        build_here(recipe, out)
        return [d for d in load_documents(out, split=None) if d.is_kept]

    by_path, shuffled, again = built_with("path"), built_with("random"), built_with("random")
    assert shuffled == again
    assert [d.repository for d in shuffled] == [d.repository for d in by_path]
    assert {(d.path, d.split) for d in shuffled} == {(d.path, d.split) for d in by_path}
    email = [d.path for d in shuffled if d.repository == "email"]
    assert email != sorted(email)
    assert email != [d.path for d in built_with("random", seed=1) if d.repository == "email"]


def test_the_standard_library_is_built_from_where_the_interpreter_has_it(tmp_path, monkeypatch):
    home = copy_library(tmp_path / "lib")
    (home / "test").mkdir()
    shutil.copy(home / "argparse.py", home / "test" / "test_argparse.py")
    with (home / "test" / "test_argparse.py").open("a") as f:
        f.write("\n# not equal\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(home))
    report = build_here(make_recipe(sources={"python_stdlib": True}), tmp_path / "out")
    assert not any(name.startswith("test/") for name in report.held_out_repositories)
    decimal = [d.path for d in load_documents(tmp_path / "out", None) if d.repository == "decimal" and d.is_kept]
    assert decimal == ["_pydecimal.py", "decimal.py"]


def test_nothing_left_to_train_on_says_what_dropped_it(tmp_path):
    (tmp_path / "repositories" / "a").mkdir(parents=True)
    (tmp_path / "repositories" / "a" / "x.py").write_text("x\n")
    with pytest.raises(TritwiseError, match="min_bytes 1"):
        build_here(make_recipe(sources={"paths": [str(tmp_path / "repositories")]}), tmp_path / "out")


def test_paths_of_a_recipe_hold_in_other_working_directories(built, library, tmp_path, monkeypatch):
    """Tasks are carried to machines and processes that were started elsewhere."""
    directory, _, _ = built
    monkeypatch.chdir(directory)
    relative = make_recipe(sources={"paths": [os.path.relpath(library / "json")]}, held_out_fraction=0.0)
    relative = relative.model_validate(relative.model_dump() | {"tokenizer": {"file": "tokenizer.json"}})

    def elsewhere(work, steps):
        with monkeypatch.context() as moved:
            moved.chdir("/")
            run_steps(work, steps, workers=1)

    report = build(relative, tmp_path / "data", run=elsewhere)
    assert report.train.files > 0
    assert report.tokenizer_hash == sha256_file(directory / "tokenizer.json")


def test_another_quality_model_of_the_same_name_screens_again(library, tmp_path):
    model = tmp_path / "model.npz"
    recipe = make_recipe(sources={"folders": [str(library / "json")]},
                         screening={"quality_model": str(model), "check_syntax": False})

    def key(content: bytes) -> str:
        model.write_bytes(content)
        return Corpus(recipe, tmp_path / "out", Plan.of(recipe)).screen.key

    assert key(b"one") != key(b"other")
    assert key(b"one") == key(b"one")
    model.unlink()
    with pytest.raises(TritwiseError, match=r"model\.npz does not exist"):
        Corpus(recipe, tmp_path / "out", Plan.of(recipe))
