"""NVFP4 of GGUF files with a factor of each matrix beside it."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.float_codes import E2M1, e4m3

from sotol.backends.cpu.running.fitting import Encoder
from sotol.errors import FormatError
from sotol.formats import Weight, read_model, write_gguf
from sotol.quant import ENCODINGS
from sotol.tools.encoding import planned
from sotol.tools.encoding_threads import EncodingThreads
from sotol.tools.quantize import quantize


def written(path: Path, shape: tuple[int, ...], scales: np.ndarray) -> tuple[Path, np.ndarray]:
    """A file with random blocks, by ggml's block_nvfp4: 4 E4M3, then halves of 4 runs of 16; and its numbers."""
    rng, rows = np.random.default_rng(0), int(np.prod(shape[:-1]))
    factors = rng.integers(0, 0x7F, (rows, shape[-1] // 64, 4), np.uint8)
    codes = rng.integers(0, 16, (rows, shape[-1] // 64, 4, 16)).astype(np.uint8)
    halves = codes[..., :8] | codes[..., 8:] << np.uint8(4)
    data = np.concatenate([factors, halves.reshape(rows, -1, 32)], axis=-1).reshape(-1)
    weight = Weight.from_bytes("blk.0.ffn_up.weight", ENCODINGS["NVFP4"], shape, data)
    beside = [Weight.from_values("blk.0.ffn_up.scale", scales, "F32")]
    beside.append(Weight.from_values("blk.0.ffn_up.input_scale", scales, "F32"))
    write_gguf(path, {"general.architecture": "llama"}, [weight, *beside])
    each = np.repeat(scales, rows // len(scales))[:, None, None] * e4m3(factors)
    return path, (E2M1[codes] * each[..., None]).reshape(shape)


@pytest.mark.parametrize(("shape", "count"), [((48, 192), 1), ((48, 256), 1), ((3, 32, 128), 3)])
def test_factors_of_matrices(tmp_path: Path, shape: tuple[int, ...], count: int) -> None:
    scales = np.random.default_rng(1).uniform(0.5, 2, count).astype(np.float32)
    path, values = written(tmp_path / "x.gguf", shape, scales)
    weights = read_model(path).weights
    assert set(weights) == {"blk.0.ffn_up.weight"}
    np.testing.assert_array_equal(weights["blk.0.ffn_up.weight"].decode(), values.astype(np.float32))


def test_what_is_the_models_own_stays(tmp_path: Path) -> None:
    """Gemma 4's routers and experts have weights by such names, of shapes of their own."""
    blocks = Weight.from_bytes("blk.0.ffn_gate_inp.weight", ENCODINGS["NVFP4"], (4, 64), np.zeros(4 * 36, np.uint8))
    own = Weight.from_values("blk.0.ffn_gate_inp.scale", np.ones(64, np.float32), "F32")
    for architecture, kept in (("gemma4", True), ("llama", False)):
        write_gguf(tmp_path / "x.gguf", {"general.architecture": architecture}, [blocks, own])
        if kept:
            assert set(read_model(tmp_path / "x.gguf").weights) == {blocks.name, own.name}
        else:
            with pytest.raises(FormatError, match="which are no factors"):
                read_model(tmp_path / "x.gguf")


def test_as_many_factors_as_there_are_matrices(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "x.gguf", (4, 32, 64), np.ones(2, np.float32))
    with pytest.raises(FormatError, match=r"'blk\.0\.ffn_up\.scale' has shape \[2\], which are no factors"):
        read_model(path)


def test_who_reads_rows_has_the_factors_too(tmp_path: Path) -> None:
    """A conversion and a quantisation of such a file are of the numbers that the model runs with."""
    path, values = written(tmp_path / "x.gguf", (48, 192), np.array([1.25], np.float32))
    source = read_model(path)
    quantize(source, tmp_path / "y.gguf", encoding="F32", allow_requantize=True)
    np.testing.assert_array_equal(read_model(tmp_path / "y.gguf").weights["blk.0.ffn_up.weight"].decode(), values)
    plan = planned("blk.0.ffn_up.weight", source.weights["blk.0.ffn_up.weight"], "F32")
    with EncodingThreads(Encoder(()), 1) as threads:
        rows = np.concatenate(list(threads.rows(plan)))
    np.testing.assert_array_equal(rows.view(np.float32).reshape(values.shape), values)
