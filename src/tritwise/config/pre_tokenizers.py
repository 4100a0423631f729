"""How a byte-level tokenizer cuts a text into pieces that merges never cross, by name, as steps of a tokenizer.json.

`code` is this project's. The others have the names that GGUF files have for them (`tokenizer.ggml.pre`), so a model
with one of those can be handed to llama.cpp and its relatives with its tokenizer. Names and patterns are llama.cpp's
(src/llama-vocab.cpp, `llm_tokenizer_bpe`), each as the structure of the tokenizer.json that its publisher has, where
the two say the same. A step cuts each piece of the one before.
"""

from typing import Any

# What each alternative is for:
#   an identifier with its underscores and digits, and the one sign before it (`.append`, `(self`, `_x1`)
#   the same with the space before it
#   up to three digits
#   a run of other signs
#   the end of a line with the blank lines after it and the next line's whole indentation: one token in most code
#   other white space, leaving the last space to the word behind it
# Bytes per token on held-out files of the Python 3.11 library at 8192 tokens: 3.78. GPT-2's pattern gives 3.43,
# cl100k's 3.67, line end and indentation as two pieces 3.51. Line ends that join the signs before them would give
# 3.98, cuts at white space only 4.21, but then a prompt that ends in `):` stops inside what is elsewhere one token.
CODE = "|".join((
    r"[^\s\p{L}\p{N}_]?[\p{L}_][\p{L}\p{M}_\p{N}]*",
    r" [\p{L}_][\p{L}\p{M}_\p{N}]*",
    r" ?\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}_]+",
    r"\s*\n[^\S\n]*",
    r"\s+(?!\S)",
    r"\s+",
))
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}|{_REST}"
_EAST_ASIAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
# The cased letters of deepseek-llm's pattern, which are those of Unicode 11 without Georgian's small ones. llama.cpp's
# copy of it has six of them as the characters that NFC makes of them.
_CASED = """
    41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C 38E-3A1
    3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A
    1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4
    1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128
    212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D
    A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F
    104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943"""


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _characters(ranges: str) -> str:
    return "[" + "".join("-".join(chr(int(end, 16)) for end in each.split("-")) for each in ranges.split()) + "]"


def _byte_level(words: bool) -> dict[str, Any]:
    """Bytes as characters; `words` cuts with the pattern of GPT-2, which the library has built in."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": words}


def _digits(single: bool) -> dict[str, Any]:
    return {"type": "Digits", "individual_digits": single}


_FORMS: dict[str, list[dict[str, Any]]] = {
    "llama-bpe": [_split(LLAMA3), _byte_level(False)], "gpt-2": [_byte_level(True)],
    "qwen2": [_split(_QWEN2), _byte_level(False)], "starcoder": [_digits(True), _byte_level(True)],
    "deepseek-coder": [_split("[\r\n]"), _split(r"\s?\p{L}+"), _split(r"\s?\p{P}+"), _split(_EAST_ASIAN),
                       _digits(True), _byte_level(False)],
    "deepseek-llm": [_split("[\r\n]"), _split(rf"\s?{_characters(_CASED)}+"),
                     _split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"), _split(r"\s+$"),
                     _split(_EAST_ASIAN), _split(r"\p{N}+"), _byte_level(False)],
    "falcon": [{"type": "Punctuation", "behavior": "Contiguous"}, _byte_level(True), _digits(False),
               _split("[0-9][0-9][0-9]")],
}
_SAME_AS = {
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "falcon-h1", "lfm2", "pixtral"), "llama-bpe"),
    **dict.fromkeys(("phi-2", "mpt", "olmo", "jais", "trillion"), "gpt-2"),
    **dict.fromkeys(("deepseek-r1-qwen", "megrez", "stablelm2"), "qwen2"),
    **dict.fromkeys(("refact", "smollm", "command-r", "codeshell", "exaone", "minerva-7b"), "starcoder"),
}
GGUF_STEPS = _FORMS | {name: _FORMS[other] for name, other in _SAME_AS.items()}
STEPS = {"code": [_split(CODE), _byte_level(False)]} | GGUF_STEPS
# A word that is a token is that token for llama.cpp with these, whatever the merges would make of it.
WHOLE_WORDS = frozenset(name for name, steps in GGUF_STEPS.items() if steps[0] == _split(LLAMA3))
# With these a text begins with the beginning-of-text token unless the file says otherwise.
BEGINS = WHOLE_WORDS


def pre_tokenizer(name: str) -> dict[str, Any]:
    """The `pre_tokenizer` of a tokenizer.json for one of `STEPS`."""
    steps = STEPS[name]
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}
