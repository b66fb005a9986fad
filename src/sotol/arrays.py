"""NumPy array types by the kind of their numbers, under one name each. Knows nothing else of sotol.

Shapes are not part of these types: they stand in the comment or docstring beside each use, as `# [T, N]`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "BoolArray",
    "Float32Array",
    "Float64Array",
    "Int8Array",
    "Int32Array",
    "Int64Array",
    "UInt8Array",
]

Array = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]
UInt8Array = npt.NDArray[np.uint8]
Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
