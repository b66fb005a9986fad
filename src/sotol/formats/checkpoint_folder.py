"""A model in a folder: config.json, SafeTensors files, and what belongs to them, as one Checkpoint.

The metadata are those of config.json by their own names, of the text model where the repository has towers for images
or sounds besides; and under the name of its file what else describes the model: "generation_config", and of
"tokenizer_config" what is short. The tokenizer reads its own files (`tokenizers/hub.py`).
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from sotol.errors import FormatError, plain
from sotol.formats.folder import Folder
from sotol.formats.quantised import KEYS, join_quantised
from sotol.formats.safetensors import INDEX, SHARD, read_safetensors, shards_of, whole_set
from sotol.formats.text_configs import text_config
from sotol.formats.weights import Checkpoint, Weight

__all__ = ["read_folder"]

# Files that say how weights are quantised, from before config.json did: ModelOpt's, AutoGPTQ's, AutoAWQ's. The method
# that they are of, and where in them its settings are.
QUANTISED = {
    "hf_quant_config.json": ("modelopt", "quantization"), "quantize_config.json": ("gptq", None),
    "quant_config.json": ("awq", None),
}  # fmt: skip
TEMPLATE = "tokenizer.chat_template"  # as GGUF's metadata has it; others have keys such as TEMPLATE + ".tool_use"

# The text model of a repository with several: its weights have one of these prefixes, instead of which they get the
# other. transformers 5 writes "model.language_model.", older ones and many models "language_model.".
TEXT_PREFIXES = (
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.text_model.", "model."),
)
# Weights of the other models in such a repository, and of what joins them to the text model's: these are left out. Any
# other weight stays, and is an error where the architecture has no place for it.
OTHER_PARTS = tuple(
    f"{before}{part}"
    for before in ("", "model.")
    for part in (
        "vision_tower", "vision_model", "visual", "vision_encoder", "vision_embed_tokens", "multi_modal_projector",
        "visual_embeddings_table", "mm_projector", "connector", "image_newline", "mlp1", "audio_tower", "audio_model",
        "audio_encoder", "audio_projector", "embed_vision", "embed_audio", "speech_encoder", "speech_projector",
    )
)  # fmt: skip
OTHER_PREFIXES = tuple(f"{part}." for part in OTHER_PARTS)
MARKS = (".qweight", "_scale")  # of names of tensors that belong to quantised weights
NO_CONFIG = "config.json is missing, which says what model the weights are of"
ADAPTER_FILE = "adapter_config.json"  # of the package peft
ADAPTER = "is an adapter (LoRA) for another model, and no model: merge it into that one, as by peft's merge_and_unload"
QUERIES = ".self_attn.q_proj.weight"


def read_folder(path: Path) -> Checkpoint:
    """The model in a folder, or in the folder of a SafeTensors file, which is the only one read, or with its shards.

    FormatError names the file and the field that is wrong or missing; SotolError for a file that can't be opened.
    """
    folder = Folder(path if path.is_dir() else path.parent)
    config = folder.json("config.json")
    if config is None:
        raise FormatError(f"{path}: {ADAPTER if folder.find(ADAPTER_FILE) else NO_CONFIG}")
    shards, table = shards_of(folder) if path.is_dir() else (shards_with(folder, path.name), None)
    metadata, weights = dict(config), read_shards(folder, shards, table)
    text = text_config(config, str(folder.path / "config.json"))
    if text is not None:
        metadata, weights = text_model(folder, config, text, weights)
    if not any(key in metadata for key in KEYS) and any(name.endswith(MARKS) for name in weights):
        metadata |= quantisation(folder)
    weights = join_quantised(folder.path, metadata, weights, str if text is None else text_name)
    for key in KEYS:
        metadata.pop(key, None)
    if text is not None and metadata.get("head_dim") is None:
        metadata |= head_width(metadata, weights)
    metadata |= described(folder)
    parts = tuple(folder.path / name for name in shards)
    return Checkpoint(path, MappingProxyType(metadata), MappingProxyType(weights), parts=parts)


def shards_with(folder: Folder, name: str) -> list[str]:
    """The shards of the model of which a file is one; else the file alone."""
    named = SHARD.fullmatch(name)
    return [name] if named is None else whole_set(folder, named["stem"], int(named["count"]))


def read_shards(folder: Folder, shards: list[str], table: Mapping[str, str] | None) -> dict[str, Weight]:
    """The weights of all shards; FormatError for one in two of them, or not in that which the index says."""
    weights, home = dict[str, Weight](), dict[str, str]()
    for shard in shards:
        path = folder.find(shard)
        found = read_safetensors(folder.path / shard if path is None else path)
        if twice := weights.keys() & found.keys():
            name = min(twice)
            raise FormatError(f"{path}: tensor {plain(repr(name), 100)} is in {plain(home[name], 80)}, too")
        weights |= found
        home |= dict.fromkeys(found, shard)
    for name, shard in (table or {}).items():
        if home.get(name) != shard:
            where = f"{folder.path / INDEX}: tensor {plain(repr(name), 100)}"
            raise FormatError(f"{where} is not in {plain(shard, 80)}, as weight_map says")
    return weights


def text_model(
    folder: Folder, config: Mapping[str, object], text: Mapping[str, object], weights: Mapping[str, Weight]
) -> tuple[dict[str, object], dict[str, Weight]]:
    """The config and the weights of the text model of a repository with several. text: its own config."""
    shared = ("tie_word_embeddings", "eos_token_id", "bos_token_id", *KEYS)
    metadata = {**{key: config[key] for key in shared if key in config}, **text}
    kept = dict[str, Weight]()
    for name, weight in weights.items():
        if name.startswith(OTHER_PARTS) and (name in OTHER_PARTS or name.startswith(OTHER_PREFIXES)):
            continue
        ours = text_name(name)
        if ours in kept:
            raise FormatError(f"{folder.path}: tensors {plain(repr(name), 100)} and another are both {plain(ours, 80)}")
        kept[ours] = weight
    return metadata, kept


def quantisation(folder: Folder) -> dict[str, object]:
    """What a file beside config.json says of how weights are quantised, as config.json would say it."""
    for name, (method, place) in QUANTISED.items():
        if (found := folder.json(name)) is not None:
            said = found.get(place) if place else found
            return {"quantization_config": {"quant_method": method, **said} if isinstance(said, dict) else said}
    return {}


def head_width(metadata: Mapping[str, object], weights: Mapping[str, Weight]) -> dict[str, object]:
    """The width of heads, by the matrix of queries: a text model's config leaves out what is its class' default, and of
    some classes that is computed, or has become a number since.
    """
    heads = metadata.get("num_attention_heads")
    found = next((weight for name, weight in weights.items() if name.endswith(QUERIES)), None)
    if found is None or not isinstance(heads, int) or heads < 1 or found.shape[0] % heads:
        return {}
    return {"head_dim": found.shape[0] // heads}


def text_name(name: str) -> str:
    """The name of a text model's weight, from that in a repository with several models."""
    return next((new + name[len(old) :] for old, new in TEXT_PREFIXES if name.startswith(old)), name)


