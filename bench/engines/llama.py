"""llama.cpp and its relative ik_llama.cpp, each by the low-level bindings of a package, with an f16 cache."""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from bench.engines.protocol import Ids, Setup

__all__ = ["Bindings", "Llama", "ik_llama_cpp", "llama_cpp"]

MICRO_BATCH = 512  # tokens that run at once, as both have it by default


@dataclass(frozen=True, slots=True)
class Bindings:
    """Where the two differ."""

    about: str
    lib: Any  # functions that are the same in both
    silence: Callable[[], object]  # log nothing; what it returns must be kept
    set_flash: Callable[[Any, bool], None]  # in the parameters of a context
    clear: Callable[[Any], object]
    remove: Callable[[Any, int], bool]  # all tokens of all sequences from a position on
    synchronize: Callable[[Any], object]
    free_model: Callable[[Any], object]


def llama_cpp() -> Bindings:
    """llama-cpp-python."""
    import llama_cpp.llama_cpp as lib  # noqa: PLC0415 (another Python has it)

    def silence() -> object:
        silent = lib.llama_log_callback(lambda *_: None)
        lib.llama_log_set(silent, ctypes.c_void_p(0))
        return silent

    def set_flash(options: Any, flash: bool) -> None:
        options.flash_attn_type, options.no_perf = int(flash), True

    return Bindings(
        about=f"llama-cpp-python {version('llama-cpp-python')}, {lib.llama_print_system_info().decode().strip()}",
        lib=lib,
        silence=silence,
        set_flash=set_flash,
        clear=lambda context: lib.llama_memory_clear(lib.llama_get_memory(context), True),
        remove=lambda context, at: bool(lib.llama_memory_seq_rm(lib.llama_get_memory(context), -1, at, -1)),
        synchronize=lib.llama_synchronize,
        free_model=lib.llama_model_free,
    )


def ik_llama_cpp() -> Bindings:
    """ik-llama-cpp-python, which binds no function for its log, for removing tokens and for waiting."""
    import ik_llama_cpp._ctypes_api as lib  # noqa: PLC0415

    native = lib._lib
    native.llama_print_system_info.restype = ctypes.c_char_p
    native.llama_synchronize.argtypes, native.llama_synchronize.restype = [ctypes.c_void_p], None
    remove = native.llama_kv_cache_seq_rm
    remove.argtypes, remove.restype = [ctypes.c_void_p, *[ctypes.c_int32] * 3], ctypes.c_bool

    def silence() -> object:
        silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        native.llama_log_set(silent, ctypes.c_void_p(0))
        return silent

    def set_flash(options: Any, flash: bool) -> None:
        options.flash_attn = flash

    system = native.llama_print_system_info().decode().strip()
    return Bindings(
        about=f"ik-llama-cpp-python {version('ik-llama-cpp-python')}, {system}",
        lib=lib,
        silence=silence,
        set_flash=set_flash,
        clear=lib.llama_kv_cache_clear,
        remove=lambda context, at: bool(remove(context, -1, at, -1)),
        synchronize=native.llama_synchronize,
        free_model=lib.llama_free_model,
    )


class Llama:
    """A stepper over either."""

    def __init__(self, bindings: Bindings, setup: Setup, *, flash: bool) -> None:
        self._bindings, lib = bindings, bindings.lib
        self._silent = bindings.silence()
        lib.llama_backend_init()
        settings = lib.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = lib.llama_model_load_from_file(setup.model.encode(), settings)
        options = lib.llama_context_default_params()
        options.n_ctx = setup.context * setup.sequences
        options.n_batch = max(setup.context, setup.sequences)
        options.n_ubatch, options.n_seq_max = MICRO_BATCH, setup.sequences
        options.n_threads = options.n_threads_batch = setup.threads
        bindings.set_flash(options, flash)
        self._context = lib.llama_init_from_model(self._model, options) if self._model else None
        if not self._context:
            raise RuntimeError("it can't load the model")
        self._batch = lib.llama_batch_init(options.n_batch, 0, 1)
        self._last, self._prompts = 0, dict[int, Ids]()  # prompts: of each sequence, what it begins with
        self.about = bindings.about

    def clear(self) -> None:
        self._bindings.clear(self._context)
        self._prompts.clear()

    def prompt(self, ids: Ids, sequence: int) -> None:
        self._prompts[sequence], last = ids, len(ids) - 1
        self._decode([(token, at, sequence, at == last) for at, token in enumerate(ids)])

    def step(self, tokens: Ids, position: int) -> None:
        self._decode([(token, position, sequence, True) for sequence, token in enumerate(tokens)])

    def rewind(self, position: int) -> None:
        if not self._bindings.remove(self._context, position):  # of a recurrent state, it can't
            prompts = dict(self._prompts)
            self.clear()
            for sequence, ids in prompts.items():
                self.prompt(ids, sequence)

    def likeliest(self) -> int:
        lib = self._bindings.lib
        count = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        row = lib.llama_get_logits_ith(self._context, self._last)[:count]
        return int(row.index(max(row)))

    def memory(self) -> Mapping[str, int]:
        return {}

    def _decode(self, tokens: list[tuple[int, int, int, bool]]) -> None:
        """Tokens with position, sequence and whether logits are wanted."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        self._last = len(tokens) - 1
        if self._bindings.lib.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        self._bindings.synchronize(self._context)
