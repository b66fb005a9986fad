"""AMX's instructions in NumPy, for an emulated CPU that lacks them.

Bochs emulates AMX, but version 3.0's products take signed bytes for unsigned ones. A CPU without AMX stops at each of
its instructions instead, which is then done here, as Intel's Software Developer's Manual, volume 2, defines it.
"""

import ctypes
from collections.abc import Callable

import numpy as np

__all__ = ["Tiles"]

LINES, LINE = 16, 64  # of a tile register, and bytes
LONGEST = 10  # bytes of an instruction: three of VEX, opcode, ModRM, SIB, displacement
BASES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
SIGNS = {0: "uu", 1: "us", 2: "su", 3: "ss"}  # of a product's factors, by the prefix in VEX

Registers = Callable[[str], int]


class Tiles:
    """The eight tile registers."""

    def __init__(self) -> None:
        self._release()

    def _release(self) -> None:
        self._shapes = np.zeros((8, 2), np.int64)  # lines, and bytes of a line
        self._data = np.zeros((8, LINES, LINE), np.uint8)

    def run(self, end: int, registers: Registers) -> bool:
        """Do the instruction that ends before an address; False if there is none of AMX."""
        for size in range(5, LONGEST + 1):
            code = _memory(end - size, size).tobytes()
            if code[0] == 0xC4 and code[1] & 0x1F == 2 and code[3] in (0x49, 0x4B, 0x5E) and _size(code) == size:
                self._do(code, end, registers)
                return True
        return False

    def _do(self, code: bytes, end: int, registers: Registers) -> None:
        opcode, prefix, other = code[3], code[2] & 3, ~code[2] >> 3 & 15
        mode, tile, low = code[4] >> 6, code[4] >> 3 & 7, code[4] & 7
        if opcode == 0x5E:  # TDPBSSD, TDPBSUD, TDPBUSD, TDPBUUD
            self._multiply(tile, low, other, SIGNS[prefix])
        elif opcode == 0x49 and mode == 3 and prefix == 3:  # TILEZERO
            self._data[tile] = 0
        elif opcode == 0x49 and mode == 3:  # TILERELEASE
            self._release()
        elif opcode == 0x49:  # LDTILECFG
            self._release()
            begin, _ = _address(code, end, registers)
            config = _memory(begin, LINE)
            assert config[0] == 1  # the palette
            self._shapes[:, 0], self._shapes[:, 1] = config[48:56], config[16:32].view(np.uint16)
        else:  # TILELOADD, TILESTORED
            begin, stride = _address(code, end, registers)
            lines, width = self._shape(tile)
            if prefix == 3:
                self._data[tile] = 0
            for line in range(lines):
                memory = _memory(begin + line * stride, width)
                if prefix == 3:
                    self._data[tile, line, :width] = memory
                else:
                    memory[...] = self._data[tile, line, :width]

    def _shape(self, tile: int) -> tuple[int, int]:
        lines, width = (int(n) for n in self._shapes[tile])
        assert lines, f"tile {tile} has no shape"
        return lines, width

    def _multiply(self, sums: int, left: int, right: int, signs: str) -> None:
        """sums [M, N] += left [M, 4 K] * right [K, N, 4]."""
        (m, width), (k, right_width) = self._shape(left), self._shape(right)
        assert self._shape(sums) == (m, right_width)
        assert width == 4 * k
        n, kinds = right_width // 4, {"s": np.int8, "u": np.uint8}
        x = self._data[left, :m, :width].view(kinds[signs[0]]).astype(np.int32)
        y = self._data[right, :k, :right_width].view(kinds[signs[1]]).astype(np.int32).reshape(k, n, 4)
        out = self._data[sums].view(np.int32)
        out[:m, :n] += x @ y.transpose(0, 2, 1).reshape(4 * k, n)


def _memory(address: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """This process's own bytes."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def _size(code: bytes) -> int:
    """Bytes of an instruction, from its ModRM byte."""
    mode, low = code[4] >> 6, code[4] & 7
    if mode == 3:
        return 5
    displacement = 4 if mode == 2 or (mode == 0 and low == 5) else mode
    return 5 + (low == 4) + displacement


def _address(code: bytes, end: int, registers: Registers) -> tuple[int, int]:
    """The address that an instruction names, and the bytes from a line to the next."""
    mode, low, inverted = code[4] >> 6, code[4] & 7, ~code[1]
    displacement = int.from_bytes(code[5 + (low == 4) :], "little", signed=True)
    if mode == 0 and low == 5:
        return end + displacement, 0
    if low != 4:
        return registers(BASES[low + 8 * (inverted >> 5 & 1)]) + displacement, 0
    base, index = (code[5] & 7) + 8 * (inverted >> 5 & 1), (code[5] >> 3 & 7) + 8 * (inverted >> 6 & 1)
    stride = 0 if index == 4 else registers(BASES[index]) << (code[5] >> 6)
    assert mode or base & 7 != 5  # an address without a base
    return (registers(BASES[base]) + displacement) % 2**64, stride
