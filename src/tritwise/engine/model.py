"""The public model: open one, ask for logits, text, or the text between two others.

    with load("runs/quickstart/ternary") as model:
        for piece in model.stream("def add(a, b):", max_tokens=32):
            print(piece, end="", flush=True)
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.engine.backend import Backend, BackendInfo
from tritwise.engine.chat import Chat, Messages
from tritwise.engine.cpu import CpuBackend, release_unused_memory
from tritwise.engine.drafters import DraftModel, NgramSpeculation, check_same_tokens
from tritwise.engine.healing import Spelled, TokenTexts
from tritwise.engine.sampling import Constraint, Sampling
from tritwise.engine.scheduler import Scheduler
from tritwise.engine.sequence import Completion, Generation, Scoring
from tritwise.engine.sequence import Sequence as Work
from tritwise.engine.speculation import Speculation
from tritwise.engine.text import StopStrings, TextCodec, load_tokenizer
from tritwise.formats import ChatTemplate, FileTensor, ModelDirectory, TernaryTensor, chat_template, open_model


def _cuda_backend(config: ModelConfig, tensors: Iterable[Any], **settings: Any) -> Backend:
    try:
        from tritwise.engine.cuda import CudaBackend
    except ImportError as error:
        raise TritwiseError("backend=\"cuda\" needs PyTorch and Triton", why=str(error),
                            fix="pip install 'tritwise[gpu]', or use backend=\"cpu\"") from None
    return CudaBackend(config, tensors, **settings)


BACKENDS: dict[str, Callable[..., Backend]] = {"cpu": CpuBackend, "cuda": _cuda_backend}


def backend_named(name: str) -> Callable[..., Backend]:
    """What makes a backend of a configuration, tensors and settings. Raises TritwiseError for another name."""
    if name not in BACKENDS:
        raise TritwiseError(f"there is no backend {name!r}", why=f"available: {', '.join(BACKENDS)}")
    return BACKENDS[name]


SLOTS = 4
PREFILL_CHUNK = 256
AS_LOADED = "as loaded"

# Rows of logits that are turned into log-probabilities at once, in float64.
_ROWS_AT_ONCE = 32

Prompt = str | Iterable[int]


class Stream:
    """The pieces of a text as they come; a `for` over it drives the model.

    `completion` is the whole result once the stream has ended. `cancel` may be called from any thread; the stream then
    ends before the next step. Leaving a `with` block, `close` and deletion cancel what is not finished.
    """

    def __init__(self, model: "Model", generation: Generation) -> None:
        self._model, self._generation, self._shown = model, generation, 0

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> str:
        generation = self._generation
        while self._shown == len(generation.pieces) and not generation.finished:
            self._model._advance(generation)
        if self._shown < len(generation.pieces):
            self._shown += 1
            return generation.pieces[self._shown - 1]
        if generation.error is not None:
            raise generation.error
        raise StopIteration

    @property
    def completion(self) -> Completion:
        """The result; RuntimeError while the text is not finished."""
        if not self._generation.finished or self._generation.error is not None:
            raise RuntimeError("the text is not finished; read the stream to its end first")
        return self._generation.completion()

    def cancel(self) -> None:
        """End the text before the next step."""
        self._generation.cancel()

    close = cancel

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        self._generation.cancel()


class Model:
    """An opened model. Made by `load`.

    All methods may be called from several threads; what runs at the same time shares every forward pass (continuous
    batching over the slots) and gets exactly the tokens it would get alone. A prompt is a text, which is put behind the
    model's beginning-of-text id, or a list of token ids, which is taken as it is.
    """

    def __init__(self, config: ModelConfig, backend: Backend, *, tokenizer: Tokenizer | None,
                 chat_template: Callable[[], ChatTemplate | None] = lambda: None,
                 prefill_chunk: int = PREFILL_CHUNK, speculation: Speculation | None = None) -> None:
        if prefill_chunk < 1:
            raise TritwiseError(f"prefill_chunk is {prefill_chunk}", why="at least 1 is needed")
        self.config, self.tokenizer = config, tokenizer
        self._backend: Backend | None = backend
        self._scheduler = Scheduler(backend, prefill_chunk=prefill_chunk)
        self._speculation, self._ngrams = speculation, None
        self._codec = None if tokenizer is None else TextCodec(tokenizer, config)
        self._end_ids = frozenset(config.eos_token_ids) if self._codec is None else self._codec.end_ids
        self._chat_template = chat_template
        self._chat: Chat | None = None

    @property
    def backend(self) -> Backend:
        """What computes. Raises TritwiseError after `close`."""
        if self._backend is None:
            raise TritwiseError("this model is closed", fix="open it again with tritwise.load")
        return self._backend

    @property
    def info(self) -> BackendInfo:
        """Kernel, head, threads and bytes."""
        return self.backend.info

    @property
    def context(self) -> int:
        """How many tokens one sequence may have."""
        return self.backend.context

    @property
    def codec(self) -> TextCodec:
        """Text to ids. Raises TritwiseError when the model came without a tokenizer."""
        if self._codec is None:
            raise TritwiseError("this model has no tokenizer", why="its directory holds no tokenizer.json",
                                fix="pass token ids instead of text")
        return self._codec

    @property
    def chat_codec(self) -> Chat:
        """Messages to ids. Raises TritwiseError when the model came without a chat template or without a tokenizer."""
        if self._chat is None:
            template = self._chat_template()
            if template is None:
                raise TritwiseError("this model has no chat template", why="its files hold no chat_template.jinja, no "
                                    "chat_template in tokenizer_config.json, no tokenizer.chat_template in GGUF",
                                    fix="give a prompt instead of a chat")
            self._chat = Chat(template, self.codec)
        return self._chat

    def logits(self, ids: Iterable[int]) -> NDArray[np.float32]:
        """Logits float32 [T, vocab]: row t is the prediction for what follows ids[0..t]."""
        ids = self._checked(ids)
        result = np.empty((len(ids), self.config.vocab_size), dtype=np.float32)

        def receive(start: int, logits: NDArray[np.float32]) -> None:
            result[start:start + len(logits)] = logits

        self._scheduler.submit(work := Scoring(ids, 0, receive))
        self._scheduler.finish(work)
        return result

    def score(self, windows: Iterable[tuple[Iterable[int], int]]) -> Iterator[NDArray[np.float64]]:
        """For each window (ids, first): -ln p(ids[i] | ids[..i-1]) in nats for i = first, first + 1, ...

        `first` is at least 1. Yields float64 [len(ids) - first] in the order of the windows; several are in work at
        once. Softmax is computed in float64.
        """
        running: deque[tuple[Work, NDArray[np.float64]]] = deque()
        try:
            for ids, first in windows:
                running.append(self._submit_score(ids, first))
                if len(running) == 2 * self.backend.slots:
                    yield self._scored(*running.popleft())
            while running:
                yield self._scored(*running.popleft())
        finally:
            for work, _ in running:
                work.cancel()

    def generate(self, prompt: Prompt, *, max_tokens: int = 128, temperature: float = 0.0, top_k: int = 0,
                 top_p: float = 1.0, min_p: float = 0.0, seed: int = 0, repetition_penalty: float = 1.0,
                 frequency_penalty: float = 0.0, presence_penalty: float = 0.0,
                 logit_bias: Mapping[int, float] | None = None, logprobs: int | None = None,
                 constraint: Constraint | None = None, stop: str | Iterable[str] = (),
                 speculation: Speculation | str | None = AS_LOADED, heal: bool = False) -> Completion:
        """The continuation of `prompt`.

        It ends at the model's end of text, before any of the `stop` strings, after `max_tokens`, or when the context
        is full. `temperature` 0 is greedy; `Sampling` describes the settings that choose tokens. `logprobs`: with each
        token its log-probability and those of so many likeliest ones. `constraint`: what may come at each step.
        `speculation`: as the model was loaded when not given, None for none, "ngram", or a `Speculation`; never changes
        a token. `heal`: the prompt may end inside what the model knows as one token (`TokenTexts`); its last tokens
        are then written anew, and are among the completion's ids, not in its text.
        The same prompt, settings and seed give the same tokens on every kernel, thread count, batch and
        prefill chunk. Raises TritwiseError for settings out of range and for a prompt longer than the context.
        """
        return self.generate_batch(
            [prompt], max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed,
            repetition_penalty=repetition_penalty, frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty, logit_bias=logit_bias, logprobs=logprobs, constraint=constraint,
            stop=stop, speculation=speculation, heal=heal)[0]

    def generate_batch(self, prompts: Iterable[Prompt], *, stop: str | Iterable[str] = (),
                       heal: bool = False, **settings) -> list[Completion]:
        """`generate` for several prompts at once, with the same settings; results in the order of the prompts."""
        stop = stop if isinstance(stop, str) else tuple(stop)  # an iterator would serve the first prompt alone
        prompts = list(prompts)
        if len(prompts) > 1 and settings.get("constraint") is not None:
            raise TritwiseError("a constraint cannot serve a batch", why="it follows the tokens of one text",
                                fix="call stream for each prompt, with a constraint of its own")
        works = [self._generation(*self._request(prompt, heal), stop=stop, **settings) for prompt in prompts]
        for work in works:
            self._scheduler.submit(work)
        try:
            for work in works:
                self._scheduler.finish(work)
        finally:
            for work in works:
                work.cancel()
        return [work.completion() for work in works]

    def stream(self, prompt: Prompt, *, heal: bool = False, **settings) -> Stream:
        """`generate`, piece by piece: the joined pieces are the completion's text."""
        return self._stream(*self._request(prompt, heal), **settings)

    def render_chat(self, messages: Messages, *, add_generation_prompt: bool = True, **variables: Any) -> str:
        """The text that the model's chat template makes of `messages`, as transformers' `apply_chat_template` does.

        `messages`: dictionaries with `role` and `content`, or a text, which is one user's. `variables` are what the
        template knows besides: tools, documents, enable_thinking, ...
        Raises TritwiseError when there is no template, when it refuses the messages, and when it is not safe to run.
        """
        return self.chat_codec.render(messages, add_generation_prompt=add_generation_prompt, **variables)

    def chat(self, messages: Messages, *, variables: Mapping[str, Any] | None = None, **settings) -> Completion:
        """The answer to `messages`; settings as for `generate`, messages and `variables` as for `render_chat`.

        Control tokens come from the template alone: spelled out in a message they are text. The answer ends at the
        model's end of text or where the template ends a message of the assistant.
        """
        with self.stream_chat(messages, variables=variables, **settings) as stream:
            for _ in stream:
                pass
            return stream.completion

    def stream_chat(self, messages: Messages, *, variables: Mapping[str, Any] | None = None, **settings) -> Stream:
        """`chat`, piece by piece."""
        codec = self.chat_codec
        return self._stream(codec.ids(messages, **(variables or {})), end_ids=codec.end_ids, **settings)

    def infill(self, prefix: str, suffix: str, **settings) -> Completion:
        """The text between `prefix` and `suffix`; settings as for `generate`.

        `heal` matters more here: a gap begins wherever somebody writes.
        Raises TritwiseError when the tokenizer has no fill-in-the-middle tokens that we know.
        """
        with self.stream_infill(prefix, suffix, **settings) as stream:
            for _ in stream:
                pass
            return stream.completion

    def stream_infill(self, prefix: str, suffix: str, *, heal: bool = False, **settings) -> Stream:
        """`infill`, piece by piece."""
        if not heal:
            return self._stream(self.codec.infill(prefix, suffix), **settings)
        kept, spelled = self._token_texts.split(self.codec.encode(prefix), keep=0)
        return self._stream(self.codec.infill(kept, suffix), spelled, **settings)

    def close(self) -> None:
        """Give the memory back. What is still running on another thread ends with an error."""
        backend, self._backend = self._backend, None
        if backend is not None:
            self._scheduler.close()
            backend.close()
            if self._speculation is not None:
                self._speculation.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stream(self, ids: list[int], spelled: str | None = None, **settings) -> Stream:
        generation = self._generation(ids, spelled, **settings)
        self._scheduler.submit(generation)
        return Stream(self, generation)

    def _advance(self, work: Work) -> None:
        self._scheduler.advance(work)

    @cached_property
    def _token_texts(self) -> TokenTexts:
        return TokenTexts(self.codec.tokenizer, self.codec.control_ids)

    def _request(self, prompt: Prompt, heal: bool) -> tuple[list[int], str | None]:
        """A prompt's ids, and the text that the first tokens have to spell; None where the prompt is as it is."""
        ids = self.codec.document(prompt) if isinstance(prompt, str) else list(prompt)
        return self._token_texts.split(ids) if heal else (ids, None)

    def _generation(self, ids: list[int], spelled: str | None = None, *, max_tokens: int = 128,
                    stop: str | Iterable[str] = (), logprobs: int | None = None, constraint: Constraint | None = None,
                    logit_bias: Mapping[int, float] | None = None, speculation: Speculation | str | None = AS_LOADED,
                    end_ids: frozenset[int] | None = None, **sampling) -> Generation:
        if max_tokens < 1:
            raise TritwiseError(f"max_tokens is {max_tokens}", why="at least 1 is needed")
        vocab = self.config.vocab_size
        if logprobs is not None and not 0 <= logprobs <= vocab:
            raise TritwiseError(f"logprobs is {logprobs}", why=f"it counts tokens of a vocabulary of {vocab}")
        stops = StopStrings(stop)
        if stops and self.tokenizer is None:
            raise TritwiseError("stop strings need a tokenizer", why="this model's directory holds no tokenizer.json")
        how = Sampling(logit_bias=logit_bias or {}, **sampling)
        if how.logit_bias and how.logit_bias[-1][0] >= vocab:
            raise TritwiseError(f"logit_bias names token {how.logit_bias[-1][0]}",
                                why=f"the model has {vocab} tokens, ids from 0 on")
        behind: tuple[int, ...] = ()
        if spelled is not None and constraint is not None:
            raise TritwiseError("heal and a constraint do not go together",
                                why="each decides what the first tokens may be")
        if spelled:
            constraint, behind = Spelled(self._token_texts, spelled), (self._token_texts.anchor,)
        guess = self._speculation_for(speculation)
        return Generation(self._checked(ids), sampling=how, max_tokens=max_tokens,
                          end_ids=self._end_ids if end_ids is None else end_ids, context=self.context,
                          tokenizer=self.tokenizer, stops=stops, constraint=constraint, logprobs=logprobs,
                          open_speculator=None if guess is None else partial(guess.open, how),
                          finished=None if guess is None else guess.finished, behind=behind, hidden=len(spelled or ""))

    def _speculation_for(self, wanted: Speculation | str | None) -> Speculation | None:
        if wanted == AS_LOADED:
            return self._speculation
        if wanted == "ngram":
            if not isinstance(self._speculation, NgramSpeculation) and self._ngrams is None:
                self._ngrams = NgramSpeculation()
            return self._ngrams or self._speculation
        if wanted is None or isinstance(wanted, Speculation):
            return wanted
        raise TritwiseError(f"there is no speculation {wanted!r}", why="the choices are ngram and None",
                            fix="a draft model is given to load")

    def _submit_score(self, ids: Iterable[int], first: int) -> tuple[Work, NDArray[np.float64]]:
        ids = self._checked(ids)
        if not 1 <= first < len(ids):
            raise ValueError(f"of {len(ids)} ids the first scored one cannot be {first}")
        targets = np.array(ids)
        nats = np.empty(len(ids) - first, dtype=np.float64)

        def receive(start: int, logits: NDArray[np.float32]) -> None:
            for low in range(0, len(logits), _ROWS_AT_ONCE):
                rows = logits[low:low + _ROWS_AT_ONCE].astype(np.float64)
                begin = start + low
                chosen = rows[np.arange(len(rows)), targets[begin + 1:begin + 1 + len(rows)]]
                largest = rows.max(axis=1)
                rows -= largest[:, None]
                log_sum = np.log(np.exp(rows, out=rows).sum(axis=1))
                nats[begin + 1 - first:begin + 1 - first + len(rows)] = log_sum + largest - chosen

        work = Scoring(ids[:-1], first - 1, receive)  # nothing is asked after the last id
        self._scheduler.submit(work)
        return work, nats

    def _scored(self, work: Work, nats: NDArray[np.float64]) -> NDArray[np.float64]:
        self._scheduler.finish(work)
        if not np.isfinite(nats).all():
            raise TritwiseError("the model's logits are not numbers", why="a log-probability is NaN or infinite",
                                fix="check the weights with: tritwise inspect MODEL")
        return nats

    def _checked(self, ids: Iterable[int]) -> list[int]:
        ids = [int(id_) for id_ in ids]
        if not ids:
            raise TritwiseError("there are no tokens", why="the prompt is empty and the model has no beginning of text")
        low, high = min(ids), max(ids)
        if low < 0 or high >= self.config.vocab_size:
            raise TritwiseError(f"token id {low if low < 0 else high} is outside the vocabulary",
                                why=f"the model has {self.config.vocab_size} tokens, ids from 0 on")
        if len(ids) > self.context:
            raise TritwiseError(f"the prompt has {len(ids)} tokens", why=f"the context holds {self.context}",
                                fix="shorten the prompt" if self.context == self.config.longest_context else
                                f"open the model with context={self.config.longest_context}, and cache_tokens, "
                                "if it is given, at least as large")
        return ids


