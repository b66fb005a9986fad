"""A model in the other format: what there is decides the direction."""

from pathlib import Path

from sotol.errors import SotolError, meant
from sotol.formats import is_hub_model
from sotol.progress import Progress
from sotol.tools.encoding import FLOAT_TYPES, TARGETS
from sotol.tools.outputs import check_outputs
from sotol.tools.to_folder import gguf_to_folder
from sotol.tools.to_gguf import Converted, folder_to_gguf

__all__ = ["convert"]


def convert(
    model: Path,
    out: Path,
    encoding: str | None = None,
    *,
    force: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Converted:
    """A folder with SafeTensors files to a GGUF file, or back: see `to_gguf.py` and `to_folder.py`.

    encoding: of matrices, in any case; None is the model's own float type, or F16. force: whether what is at `out` may
    be replaced. threads: that encode, as many as there are cores unless given. ValueError for an encoding that the new
    format can't have.
    """
    to_gguf = is_hub_model(model)
    able = TARGETS if to_gguf else FLOAT_TYPES
    target = None if encoding is None else encoding.upper()
    if target is not None and target not in able:
        raise ValueError(f"encoding is {encoding!r:.40}: {meant(target, able)} (sotol quantize makes the others)")
    if to_gguf:
        if out.suffix != ".gguf":
            raise SotolError(f"{out}: a folder becomes a GGUF file: give a name that ends in .gguf")
        check_outputs([out], force=force, inputs=[model])
        return folder_to_gguf(model, out, target, progress, threads=threads)
    if out.suffix == ".gguf":
        raise SotolError(f"{out}: a GGUF file becomes a folder: give the name of one")
    return gguf_to_folder(model, out, target, progress, replace=force, threads=threads)