def described(folder: Folder) -> dict[str, object]:
    """What the files beside config.json say: how to generate, special tokens by name, chat templates."""
    said = dict[str, object]()
    if (generation := folder.json("generation_config.json")) is not None:
        said["generation_config"] = generation
    tokenizer = folder.json("tokenizer_config.json") or {}
    special = folder.json("special_tokens_map.json") or {}
    short = {key: value for key, value in tokenizer.items() if key not in ("added_tokens_decoder", "chat_template")}
    if short or special:
        said["tokenizer_config"] = special | {key: value for key, value in short.items() if value is not None}
    return said | templates(folder, tokenizer.get("chat_template"))


def templates(folder: Folder, configured: object) -> dict[str, object]:
    """The chat templates: chat_template.jinja, else chat_template.json, else those of tokenizer_config.json."""
    if (text := folder.text("chat_template.jinja")) is not None:
        return {TEMPLATE: text}
    where = folder.path / "tokenizer_config.json"
    if (other := folder.json("chat_template.json")) is not None:
        where, configured = folder.path / "chat_template.json", other.get("chat_template")
    if configured is None:
        return {}
    if isinstance(configured, str):
        return {TEMPLATE: configured}
    found = dict[str, object]()
    for item in configured if isinstance(configured, list) else [None]:
        name, text = (item.get("name"), item.get("template")) if isinstance(item, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str):
            raise FormatError(f"{where}: chat_template is neither a text nor a list of names with templates")
        found[TEMPLATE if name == "default" else f"{TEMPLATE}.{name}"] = text
    return found