def load(path: str | Path, *, backend: str = "cpu", threads: int | None = None, kernel: str | None = None,
         head: str | None = None, context: int | None = None, slots: int = SLOTS,
         cache_type: str = "f16", cache_tokens: int | None = None, prefill_chunk: int = PREFILL_CHUNK,
         rope_scaling: Mapping[str, Any] | None = None,
         speculation: str | Path | Model | Speculation | None = None) -> Model:
    """Open a model: a directory, a GGUF file, or a name on the Hugging Face Hub (`org/name`, `org/name@revision`,
    `org/name/file.gguf`), which is fetched once.

    `backend`: "cpu", the native core, or "cuda", the kernels for NVIDIA GPUs; the integers are the same on both, floats
    are summed in other orders.
    `threads`: the physical cores this process may use, when not given. `kernel`: the fastest of `kernels()`.
    `head`: how the output matrix is held: "int8" (8 bits with a scale a row) when not given for ternary and binary
    models, "stored" (as in the file) for dense ones; "f16", "int4" (4 bits with a scale for 32 inputs).
    `context`: tokens a sequence may have; the model's `max_position_embeddings`. `slots`: sequences at once; more wait.
    `cache_type`: of the keys and values, "f32", "f16", "int8" or "int4". `cache_tokens`: tokens that are cached in all,
    for the sequences in work and the beginnings of finished ones; 4 full contexts (fewer with fewer slots). Memory is
    taken as it fills. `prefill_chunk`: prompt tokens in one step. `rope_scaling`: stretches the positions of the model,
    for example {"rope_type": "yarn", "factor": 4.0}, or without a factor as far as `context`; types: linear, yarn,
    llama3, ntk. `speculation`: "ngram" guesses from what was written before, the directory of a small model with the
    same tokenizer (or an opened one, which then serves this alone) lets that guess.
    None of them changes a token, except `head`, `cache_type` and `rope_scaling`.
    Raises TritwiseError for a directory that is not a model and for an unknown backend, kernel, head or cache type.
    """
    make = backend_named(backend)
    directory = open_model(path)
    config = directory.config
    if rope_scaling is not None:
        config = config.with_rope_scaling(rope_scaling, context=context)
    runner, tokenizer = _opened(directory, config, make, threads=threads, kernel=kernel, head=head, slots=slots,
                                context=context, cache_type=cache_type, cache_tokens=cache_tokens)
    model = Model(config, runner, tokenizer=tokenizer, chat_template=partial(chat_template, directory),
                  prefill_chunk=prefill_chunk)
    try:
        model._speculation = _opened_speculation(speculation, model, threads=threads, slots=slots)
    except BaseException:
        model.close()
        raise
    return model


