"""From a model's name to a runner and a tokenizer, without an engine: what `LLM`, benchmarks and profiles use."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sotol.backends.table import backend
from sotol.catalog import find_model
from sotol.errors import ModelError, explained
from sotol.formats import Checkpoint, is_hub_model, read_model
from sotol.kv.sizing import pool_sizes, states_within, tokens_within
from sotol.load_options import LoadOptions, LoadSettings
from sotol.models import architecture_of, described, trace_model
from sotol.program.early_rows import early_rows
from sotol.program.fuse import quantize_inputs
from sotol.program.memory import Group, group_caches
from sotol.program.runner import Backend, Runner
from sotol.program.step import Limits
from sotol.progress import Progress

if TYPE_CHECKING:
    from sotol.tokenizers import Tokenizer
    from sotol.tokenizers.chat import ChatTemplate

__all__ = ["LoadOptions", "LoadSettings", "Loaded", "load", "memory_of"]

DEFAULT_CONTEXT = 4096  # unless the model's own is shorter
CONTEXTS = 4  # full contexts that the memory of the past holds together, unless told otherwise, or there is less memory


@dataclass(slots=True)
class Loaded:
    """A model that can run steps. Whoever has it closes its runner.

    memory: bytes of its weights and of its past together, nearly.
    """

    path: Path
    metadata: Mapping[str, object]
    options: LoadOptions
    context: int  # tokens of one sequence
    vocabulary: int  # logits of a row
    runner: Runner
    tokenizer: "Tokenizer"
    memory: int = 0

    def template(self) -> "ChatTemplate":
        """The model's chat format."""
        from sotol.tokenizers.chat import ChatTemplate  # noqa: PLC0415  (as the tokenizer)

        t = self.tokenizer
        bos, eos = (t.token_text(i) if i is not None else "" for i in (t.bos, t.eos))
        return ChatTemplate.from_metadata(
            self.metadata, bos=bos, eos=eos, architecture=str(architecture_of(self.metadata)),
            tokens=lambda text: t.id_of(text) is not None, text_of=t.token_text,
        )  # fmt: skip

    def close(self) -> None:
        """End the runner's threads; any thread may, any number of times."""
        self.runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(model: str | Path | None, options: LoadOptions, progress: Progress | None = None) -> Loaded:
    """The model of a path or a name, None for the default.

    Raises SotolError (FormatError for a broken file or one that changes while it is loaded, ModelError for a model that
    sotol can't run), ValueError for an option that does not suit the model. Once loaded, the file is not read again.
    """
    path, chosen = find_model(model), backend(options.backend)
    with explained(f"reading {path}"):
        checkpoint = read_model(path)
        context = _context(checkpoint.metadata, options.ctx)
        weights = _file_bytes(checkpoint)
        program = early_rows(trace_model(checkpoint, context))
    vocabulary = int(program.results["logits"].shape[-1])
    if options.precision == "int8":
        exact, program = program, quantize_inputs(program)
        exact.nodes.clear()  # they and the program hold each other, and with them the mapped file
        exact.results.clear()
    # From here on there are threads. Each object that has some ends them when it is lost, at whatever moment; an
    # exception keeps what it passed through, though, and ends them here.
    try:
        groups = group_caches(program.caches())
        limits = _limits(chosen, groups, context, weights, options)
        runner = chosen.make_runner(program, limits, threads=options.threads, progress=progress)
    finally:
        program.nodes.clear()
        program.results.clear()
    try:
        with explained(f"reading {path}"):
            tokenizer = _tokenizer(path, checkpoint.metadata, vocabulary)  # while the runner's threads load weights
        if progress is not None:
            runner.wait(progress)
    except BaseException:
        runner.close()
        raise
    memory = weights + _past_bytes(chosen, groups, limits)
    return Loaded(path, checkpoint.metadata, options, context, vocabulary, runner, tokenizer, memory)


