"""The order of a window's values in a tensor: row after row, or channel after channel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edged.base.errors import ModelError
from edged.formats.spec import Chain, Layout, Tensor

Axes = tuple[int, ...]


class Order(NamedTuple):
    """The layout of an input's values.

    :ivar layout: the one that is stated, else the one that the tensor's shape fits; ``channels_last`` if both.
    :ivar certain: False if the shape fits both, the orders differ, and the manifest states none.
    """

    layout: Layout
    certain: bool


def axes_of(chain: Chain, part: Tensor) -> Mapping[Layout, Axes]:
    """Return the sizes of an input's values along their axes, by the layouts that they may have.

    Features have the order that ``features.order`` says, and no other.
    """
    channels, image = len(part.channels or chain.input.channels), chain.input.image
    if part.features is not None:
        values = part.features.values
        return {"channels_last": (values, channels) if part.features.order == "feature" else (channels, values)}
    rows = (chain.rows or 0,) if image is None else (image.height, image.width)
    return {"channels_last": (*rows, channels), "channels_first": (channels, *rows)}


def find_order(chain: Chain, name: str, shape: Sequence[int]) -> Order:
    """Return the order in which the values of one input stand in a tensor of ``shape``, of as many values.

    :param name: key of :attr:`Chain.parts`.
    :raises ModelError: the values fit into the shape in no order, or not in the one that is stated.
    """
    part = chain.parts[name]
    axes = axes_of(chain, part)
    stated = part.layout
    fitting = [layout for layout, of in axes.items() if stated in (None, layout) and fits(of, shape)]
    if not fitting:
        raise _misfit(chain, name, axes, shape)
    alike = len(fitting) == 1 or sum(size > 1 for size in _merged(axes["channels_last"])) < 2  # noqa: PLR2004  rows, channels
    return Order(fitting[0], stated is not None or alike)


def fits(axes: Axes, shape: Sequence[int]) -> bool:
    """Return True if ``shape`` has the axes of the values: some of them split or joined, all in their order.

    Sizes of 1 do not count. A tensor with one axis, or values along one, fit whatever has as many values.
    """
    these, those = _cuts(axes), _cuts(shape)
    return math.prod(axes) == math.prod(shape) and (these <= those or those <= these)


def fill(axes: Axes, extents: Sequence[int]) -> tuple[int, ...] | None:
    """Return ``extents`` with the sizes that a model leaves open (-1) filled, where the axes stand behind the batch.

    None if they do not stand there.
    """
    behind = extents[1:]
    if len(behind) != len(axes) or any(extent not in (-1, size) for extent, size in zip(behind, axes, strict=True)):
        return None
    return (1 if extents[0] < 0 else extents[0], *axes)


def _cuts(sizes: Sequence[int]) -> set[int]:
    """Return the numbers of values in front of which an axis ends; those of two shapes show how their axes lie."""
    cuts, product = set(), 1
    for size in sizes:
        product *= size
        cuts.add(product)
    return cuts - {1, product}


def _merged(axes: Axes) -> tuple[int, int]:
    return math.prod(axes[:-1]), axes[-1]


def _misfit(chain: Chain, name: str, axes: Mapping[Layout, Axes], shape: Sequence[int]) -> ModelError:
    part = chain.parts[name]
    where = f"tensors.{name}: " if name else ""
    orders = " or ".join(str(list(axes[layout])) for layout in axes if part.layout in (None, layout))
    if part.features is not None:
        key, hint = "features.order", "the other features.order, or the features that the model was trained with"
    elif part.layout is not None:
        key, hint = "layout", f"{part.layout!r} is stated; without it, the shape decides"
    elif chain.input.image is not None:
        key, hint = "input.image", "width and height as the model has them: most have the height first"
    else:
        key, hint = "window.size and channels", "as many rows and channels as the model was trained with"
    return ModelError(f"{where}{key}: values {orders} do not fit into the model's input {list(shape)}", hint=hint)
