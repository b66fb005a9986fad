"""That the stand-in for AMX reads its instructions (as LLVM's assembler writes them) and multiplies."""

import numpy as np
import pytest
from tests.x86.amx import Tiles

LOAD = (
    "c4 e2 78 49 07",  # ldtilecfg [rdi]
    "c4 e2 7b 4b 0c 16",  # tileloadd tmm1, [rsi + rdx]
    "c4 a2 7b 4b 54 41 40",  # tileloadd tmm2, [rcx + 2 * r8 + 64]
    "c4 e2 7b 49 c0",  # tilezero tmm0
)
STORE = "c4 82 7a 4b 84 11 00 04 00 00"  # tilestored [r9 + r10 + 1024], tmm0
RELEASE = "c4 e2 78 49 c0"  # tilerelease


@pytest.mark.parametrize(
    ("product", "left", "right"),
    [("c4 e2 6a 5e c1", np.int8, np.uint8), ("c4 e2 6b 5e c1", np.int8, np.int8)],  # tdpbsud, tdpbssd
)
def test_products(product: str, left: type[np.generic], right: type[np.generic]) -> None:
    """tmm0 [5, 16] of tmm1 [5, 32] and tmm2 [8, 16, 4]: weights 4 k + i of column n are byte 4 n + i of line k."""
    rng = np.random.default_rng(0)
    x, weights = rng.integers(0, 256, (5, 48), np.uint8), rng.integers(0, 256, (9, 64), np.uint8)
    config, sums = np.zeros(64, np.uint8), np.zeros((6, 32), np.int32)
    config[0], config[16:22:2], config[48:51] = 1, (64, 32, 64), (5, 5, 8)
    at = {"rdi": config, "rsi": x, "rcx": weights, "r9": sums}
    registers = {name: array.ctypes.data for name, array in at.items()} | {"rdx": 48, "r8": 32, "r10": 128}
    registers["r9"] -= 1024
    tiles = Tiles()
    for text in (*LOAD, product, STORE, RELEASE):
        code = np.frombuffer(bytes.fromhex(text), np.uint8)
        assert tiles.run(code.ctypes.data + len(code), registers.__getitem__)
    y = weights[1:].view(right).reshape(8, 16, 4).transpose(0, 2, 1).reshape(32, 16).astype(int)
    np.testing.assert_array_equal(sums[:5, :16], x[:, :32].view(left).astype(int) @ y)
    assert not sums[5].any()
    assert not sums[:, 16:].any()


def test_others_are_not_taken() -> None:
    code = np.frombuffer(bytes(10) + bytes.fromhex("0f0b"), np.uint8)  # ud2
    assert not Tiles().run(code.ctypes.data + len(code), {"rax": 0}.__getitem__)