def memory_of(model: str | Path | None, options: LoadOptions) -> int:
    """The bytes that a model would take if it were loaded now, nearly: its weights, and its past as options say.

    Reads what the file says of itself. Errors as of `load`.
    """
    path, chosen = find_model(model), backend(options.backend)
    with explained(f"reading {path}"):
        checkpoint = read_model(path)
        context, weights = _context(checkpoint.metadata, options.ctx), _file_bytes(checkpoint)
        groups = group_caches(trace_model(checkpoint, context).caches())
    return weights + _past_bytes(chosen, groups, _limits(chosen, groups, context, weights, options))


def _past_bytes(chosen: Backend, groups: tuple[Group, ...], limits: Limits) -> int:
    """What the blocks of all groups take."""
    return sum(count * size for count, size in zip(limits.blocks, chosen.block_bytes(groups), strict=True))


def _limits(chosen: Backend, groups: tuple[Group, ...], context: int, weights: int, options: LoadOptions) -> Limits:
    """Steps and memory of these sizes, beside so many bytes of weights."""
    sequences = options.sequences
    step_tokens = max(options.step_tokens, sequences)  # a token of each, or as many of one
    available = chosen.available_memory()
    free = None if available is None else max(0, available - weights)
    sizes = chosen.block_bytes(groups)
    memory = None if free is None else free // 2
    if options.kv_memory is not None:
        memory = _bytes_of(options.kv_memory, free)
    states = None
    if memory is not None:
        states = states_within(memory, groups, sizes, context=context, step_tokens=step_tokens, sequences=sequences)

    def within(memory: int) -> int:
        return tokens_within(
            memory, groups, sizes, context=context, step_tokens=step_tokens, sequences=sequences, states=states
        )

    if options.kv_memory is not None:
        assert memory is not None
        try:
            tokens = within(memory)
        except ValueError as error:
            raise ValueError(f"kv_memory is too small: {error}; give more, or a smaller ctx") from None
    else:
        tokens = CONTEXTS * context
        if memory is not None:
            try:
                tokens = min(tokens, within(memory))
            except ValueError:  # a model that can't do with less than one context may have it
                tokens = context
    blocks = pool_sizes(groups, tokens, context=context, step_tokens=step_tokens, sequences=sequences, states=states)
    return Limits(step_tokens, sequences, sequences, context, blocks)


def _bytes_of(memory: float, free: int | None) -> int:
    """What `kv_memory` asks for: bytes, or a share of what is free."""
    if isinstance(memory, int):
        return memory
    if free is None:
        raise ValueError(
            f"kv_memory is {memory}, a share of the free memory, which this system does not tell: give bytes"
        )
    return int(memory * free)


def _file_bytes(checkpoint: Checkpoint) -> int:
    """What a model's weights take, nearly."""
    return sum(part.stat().st_size for part in checkpoint.parts or (checkpoint.path,))


def _tokenizer(path: Path, metadata: Mapping[str, object], vocabulary: int) -> "Tokenizer":
    """The file's tokenizer, which may have fewer tokens than the model has logits; ModelError if it has more."""
    from sotol.tokenizers import Tokenizer  # noqa: PLC0415  (imported while the runner's threads load weights)

    if is_hub_model(path):
        tokenizer = Tokenizer.from_folder(path, logits=vocabulary)
    else:
        tokenizer = Tokenizer.from_metadata(metadata, str(path), logits=vocabulary)
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"{path}: the model has logits for {vocabulary} tokens, but its tokenizer has {len(tokenizer)}"
        )
    return tokenizer


def _context(metadata: Mapping[str, object], wanted: int | None) -> int:
    """The context length to use; ValueError for more than the model was made for."""
    most = described(metadata).find("context_length")
    if not isinstance(most, int) or most < 1:
        most = DEFAULT_CONTEXT if wanted is None else wanted
    if wanted is not None and wanted > most:
        raise ValueError(f"ctx is {wanted}, but the model was made for contexts of at most {most} tokens")
    return min(most, DEFAULT_CONTEXT) if wanted is None else wanted
