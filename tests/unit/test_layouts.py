"""Channels first or last: a tensor is filled in the order that its shape or the manifest says, or not at all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edged.base.errors import ConfigError, ModelError
from edged.formats.spec import (
    Chain,
    Decide,
    Feature,
    Features,
    Image,
    Input,
    Layout,
    Normalise,
    Output,
    Tensor,
    Window,
    fingerprint,
)
from edged.model.author import Author
from edged.model.draft_tables import guess_input
from edged.model.dry_run import check_weights, open_model, record_self_test, try_samples
from edged.model.runtime import Engine
from edged.model.samples import Samples
from edged.model.signal.chain import CompiledChain
from edged.model.signal.tensor import TensorInfo
from support.tiny import identity, means

Floats = npt.NDArray[np.float32]
REGRESSOR = Output(kind="regressor")
AXES: dict[Layout, tuple[int, int]] = {"channels_last": (0, 1), "channels_first": (1, 0)}


def tensor(*shape: int, extents: tuple[int, ...] = ()) -> TensorInfo:
    return TensorInfo("x", shape, np.dtype(np.float32), extents=extents or shape)


def window_chain(rows: int, channels: int, **fields: Any) -> Chain:
    names = tuple(f"c{number}" for number in range(channels))
    layout = fields.pop("layout", None)
    return Chain(input=Input(channels=names, layout=layout), window=Window(size=rows), output=REGRESSOR, **fields)


def picture_chain(width: int, height: int, channels: tuple[str, ...], **fields: Any) -> Chain:
    return Chain(
        input=Input(channels=channels, image=Image(width=width, height=height), layout=fields.pop("layout", None)),
        output=REGRESSOR,
        **fields,
    )


def numbered(rows: int, channels: int) -> Floats:
    """Row r of channel c holds 1000 c + r."""
    return (1000 * np.arange(channels) + np.arange(rows)[:, None]).astype(np.float32)


def put_in(chain: Chain, shape: tuple[int, ...], window: Floats) -> np.ndarray[Any, Any]:
    return CompiledChain(chain, [tensor(*shape)], [tensor(1, 2)]).prepare(window).tensors[0]


sizes = st.integers(1, 12)


@st.composite
def split(draw: st.DrawFn, size: int) -> list[int]:
    """Factors of a size, with ones between them: the axes into which a converter may split or wrap one."""
    found = []
    while size > 1 and draw(st.booleans()):
        factor = draw(st.sampled_from([n for n in range(2, size + 1) if size % n == 0]))
        found.append(factor)
        size //= factor
    found += [size] if size > 1 else []
    return [one for factor in found for one in ([1, factor] if draw(st.booleans()) else [factor])]


# --- windows ---------------------------------------------------------------------------------


@given(st.data(), sizes, sizes, st.sampled_from(sorted(AXES)))
def test_each_value_stands_where_its_row_and_channel_are(
    data: st.DataObject, rows: int, channels: int, layout: Layout
) -> None:
    """With the layout stated, axes may be split or wrapped in ones; values stay in the order that it says."""
    both = [rows, channels]
    shape = [1, *(size for axis in AXES[layout] for size in data.draw(split(both[axis])))]
    window = numbered(rows, channels)

    found = put_in(window_chain(rows, channels, layout=layout), tuple(shape), window)

    assert found.shape == tuple(shape)
    assert found.flags["C_CONTIGUOUS"]
    assert found.reshape(-1).tolist() == window.transpose(AXES[layout]).reshape(-1).tolist()


@given(sizes, sizes, st.sampled_from(sorted(AXES)))
def test_a_shape_tells_the_layout_where_the_manifest_does_not(rows: int, channels: int, layout: Layout) -> None:
    assume(rows != channels)
    window = numbered(rows, channels)
    shape = tuple([rows, channels][axis] for axis in AXES[layout])

    compiled = CompiledChain(window_chain(rows, channels), [tensor(1, *shape)], [tensor(1, 2)])

    assert compiled.prepare(window).tensors[0][0].tolist() == window.transpose(AXES[layout]).tolist()
    assert compiled.orders[""].certain
    assert (compiled.orders[""].layout == layout) or 1 in shape


@given(st.data(), st.lists(st.integers(2, 8), min_size=2, max_size=4))
def test_a_shape_that_fits_neither_order_is_refused(data: st.DataObject, shape: list[int]) -> None:
    """Rows and channels end at numbers of values at which no axis of the tensor ends."""
    values = math.prod(shape)
    ends = {math.prod(shape[:at]) for at in range(1, len(shape))}
    others = [n for n in range(2, values) if not values % n and not ends & {n, values // n}]
    assume(others)
    rows = data.draw(st.sampled_from(others))
    channels = values // rows

    with pytest.raises(ModelError, match="do not fit into the model's input"):
        put_in(window_chain(rows, channels), (1, *shape), numbered(rows, channels))


@pytest.mark.parametrize(
    ("shape", "layout", "certain"),
    [
        ((1, 128, 3), "channels_last", True),
        ((1, 3, 128), "channels_first", True),
        ((1, 128, 3, 1), "channels_last", True),
        ((1, 1, 3, 128), "channels_first", True),
        ((1, 4, 32, 3), "channels_last", True),
        ((1, 3, 4, 32), "channels_first", True),
        ((1, 384), "channels_last", False),
        ((384,), "channels_last", False),
        ((128, 3), "channels_last", True),
    ],
)
def test_what_a_shape_says_of_128_rows_of_three(shape: tuple[int, ...], layout: str, certain: bool) -> None:
    order = CompiledChain(window_chain(128, 3), [tensor(*shape)], [tensor(1, 2)]).orders[""]

    assert order == (layout, certain)


@pytest.mark.parametrize("shape", [(1, 6, 64), (1, 64, 6), (1, 2, 192), (1, 12, 32)])
def test_a_size_that_is_right_in_sum_only_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError) as caught:
        put_in(window_chain(128, 3), shape, numbered(128, 3))

    assert f"values [128, 3] or [3, 128] do not fit into the model's input {list(shape)}" in caught.value.message


def test_a_stated_layout_is_not_overruled_by_the_shape() -> None:
    with pytest.raises(ModelError, match=r"layout: values \[128, 3\] do not fit into the model's input \[1, 3, 128\]"):
        put_in(window_chain(128, 3, layout="channels_last"), (1, 3, 128), numbered(128, 3))
    square = put_in(window_chain(3, 3, layout="channels_first"), (1, 3, 3), numbered(3, 3))
    assert square[0].tolist() == numbered(3, 3).T.tolist()


def test_each_channel_is_normalised_by_its_own_numbers_in_both_layouts() -> None:
    normalise = Normalise(method="zscore", mean=(0.0, 1000.0, 2000.0), std=(1.0, 2.0, 4.0))

    found = put_in(window_chain(5, 3, normalise=normalise), (1, 3, 5), numbered(5, 3))

    assert found[0].tolist() == [[row / std for row in range(5)] for std in (1.0, 2.0, 4.0)]


def test_inputs_of_one_model_may_differ() -> None:
    tensors = {"x": Tensor(), "y": Tensor(channels=("c1",)), "z": Tensor(layout="channels_first")}
    inputs = [
        TensorInfo(name, shape, np.dtype(np.float32)) for name, shape in (("x", (1, 3, 5)), ("y", (1, 5)), ("z", (15,)))
    ]

    found = CompiledChain(window_chain(5, 3, tensors=tensors), inputs, [tensor(1, 2)]).prepare(numbered(5, 3)).tensors

    assert found[0][0].tolist() == numbered(5, 3).T.tolist()
    assert found[1][0].tolist() == numbered(5, 3)[:, 1].tolist()
    assert found[2].tolist() == numbered(5, 3).T.reshape(-1).tolist()
    with pytest.raises(ConfigError, match=r"input\.layout: stands below each of"):
        window_chain(5, 3, tensors=tensors, layout="channels_first")


# --- features, which have an order of their own ----------------------------------------------


@pytest.mark.parametrize(("order", "shape"), [("feature", (1, 2, 3)), ("channel", (1, 3, 2)), ("feature", (1, 6))])
def test_features_go_into_shapes_of_their_order(order: Literal["feature", "channel"], shape: tuple[int, ...]) -> None:
    features = Features(use=("max", "min"), order=order)
    found = put_in(window_chain(5, 3, features=features), shape, numbered(5, 3))
    assert found.reshape(-1).tolist() == (
        [4, 1004, 2004, 0, 1000, 2000] if order == "feature" else [4, 0, 1004, 1000, 2004, 2000]
    )


def test_features_in_the_other_order_than_the_shape_are_refused() -> None:
    for order, shape in (("feature", (1, 3, 2)), ("channel", (1, 2, 3))):
        with pytest.raises(ModelError, match=r"features\.order"):
            put_in(window_chain(5, 3, features=Features(use=("max", "min"), order=order)), shape, numbered(5, 3))
    with pytest.raises(ConfigError, match=r"input\.layout: of windows"):
        window_chain(5, 3, features=Features(use=("max",)), layout="channels_first")


def test_bands_count_as_values_of_a_feature() -> None:
    bands = Feature(name="band_energy", bands=((0, 10), (10, 20)))
    chain = Chain(
        input=Input(channels=("a", "b", "c"), rate="40 Hz"),
        window=Window(size=8),
        output=REGRESSOR,
        features=Features(use=(bands,)),
    )
    assert put_in(chain, (1, 2, 3), numbered(8, 3)).shape == (1, 2, 3)


# --- pictures --------------------------------------------------------------------------------


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([("r", "g", "b"), ("grey",), ("b", "g", "r")]),
    st.sampled_from(sorted(AXES)),
)
def test_each_pixel_stands_where_its_place_and_colour_are(
    width: int, height: int, channels: tuple[str, ...], layout: Layout
) -> None:
    pixels = np.arange(height * width * len(channels), dtype=np.float32).reshape(height, width, len(channels))
    order = (0, 1, 2) if layout == "channels_last" else (2, 0, 1)
    shape = tuple(pixels.shape[axis] for axis in order)

    found = put_in(
        picture_chain(width, height, channels, layout=layout), (1, *shape), pixels.reshape(-1, len(channels))
    )

    assert found[0].tolist() == pixels.transpose(order).tolist()


@pytest.mark.parametrize("shape", [(1, 48, 96, 3), (1, 3, 48, 96), (1, 96, 3, 48), (1, 48, 3, 96)])
def test_height_and_width_are_not_taken_for_one_another(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"input\.image: values \[96, 48, 3\] or \[3, 96, 48\] do not fit"):
        put_in(picture_chain(48, 96, ("r", "g", "b")), shape, np.zeros((48 * 96, 3), np.float32))


# --- sizes that a model leaves open ----------------------------------------------------------


@pytest.mark.parametrize(
    ("extents", "chain", "shape"),
    [
        ((-1, 3, -1), window_chain(128, 3), [1, 3, 128]),
        ((-1, -1, 3), window_chain(128, 3), [1, 128, 3]),
        ((-1, -1, -1), window_chain(128, 3), [1, 128, 3]),
        ((-1, -1, -1), window_chain(128, 3, layout="channels_first"), [1, 3, 128]),
        ((-1, -1, -1, 3), picture_chain(8, 4, ("r", "g", "b")), [1, 4, 8, 3]),
        ((-1, 3, -1, -1), picture_chain(8, 4, ("r", "g", "b")), [1, 3, 4, 8]),
        ((1, -1, 8, 1), picture_chain(8, 4, ("grey",)), [1, 4, 8, 1]),
    ],
)
def test_open_sizes_become_those_of_the_window(
    engine: Engine, tmp_path: Path, extents: tuple[int, ...], chain: Chain, shape: list[int]
) -> None:
    closed = tuple(abs(extent) for extent in extents)
    path = tmp_path / "open.tflite"
    path.write_bytes(means(closed, [0], extents))

    model = open_model(chain, path, engine)

    assert [list(one.shape) for one in model.interpreter.inputs] == [shape]
    model.close()


# --- with models -----------------------------------------------------------------------------


def test_channels_first_models_answer_as_a_plain_interpreter_that_is_fed_by_hand(
    engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "means.tflite"
    path.write_bytes(means((1, 3, 128), [2]))
    window = np.random.default_rng(1).normal(size=(128, 3)).astype(np.float32)
    plain = engine.module.Interpreter(model_path=str(path))
    plain.allocate_tensors()
    plain.set_tensor(plain.get_input_details()[0]["index"], np.ascontiguousarray(window.T[None]))
    plain.invoke()

    model = open_model(window_chain(128, 3), path, engine)

    assert model.scores(window).tolist() == plain.get_tensor(plain.get_output_details()[0]["index"])[0].tolist()
    model.close()


@pytest.mark.parametrize("shape", [(1, 3, 8), (1, 8, 3)])
def test_an_anomaly_detector_compares_what_lies_in_the_same_place(
    engine: Engine, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "identity.tflite"
    output = Output(kind="anomaly", labels=("normal", "anomaly"))
    chain = Author(
        name="m",
        version=1,
        input=Input(channels=("x", "y", "z")),
        window=Window(size=8),
        output=output,
        decide=Decide(enter=0.5),
    )
    path.write_bytes(identity(shape))
    model = open_model(chain, path, engine)
    assert model.scores(numbered(8, 3)).tolist() == [0.0]
    model.close()
    path.write_bytes(identity(shape, (1, shape[2], shape[1])))
    with pytest.raises(ModelError, match="an anomaly detector gives back its input"):
        open_model(chain, path, engine)


def test_a_packed_manifest_states_the_layout_that_the_shape_decided(engine: Engine, tmp_path: Path) -> None:
    """Examples are kept in the order of the tensor: the next version must not read them in another."""
    (tmp_path / "m.tflite").write_bytes(means((1, 3, 128), [2]))
    (tmp_path / "m.toml").write_text(
        'name = "m"\nversion = 1\n[model]\nfile = "m.tflite"\n[input]\nchannels = ["x", "y", "z"]\n[window]\nsize = 128\n'
        '[output]\nkind = "regressor"\n[self_test]\nfile = "st.npz"\n'
    )
    author = Author.read(tmp_path / "m.toml")
    model = open_model(author, tmp_path / "m.tflite", engine)
    samples = Samples(np.random.default_rng(2).normal(size=(4, 128, 3)).astype(np.float32))
    record_self_test(model, author, list(try_samples(model, author, samples)), tmp_path / "st.npz")
    model.close()

    packed = check_weights(author, tmp_path, tmp_path / "m.tflite").author

    assert author.input.layout is None
    assert packed.input.layout == packed.fields(tmp_path)["input"].layout == "channels_first"
    assert fingerprint(packed) != fingerprint(author)


# --- drafts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "rows", "channels", "first"),
    [
        ((1, 3, 128), 128, 3, True),
        ((1, 6, 50), 50, 6, True),
        ((1, 9, 64, 1), 64, 9, True),
        ((1, 1, 22, 256), 256, 22, True),
        ((1, 128, 3), 128, 3, False),
        ((1, 49, 10, 1), 49, 10, False),
        ((1, 10, 16), 10, 16, None),
        ((1, 64, 8, 8), 64, 64, True),
        ((1, 8, 8, 6), 64, 6, False),
        ((1, 6, 8, 8), 64, 6, True),
        ((1, 3, 8, 8), 64, 3, True),
        ((1, 1, 24), 1, 24, False),
    ],
)
def test_a_draft_guesses_which_axis_holds_the_channels(
    shape: tuple[int, ...], rows: int, channels: int, first: bool | None
) -> None:
    part = guess_input(tensor(*shape), None)

    assert (part.rows, part.channels, part.first) == (rows, channels, first)
    layout = "channels_first" if first else None
    CompiledChain(window_chain(rows, channels, layout=layout), [tensor(*shape)], [tensor(1, 2)])


def test_a_network_that_goes_through_the_rows_has_them_first() -> None:
    part = guess_input(tensor(1, 5, 24), None, recurrent=True)

    assert (part.rows, part.channels, part.first) == (5, 24, False)


@pytest.mark.parametrize(
    ("shape", "size", "first"),
    [
        ((1, 3, 96, 48), (48, 96), True),
        ((1, 96, 48, 3), (48, 96), False),
        ((1, 3, 9, 9), (9, 9), True),
        ((1, 1, 28, 28), (28, 28), False),
        ((1, 28, 28, 1), (28, 28), False),
    ],
)
def test_a_draft_knows_pictures_in_both_layouts(shape: tuple[int, ...], size: tuple[int, int], first: bool) -> None:
    part = guess_input(tensor(*shape), None)

    assert (part.size, part.first) == (size, first)
