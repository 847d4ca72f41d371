"""numpy and torch: scalars, dtypes, devices, shapes, small arrays; and random generators."""

import hashlib
import sys
from typing import Any

from orbiter_mlflow.config.codec.kinds.kind import Json, Kind, NotWholeError, never_read
from orbiter_mlflow.config.codec.unencodable import budget
from orbiter_mlflow.errors import UnreadableError

__all__ = ["ARRAYS", "NUMPY_SCALAR"]

_NUMBERS = "?bBhHiIlLqQefdFD"
"""Type codes of the scalars for which `item()` is the equal Python number."""
_MOST_ELEMENTS = 1_000
_SAMPLE = 10_000
"""Elements to hash of an array that is too large to hash as a whole."""


def _numpy_payload(value: Any) -> list[Any]:
    code = value.dtype.char
    if code in _NUMBERS or code in "US":
        return [value.dtype.str, value.item()]
    if code in "mM":  # `item()` is a datetime, or an int, depending on the unit
        return [value.dtype.str, int(value.astype("int64"))]
    raise NotWholeError("object")


def _read_numpy(payload: list[Any]) -> Any:
    import numpy as np

    kind, item = payload
    dtype = np.dtype(kind)
    return np.int64(item).view(dtype) if dtype.kind in "mM" else dtype.type(item)


def _show_numpy(payload: Json, show: Any) -> str:
    return f"numpy.dtype({payload[0]!r}).type({show(payload[1])})"


def _write_dtype(value: Any) -> str:
    text: str = value.str
    if value.metadata or value.fields or value.subdtype:
        raise NotWholeError("object")
    return text


def _read_dtype(text: Any) -> Any:
    import numpy as np

    return np.dtype(str(text))


def _write_array(value: Any) -> list[Any]:
    code = value.dtype.char
    if value.size > _MOST_ELEMENTS or not (code in _NUMBERS or code in "USmM"):
        raise NotWholeError("array", _summary(value))
    return [value.dtype.str, list(value.shape)]


def _array_items(value: Any) -> list[Any]:
    found: list[Any] = (value.view("int64") if value.dtype.kind in "mM" else value).ravel().tolist()
    return found


def _read_array(payload: list[Any], items: Any) -> Any:
    import numpy as np

    kind, shape = payload
    items = list(items)
    dtype = np.dtype(kind)
    if dtype.kind in "mM":
        return np.array(items, "int64").view(dtype).reshape(shape)
    return np.array(items, dtype).reshape(shape)


def _summary(value: Any) -> dict[str, Any]:
    """Dtype, shape and a digest of the bytes: enough to tell two arrays apart."""
    found: dict[str, Any] = {"dtype": str(value.dtype), "shape": [*map(int, value.shape)]}
    if value.dtype.hasobject:
        return {**found, "items": value.ravel()[:_MOST_ELEMENTS].tolist()}
    return {**found, **_digest(value)}


def _digest(array: Any) -> dict[str, Any]:
    """A digest of the elements; a very large array is sampled."""
    left = budget()
    step = 1 if array.nbytes <= left.size else max(1, array.size // _SAMPLE)
    read = array.ravel()[::step]
    left.size -= read.nbytes
    digest = hashlib.sha256(read.tobytes()).hexdigest()
    return {"sha256": digest} if step == 1 else {f"sha256 of each {step}th": digest}


def _tensor_summary(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"dtype": str(value.dtype), "shape": [*value.shape]}
    found["device"] = str(value.device)
    if value.device.type == "cpu" and value.layout is sys.modules["torch"].strided:
        # Reading another device would wait for it.
        flat = value.detach().contiguous().reshape(-1)
        return {**found, **_digest(flat.view(sys.modules["torch"].uint8).numpy())}
    return found


def _write_tensor(value: Any) -> Any:
    raise NotWholeError("array", _tensor_summary(value))


def _torch() -> Any:
    if "torch" not in sys.modules:
        raise UnreadableError("needs torch: import torch first")
    return sys.modules["torch"]


def _read_torch_dtype(text: Any) -> Any:
    torch = _torch()
    found = vars(torch).get(text)
    if not isinstance(found, torch.dtype):
        raise UnreadableError(f"needs torch.{text}, which this torch lacks")
    return found


def _needs_torch(payload: Json) -> list[str]:
    return ["torch:"]


def _write_generator(value: Any) -> Any:
    """Never whole: two configs that share a generator would each get their own."""
    kind = type(value).__name__
    if kind == "Generator":
        state = repr(value.bit_generator.state)
    else:
        state = repr(value.getstate() if kind == "Random" else value.get_state())
    raise NotWholeError("generator", {"sha256": hashlib.sha256(state.encode()).hexdigest()})


NUMPY_SCALAR = Kind("$numpy", _numpy_payload, _read_numpy, _show_numpy)
"""All numpy scalars."""

_DTYPE = Kind("$dtype", _write_dtype, _read_dtype, lambda p, show: f"numpy.dtype({p!r})")
_TENSOR = Kind("$tensor", _write_tensor, never_read)
_GENERATOR = Kind("$generator", _write_generator, never_read)

ARRAYS: dict[str, Kind] = {
    "numpy:ndarray": Kind(
        "$array",
        _write_array,
        _read_array,
        lambda payload, show: f"numpy.array[{payload[0]}, {show(payload[1])}]",
        items=_array_items,
    ),
    "numpy:dtype": _DTYPE,
    "random:Random": _GENERATOR,
    "numpy.random._generator:Generator": _GENERATOR,
    "numpy.random.mtrand:RandomState": _GENERATOR,
    "torch:Tensor": _TENSOR,
    "torch.nn.parameter:Parameter": _TENSOR,
    "torch:dtype": Kind(
        "$torch.dtype",
        lambda value: str(value).removeprefix("torch."),
        _read_torch_dtype,
        lambda payload, show: f"torch.{payload}",
        _needs_torch,
    ),
    "torch:device": Kind(
        "$torch.device", str, lambda text: _torch().device(text), names=_needs_torch
    ),
    "torch:Size": Kind("$torch.Size", list, lambda sizes: _torch().Size(sizes), names=_needs_torch),
}
"""Name of the exact class -> kind."""
