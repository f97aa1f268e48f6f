"""Checks that the ``[[model]]`` tables of a board fit the manifests of the models that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edged.base.errors import ConfigError, error_context
from edged.base.topics import topic_matches
from edged.config.model import CollectTable, ModelConfig
from edged.formats.package.manifest import Manifest
from edged.formats.readings import FORMATS
from edged.formats.spec import Chain
from edged.model.reading import Decoder, Layout
from edged.model.signal.rows import Timeline


def check_binding(config: ModelConfig, manifest: Manifest) -> None:
    """Check that a board's ``[[model]]`` table fits the manifest of the model that it names.

    :raises ConfigError: it names a channel that the manifest lacks, a field that is no JSON pointer, tunes what the
        publisher does not allow, or brings readings of another kind than the model takes.
    """
    where = f"[[model]] {config.name}"
    channels = manifest.input.channels
    for table, names in (("fields", config.fields), ("calibrate", config.calibrate), ("topics", config.topics)):
        for name in names:
            if name not in channels:
                raise ConfigError(
                    f"{where}: {table}.{name}: the model has no such channel", hint=f"it has {', '.join(channels)}"
                )
    if config.topics and (missing := set(channels) - set(config.topics)):
        raise ConfigError(f"{where}: topics.{min(missing)}: missing: nothing brings this channel")
    _check_tune(where, config, manifest)
    pictures = manifest.input.image is not None
    if config.from_ is None and pictures != FORMATS[config.format].is_picture:
        fitting = sorted(name for name, one in FORMATS.items() if one.is_picture)
        raise ConfigError(
            f"{where}: format: the model takes {'pictures' if pictures else 'rows of numbers'}, {config.format!r} is"
            " something else",
            hint=f"of {', '.join(fitting)}" if pictures else None,
        )
    if config.journal and (manifest.rows is None or Timeline.needed(manifest)):
        raise ConfigError(f"{where}: journal: for windows of so many rows, without times, rate and gaps")
    with error_context(where):
        Decoder(Layout.of(config, manifest.input, channels, limit=0))
    if config.collect is not None:
        _check_collect(where, config.collect, manifest)


def _check_tune(where: str, config: ModelConfig, manifest: Manifest) -> None:
    for name, value in config.tune.items():
        bounds = manifest.tunable.get(name)
        if bounds is None:
            raise ConfigError(
                f"{where}: tune.{name}: the publisher does not let a site set it",
                hint=f"it may set {', '.join(manifest.tunable) or 'nothing'}",
            )
        if not bounds[0] <= value <= bounds[1]:
            raise ConfigError(
                f"{where}: tune.{name}: {value} is out of bounds",
                hint=f"from {bounds[0]} to {bounds[1]}, says the publisher",
            )


def _check_collect(where: str, collect: CollectTable, manifest: Manifest) -> None:
    if len(manifest.parts) > 1 or manifest.model.feedback:
        raise ConfigError(f"{where}: collect: for models with one input, which the window fills")
    wanted = "anomaly" if collect.label == "input" else "classifier"
    if manifest.output.kind != wanted:
        raise ConfigError(
            f"{where}: collect.label: {collect.label!r} goes with output.kind {wanted!r}, the model's is"
            f" {manifest.output.kind!r}",
            hint="an anomaly detector learns the window itself, a classifier needs labels",
        )
    rule = collect.rule
    if rule is not None and rule.column not in manifest.input.channels:
        raise ConfigError(
            f"{where}: collect.rule.column: the model has no channel {rule.column!r}",
            hint=f"it has {', '.join(manifest.input.channels)}",
        )
    named = [("names", label) for label in collect.names.values()]
    named += [] if rule is None else [("rule.then", rule.then), ("rule.otherwise", rule.otherwise or rule.then)]
    for key, label in named:
        if label not in manifest.output.labels:
            raise ConfigError(
                f"{where}: collect.{key}: {label!r} is no label of the model",
                hint=f"it has {', '.join(manifest.output.labels)}",
            )


def check_state(config: ModelConfig, *, keeps_state: bool) -> None:
    """Check that a model which keeps its state inside the runtime has one stream only.

    :raises ConfigError: it may have several.
    """
    if keeps_state and any("+" in topic for topic in config.filters):
        raise ConfigError(
            f"[[model]] {config.name}: topic: the model keeps its state inside the runtime, for one stream of windows",
            hint="one [[model]] for each topic, without +",
        )


def check_chain(config: ModelConfig, manifest: Manifest, above: Mapping[str, Manifest]) -> None:
    """Check that the models whose answers this one reads have the labels that it needs.

    :param above: manifests by channel.
    :raises ConfigError: they have not, or cannot be used themselves.
    """
    where = f"[[model]] {config.name}"
    for key, channel in (("from", config.from_), ("when", config.when and config.when.channel)):
        if channel is not None and channel not in above:
            raise ConfigError(f"{where}: {key}: the model on channel {channel!r} cannot be used")
    if config.from_ is not None:
        with error_context(f"{where}: from"):
            columns_from(above[config.from_], manifest)
    if config.when is not None:
        source = above[config.when.channel]
        if unknown := config.when.labels - {*_labels(source)}:
            raise ConfigError(
                f"{where}: when.label: {min(unknown)!r} is no label of {source.name}",
                hint=f"it has {', '.join(_labels(source)) or 'none'}",
            )


def columns_from(source: Manifest, manifest: Manifest) -> list[int]:
    """Return the indices of one model's scores that are the channels of another's rows: by label, or all in order.

    :raises ConfigError: they do not fit.
    """
    channels = manifest.input.channels
    if manifest.input.image is not None:
        raise ConfigError(f"{manifest.name} takes pictures, and scores are rows of numbers")
    if source.output.kind != "classifier":
        outputs = 1 if source.output.kind == "anomaly" else source.outputs
        if outputs != len(channels):
            many = "an unknown number of" if outputs is None else outputs
            raise ConfigError(
                f"input.channels: {manifest.name} takes {len(channels)} channels, and {source.name} gives {many}"
                " scores",
                hint="one channel for each score, in their order; `edged pack` writes their number into the package",
            )
        return list(range(len(channels)))
    if unknown := set(channels) - set(source.output.labels):
        raise ConfigError(
            f"input.channels: {min(unknown)!r} is no label of the model that it gets its rows from",
            hint=f"it has {', '.join(source.output.labels)}",
        )
    return [source.output.labels.index(channel) for channel in channels]


def _labels(chain: Chain) -> Iterable[str]:
    otherwise = () if chain.decide is None or chain.decide.otherwise is None else (chain.decide.otherwise,)
    return (*chain.output.labels, *otherwise)


def levels_of(filters: Iterable[str], topic: str) -> tuple[int, str]:
    """Return the index of the filter that a topic matches, and the levels that its `+` stand for.

    :raises LookupError: it matches none.
    """
    for number, one in enumerate(filters):
        if topic_matches(one, topic):
            pairs = zip(one.split("/"), topic.split("/"), strict=True)
            return number, "/".join(level for wanted, level in pairs if wanted == "+")
    raise LookupError(topic)
