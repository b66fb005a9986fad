"""How large the letters in the shapes of weights are, and so which weights a layer has."""

from collections.abc import Mapping
from typing import NamedTuple

from sotol.models.binding.bind import letters_of
from sotol.models.binding.sizes import Sizes
from sotol.models.parts.mamba2 import Mamba2
from sotol.models.parts.rope import Rope

SIZES = Sizes(2, 32, 48, (4, 2), (2, 1), 8, (64, 96))
ATTENTION, NETWORK = {"d": 8, "O": 32}, {"F": 96, "U": 32}


class Parts(NamedTuple):
    """A config whose parts say it; eps says nothing."""

    sizes: Sizes
    eps: float
    rope: Rope
    mamba: Mamba2 | None


class Itself(NamedTuple):
    """A config of layers that differ."""

    sizes: Sizes
    rope: Rope

    def letters(self, layer: int | None) -> Mapping[str, int]:
        return self.sizes.letters(layer, attends=layer == 0)


def test_a_layer_has_the_letters_of_what_it_is() -> None:
    assert SIZES.letters(None) == {"D": 32, "V": 48, **ATTENTION}
    assert SIZES.letters(1) == {"D": 32, "V": 48, **ATTENTION, "H": 2, "K": 1, **NETWORK}
    assert SIZES.letters(1, attends=False) == {"D": 32, "V": 48, **NETWORK}
    assert SIZES.letters(1, network=False) == {"D": 32, "V": 48, **ATTENTION, "H": 2, "K": 1}


def test_a_config_has_the_letters_of_its_parts() -> None:
    rope, mamba = Rope(4, 1e4), Mamba2(4, 16, 2, 6, 3)
    assert letters_of(Parts(SIZES, 1e-6, rope, None))(1) == {**SIZES.letters(1), "r": 4}
    both = letters_of(Parts(SIZES, 1e-6, rope, mamba))(0)
    assert both == {**SIZES.letters(0), "r": 4, "N": 4, "p": 16, "C": 64 + 2 * 2 * 6, "t": 3, "P": 64 + 88 + 4}


def test_or_its_own() -> None:
    letters = letters_of(Itself(SIZES, Rope(4, 1e4)))
    assert "K" in letters(0)
    assert letters(1).keys() == {"D", "V", "F", "U"}
