"""A model that boards learned goes through the publisher's hands: another key, the next version, a self-test of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from edged.base.errors import ConfigError, FormatError, ModelError, SignatureError, UnknownSignerError
from edged.federated.fit import fit
from edged.federated.learned import Learned
from edged.federated.trainer import Trainer
from edged.federated.weights import Weights, rewritten
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record, Role
from edged.formats.package.manifest import Manifest, Training
from edged.formats.package.verify import Package
from edged.model.runtime import choose
from support import vibration
from support.engines import ENGINES
from support.published import answers, enrol, install_learned, lay_out
from support.site import Site

WINDOWS = 5  # of every condition
SIGNER, ECDH = PrivateKey.generate(), PrivateKey.generate()
AGGREGATOR = Record(Role.AGGREGATOR, "fleet", SIGNER.public, ECDH.public, None, int(time.time()))


def training(**other: object) -> Training:
    said = {
        "run": 7,
        "aggregator": SIGNER.public.thumbprint,
        "rounds": 10,
        "boards": 3,
        "strategy": "fedavg",
        "masked": True,
        "score": 0.97,
    }
    return Training(**(said | other))  # type: ignore[arg-type]


def write(path: Path, weights: Weights, *, model: str = "vibration", signer: PrivateKey = SIGNER) -> Path:
    Learned.of(model, weights, training()).write(path, signer)
    return path


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Learned on three boards' windows."""
    chain = vibration.Chain()
    boards = [vibration.board(chain, number, 200) for number in range(3)]
    trainer = Trainer(vibration.WEIGHTS, choose())
    x, y = np.concatenate([one.x for one in boards]), np.concatenate([one.y for one in boards])
    return fit(trainer, trainer.weights(), x, y, vibration.PLAN, np.random.default_rng(1)).weights


def learned(site: Site, weights: Weights) -> list[object]:
    """Return how what boards learned is packed."""
    (site.path / "fleet.pub").write_bytes(AGGREGATOR.encode(SIGNER))
    written = write(site.path / "vibration-7.learned", weights)
    return [*lay_out(site), "--learned", written, "--aggregator", "fleet.pub"]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_boards_learned_comes_back_sealed_and_answers_over_mqtt(site: Site, weights: Weights, engine: str) -> None:
    test = vibration.held_out(vibration.Chain(), 1, WINDOWS)
    before = Trainer(vibration.WEIGHTS, choose()).infer(test.x)
    expected = Trainer(rewritten(vibration.WEIGHTS.read_bytes(), weights), choose()).infer(test.x)
    enrol(site, engine)
    (site.path / "fleet.pub").write_bytes(AGGREGATOR.encode(SIGNER))
    packed = install_learned(site, write(site.path / "vibration-7.learned", weights), site.path / "fleet.pub")
    results = answers(site, test.rows)
    assert "vibration 2" in packed
    assert np.array([result["scores"] for result in results]) == pytest.approx(expected, abs=1e-5)
    assert {result["version"] for result in results} == {2}
    right = [result["label"] == vibration.CONDITIONS[label] for result, label in zip(results, test.labels, strict=True)]
    assert np.mean(right) >= 0.8 > np.mean(before.argmax(axis=1) == test.labels)


def test_the_package_says_how_its_weights_came_about(site: Site, weights: Weights) -> None:
    enrol(site)
    site.edged(*learned(site, weights), "--version", "2")
    manifest = Manifest.parse(
        Package.parse(memoryview((site.path / "vibration-2.edged").read_bytes())).signed.unverified
    )
    assert manifest.training == training()
    shown = json.loads(site.edged("inspect", "vibration-2.edged", "--json").stdout)
    assert shown["trained"] == "10 rounds of 3 boards by fedavg, updates masked; held-out score 97.00%"


def test_a_version_that_does_not_grow_is_refused(site: Site, weights: Weights) -> None:
    enrol(site)
    refused = site.edged(*learned(site, weights), "--version", "1", check=False)
    assert refused.returncode == 64
    assert "1 is not above 1" in refused.stderr


def test_weights_that_another_aggregator_signed_are_refused(tmp_path: Path, weights: Weights) -> None:
    stranger = PrivateKey.generate()
    with pytest.raises(UnknownSignerError):
        Learned.read(write(tmp_path / "stranger.learned", weights, signer=stranger), SIGNER.public)


def test_a_changed_byte_is_refused(tmp_path: Path, weights: Weights) -> None:
    path = write(tmp_path / "vibration-7.learned", weights)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SignatureError):
        Learned.read(path, SIGNER.public)


@pytest.mark.parametrize("model", ["vibration", "gearbox"])
def test_weights_go_into_no_other_model(site: Site, weights: Weights, model: str) -> None:
    """Neither under its name, nor where the shapes differ."""
    enrol(site)
    pack = learned(site, weights)
    wrong = [weights[0][:1], *weights[1:]] if model == "vibration" else weights
    write(site.path / "vibration-7.learned", wrong, model=model)
    refused = site.edged(*pack, "--version", "2", check=False)
    assert refused.returncode == (64 if model == "gearbox" else 65)
    assert "vibration" in refused.stderr


def test_a_model_without_variables_takes_no_weights(weights: Weights, models: Path) -> None:
    with pytest.raises((ModelError, FormatError)):
        rewritten((models / "gearbox" / "dnn.tflite").read_bytes(), weights)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"boards": -1}, {"run": 0}, {"score": float("nan")}, {"noise": -1.0}])
def test_a_training_record_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="training"):
        training(**wrong)
