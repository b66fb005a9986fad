"""Names of mixes and encodings as people write them."""

import pytest

from sotol.tools.mix_names import encoding_name, name_of_mix
from sotol.tools.mixes import MIXES

NAMES = list(MIXES)


@pytest.mark.parametrize(
    ("text", "mix"), [("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("f16", "F16"), ("iq4_xs", "IQ4_XS")]
)
def test_names_in_any_case(text: str, mix: str) -> None:
    assert name_of_mix(text, NAMES) == mix


@pytest.mark.parametrize(
    ("text", "mix", "encoding"),
    [
        ("q4", "Q4_K_M", "Q4_K"),
        ("4bit", "Q4_K_M", "Q4_K"),
        ("4-bit", "Q4_K_M", "Q4_K"),
        ("int8", "Q8_0", "Q8_0"),
        ("fp16", "F16", "F16"),
        ("bfloat16", "BF16", "BF16"),
        ("iq4-xs", "IQ4_XS", "IQ4_XS"),
        ("iq4nl", "IQ4_NL", "IQ4_NL"),
        ("Q4_K-M", "Q4_K_M", "Q4_K"),
        ("UD-Q4_K_XL", "Q4_K_M", "Q4_K"),
        ("q5 k m", "Q5_K_M", "Q5_K"),
    ],
)
def test_what_was_meant(text: str, mix: str, encoding: str) -> None:
    with pytest.raises(ValueError, match=f"there is no mix .*: did you mean '{mix}'"):
        name_of_mix(text, NAMES)
    with pytest.raises(ValueError, match=f"there is no encoder for .*: did you mean '{encoding}'"):
        encoding_name(text, NAMES)


def test_what_nobody_can_have_meant() -> None:
    with pytest.raises(ValueError, match="there is no mix 'awq': the options are F32, F16"):
        name_of_mix("awq", NAMES)