def _opened(directory: ModelDirectory, config: ModelConfig, make: Callable[..., Backend],
            **settings: Any) -> tuple[Backend, Tokenizer | None]:
    """The backend, and the tokenizer that is parsed while the backend reads the weights."""
    reading = threading.Event()

    def tensors() -> Iterator[tuple[str, FileTensor | NDArray | TernaryTensor]]:
        for name in config.tensor_shapes():
            yield name, directory.source(name)
        reading.set()

    def tokenizer() -> Tokenizer | None:
        reading.wait()  # parsing holds Python's lock, which the backend leaves free from here on
        content = directory.tokenizer_json()
        if content is None:
            return None
        result = load_tokenizer(content, directory.path)
        release_unused_memory()  # parsing leaves as much again as it keeps
        return result

    with ThreadPoolExecutor(1) as pool:
        parsed = pool.submit(tokenizer)
        try:
            runner = make(config, tensors(), **settings)
        finally:
            reading.set()
        try:
            return runner, parsed.result()
        except TritwiseError:
            runner.close()
            raise


def _opened_speculation(wanted: str | Path | Model | Speculation | None, model: Model, *, threads: int | None,
                        slots: int) -> Speculation | None:
    if wanted is None or isinstance(wanted, Speculation):
        return wanted
    if wanted == "ngram":
        return NgramSpeculation()
    given = isinstance(wanted, Model)
    # The draft model's slots are filled without regard to its pages: it has room for all of them.
    draft = wanted if given else load(wanted, threads=threads, slots=slots, cache_tokens=(
        slots * open_model(wanted).config.max_position_embeddings))
    try:
        check_same_tokens(model.tokenizer, draft.tokenizer, model.config.vocab_size, draft.config.vocab_size)
    except TritwiseError:
        if not given:
            draft.close()
        raise
    return DraftModel(draft.backend, owned=not given)
