"""Names of models on the Hub, in all forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.hub.names import HubName, parse_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/repo", HubName("org/repo")),
        ("Org-1/Repo.2_x-GGUF", HubName("Org-1/Repo.2_x-GGUF")),
        ("org/repo:q4_k_m", HubName("org/repo", "q4_k_m")),
        ("org/repo:sub/file.Q8_0.gguf", HubName("org/repo", "sub/file.Q8_0.gguf")),
        ("org/repo@v1.0", HubName("org/repo", "", "v1.0")),
        ("org/repo@refs/pr/1:Q8_0", HubName("org/repo", "Q8_0", "refs/pr/1")),
        ("hf:org/repo:Q8_0", HubName("org/repo", "Q8_0")),
        ("HF.co/org/repo", HubName("org/repo")),
        ("huggingface.co/org/repo:Q8_0", HubName("org/repo", "Q8_0")),
        ("hf://org/repo@main/model.gguf", HubName("org/repo", "model.gguf", "main")),
        ("hf://org/repo@refs%2Fpr%2F1/model.gguf", HubName("org/repo", "model.gguf", "refs/pr/1")),
        ("hf://org/repo/model.gguf", HubName("org/repo", "model.gguf")),
        ("hf:org/repo.gguf", HubName("org/repo.gguf")),
        ("https://huggingface.co/org/repo", HubName("org/repo")),
        ("https://huggingface.co/org/repo/tree/main", HubName("org/repo")),
        ("https://huggingface.co/org/repo/blob/main/a%20b/m.gguf?x=1", HubName("org/repo", "a b/m.gguf")),
        ("https://huggingface.co/org/repo/resolve/v1/m.gguf", HubName("org/repo", "m.gguf", "v1")),
        ("http://mirror:8080/org/repo", HubName("org/repo")),
    ],
)
def test_names(text: str, name: HubName) -> None:
    assert parse_name(text, "http://mirror:8080") == name
    assert parse_name(str(name).replace(name.repo, f"hf:{name.repo}"), "") == name


@pytest.mark.parametrize(
    "text",
    ["", "repo", "a/b/c", "./model", "../model", "/org/repo", "org/", "~/x", "org/model.gguf", "x/y.safetensors",
     "org/re po", "org\\repo", "-o/repo", "org/repo-", "a..b/c", "a--b/c", "o" * 97 + "/r", "ftp://hf.co/a/b",
     "https://example.org/org/repo", "https://[::1/x", "org/répo"],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    assert parse_name(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hf:repo", "is no name of a model: it must be as hf:ORG/REPO:Q4_K_M"),
        ("hf.co/../x", "is no name of a model"),
        ("hf:a--b/c", "is no name of a model"),
        ("org/repo:", "ends in ':'"),
        ("org/repo@../../x", "is no revision"),
        ("org/repo@a//b", "is no revision"),
        ("hf:org/repo@/etc", "is no revision"),
        ("https://huggingface.co/org", "is no page of a model"),
        ("https://huggingface.co/a/b/blob/..%2f..%2fx/m.gguf", "is no revision"),
    ],
)
def test_names_that_can_not_be(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_name(text)


@given(
    st.text(max_size=60),
    st.sampled_from(["", "hf:", "hf://", "hf.co/", "https://hf.co/", "org/repo", "hf:o/r@", "o/r:"]),
)
def test_any_text(text: str, before: str) -> None:
    """It is no name, an error of use, or a name whose parts lead nowhere else as paths."""
    try:
        name = parse_name(before + text)
    except ValueError:
        return
    if name is not None:
        for part in (*name.repo.split("/"), *(name.revision or "main").split("/")):
            assert part.strip(".") != ""
            assert not set(part) & set("\\:\0")
        assert len(name.repo.split("/")) == 2
