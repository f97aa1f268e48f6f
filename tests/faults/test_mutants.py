"""Mistakes that a careless change could make, one at a time: a test of `make test` fails each time, and its promise is named."""

from __future__ import annotations

from collections import Counter

import pytest

from support import promises, ram
from support.engines import ENGINES
from support.faults import LONG
from support.mutants import Mutant, copied, make_test
from support.promises import (
    BAD_READINGS,
    BAD_SITE,
    DECIDED,
    HUB,
    NEVER_OLDER,
    NO_REPLAY,
    NOTHING_LOST,
    NOTHING_READ,
    RAM_ONLY,
    SIGNED,
    SWAPS,
)

_ENGINE = ENGINES[0]

MUTANTS = {
    "a bad signature is accepted": Mutant(
        "edged.formats.cose.sign1.Sign1.verify",
        "public.verify(self.signature, _sig_structure(external_aad, self.unverified))\n",
        "\n",
        "integration/test_bad_packages.py::test_a_flipped_bit_is_refused_by_the_command[signature]",
        SIGNED,
    ),
    "a publisher may sign every model": Mutant(
        "edged.formats.package.verify.Publishers.may_sign",
        "if name not in names:",
        "if not names:",
        "integration/test_bad_packages.py::test_a_publisher_may_not_sign_models_that_it_was_not_named_for",
        SIGNED,
    ),
    "an expired package is installed": Mutant(
        "edged.formats.package.verify.VerifiedPackage.check_dates",
        "clock.now > self.manifest.expires",
        "clock.now < self.manifest.created",
        "integration/test_attacks.py::test_freeze_with_a_package_that_has_expired",
        SIGNED,
    ),
    "the version floor is skipped": Mutant(
        "edged.board.installation.Board.check_acceptable",
        "package.check_floor(floor)\n",
        "\n",
        "integration/test_attacks.py::test_rollback_to_a_version_that_was_superseded",
        NEVER_OLDER,
    ),
    "the version floor is not raised": Mutant(
        "edged.board.installation.Board._install",
        "self.accept(package, state)\n",
        "\n",
        "integration/test_bad_packages.py::test_an_older_version_is_refused",
        NEVER_OLDER,
    ),
    "a lower version lowers the floor": Mutant(
        "edged.board.state.store.State.accept",
        '" WHERE excluded.version > version"',
        '""',
        "integration/test_rollback.py::test_going_back_lets_no_other_old_version_in",
        NEVER_OLDER,
    ),
    "a version below the lowest that may be served is loaded": Mutant(
        "edged.board.installation.Board.load",
        "package.check_minimum(self.lowest(manifest.name, state))\n",
        "pass\n",
        "integration/test_minimum.py::test_a_version_that_was_good_is_checked_against_the_minimum_at_every_load",
        NEVER_OLDER,
    ),
    "a plaintext that was not signed is run": Mutant(
        "edged.formats.package.verify.UnwrappedPackage.decrypt_into",
        '_check_digest(f"plaintext of part {part.kind!r}", digest, part.plaintext)\n',
        "pass\n",
        "integration/test_bad_packages.py::test_another_plaintext_than_the_one_signed_is_refused",
        SIGNED,
    ),
    "the weights in plain are left in a file": Mutant(
        "edged.model.live.load",
        "unwrapped.decrypt_into(part.view, number)\n",
        'unwrapped.decrypt_into(part.view, number)\n            np.frombuffer(part.view, "u1").tofile("last.tflite")\n',
        f"integration/test_ram_only.py::test_weights_are_in_no_file_that_the_daemon_has_or_might_have_written[{_ENGINE}]",
        RAM_ONLY,
    ),
    "a model that was replaced stays in memory": Mutant(
        "edged.board.pipeline.lane.Lane.end_trial",
        "probation.before.close()",
        "pass",
        f"integration/test_ram_only.py::test_weights_are_in_memory_from_load_to_unload_and_only_where_it_is_locked[{_ENGINE}-reload]",
        RAM_ONLY,
    ),
    "a model that is closed keeps its file open": Mutant(
        "edged.model.live.LiveModel.close",
        "self._buffer.close()",
        "pass",
        f"integration/test_ram_only.py::test_weights_are_in_memory_from_load_to_unload_and_only_where_it_is_locked[{_ENGINE}-start]",
        RAM_ONLY,
    ),
    "what is freed is not overwritten": Mutant(
        "edged.base.libc.overwrite_freed_memory",
        "_M_PERTURB, 0xFF",
        "_M_PERTURB, 0",
        f"integration/test_ram_only.py::test_no_weights_stay_in_memory_when_a_load_fails[{_ENGINE}]",
        RAM_ONLY,
    ),
    "a model that was replaced is let go and not wiped": Mutant(
        "edged.base.memory.SecretBuffer.close",
        "wipe(self.view)\n",
        "\n",
        f"integration/test_ram_only.py::test_weights_are_in_memory_from_load_to_unload_and_only_where_it_is_locked[{_ENGINE}-start]",
        RAM_ONLY,
    ),
    "small chunks that were freed are not overwritten": Mutant(
        "edged.base.memory.SecretBuffer.close",
        "libc.trim()",
        "pass",
        f"integration/test_ram_only.py::test_no_weights_stay_in_memory_when_a_load_fails[{_ENGINE}]",
        RAM_ONLY,
    ),
    "memory that is allocated later is not locked": Mutant(
        "edged.base.libc.lock_all",
        "_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT",
        "_MCL_CURRENT | _MCL_ONFAULT",
        f"integration/test_ram_only.py::test_weights_are_in_memory_from_load_to_unload_and_only_where_it_is_locked[{_ENGINE}-start]",
        RAM_ONLY,
    ),
    "a core dump may hold memory": Mutant(
        "edged.base.memory._empty_cores",
        'Path("/proc/self/coredump_filter").write_text("0")\n',
        "\n",
        "integration/test_ram_only.py::test_the_log_says_at_start_that_all_protections_hold",
        RAM_ONLY,
    ),
    "the runtime's map of the model may be dumped": Mutant(
        "edged.base.memory.SecretBuffer.seal_runtime_maps",
        "libc.advise(start, end - start, mmap.MADV_DONTDUMP)\n",
        "\n",
        f"integration/test_ram_only.py::test_weights_are_in_memory_from_load_to_unload_and_only_where_it_is_locked[{_ENGINE}-start]",
        RAM_ONLY,
    ),
    "each window begins a row late": Mutant(
        "edged.model.signal.window.RowWindow.push",
        "self._filled = self._size - self._hop",
        "self._filled = self._size - self._hop + 1",
        f"integration/test_loop.py::test_every_gearbox_window_is_decided_right_row_by_row[plain-{_ENGINE}-own]",
        DECIDED,
    ),
    "results are as long as their label": Mutant(
        "edged.formats.channel.result_encoder.ResultEncoder.encode",
        "pad = self._size[type(of), bool(answer.source)] - len(body)",
        "pad = PAD_LEAST",
        "integration/test_loop.py::test_the_broker_in_between_reads_nothing",
        NOTHING_READ,
    ),
    "a reading is acknowledged before its result is safe": Mutant(
        "edged.board.delivery.path.MessagePath._take",
        "self._ask_about(lane, jobs, hold if lane.holds_whole_windows else None)",
        "self._ask_about(lane, jobs, None)",
        "faults/test_moments.py::test_killed_before_the_broker_has_the_result",
        NOTHING_LOST,
    ),
    "in an outage a reading is acknowledged before its result is stored": Mutant(
        "edged.board.delivery.outbox.Outbox.store",
        "self._fresh.append(result)\n",
        "self._fresh.append(result)\n            result.let_go()\n",
        "faults/test_moments.py::test_killed_in_an_outage_before_the_result_is_stored",
        NOTHING_LOST,
    ),
    "results that are stored are not looked for at the start": Mutant(
        "edged.board.delivery.outbox.Outbox.__init__",
        "self._newest, self._read_to = store.newest(), 0",
        "self._newest = self._read_to = store.newest()",
        "faults/test_moments.py::test_killed_in_an_outage_after_the_result_is_stored",
        NOTHING_LOST,
    ),
    "the broker keeps no session": Mutant(
        "edged.broker.options.configured",
        "session_expiry=round(parse_duration(table.session)),",
        "session_expiry=0,",
        "faults/test_moments.py::test_killed_while_readings_come",
        NOTHING_LOST,
    ),
    "an answer that is given again counts as another": Mutant(
        "edged.formats.channel.ledger._fewest_readings",
        "fewest = max(fewest, redelivered) + fresh",
        "fewest = fewest + redelivered + fresh",
        "faults/test_moments.py::test_killed_before_it_hears_that_the_broker_has_the_result",
        NOTHING_LOST,
    ),
    "a reading that was accepted last is accepted again": Mutant(
        "edged.formats.channel.reading.ReplayGuard.check",
        "if count <= self._marks.get(key, -1):",
        "if count < self._marks.get(key, -1):",
        "integration/test_bad_readings.py::test_a_replayed_message_is_passed_over",
        NO_REPLAY,
    ),
    "a reading is accepted on another topic": Mutant(
        "edged.formats.channel.reading.reading_aad",
        '["edged.reading.1", sensor, channel]',
        '["edged.reading.1", sensor]',
        "integration/test_bad_readings.py::test_a_message_moved_from_another_topic_is_passed_over",
        NO_REPLAY,
    ),
    "what was accepted is forgotten at the end": Mutant(
        "edged.board.daemon.recovery.ReplayMarks.save",
        "self._state.save_marks(self._unsaved.items())\n",
        "\n",
        "integration/test_bad_readings.py::test_a_sealed_reading_is_not_accepted_again_after_a_restart[terminated]",
        NO_REPLAY,
    ),
    "a window with a row too many is answered": Mutant(
        "edged.board.pipeline.lane.Lane._whole",
        "len(rows) != self._rows",
        "len(rows) < self._rows",
        "integration/test_bad_readings.py::test_a_reading_that_is_not_as_configured_is_passed_over[f32le: a row too many]",
        BAD_READINGS,
    ),
    "a message that is too long is taken": Mutant(
        "edged.board.pipeline.lane.Lane.open",
        "if size > self._limit:",
        "if size < 0:",
        "integration/test_bad_readings.py::test_each_bad_reading_is_counted_and_each_kind_is_logged_once_a_topic",
        BAD_READINGS,
    ),
    "a bad reading is tried again": Mutant(
        "edged.board.delivery.path.REFUSALS",
        "(ReadingError, TrustError, FormatError, ModelError)",
        "(TrustError, FormatError, ModelError)",
        "integration/test_bad_readings.py::test_each_bad_reading_is_counted_and_each_kind_is_logged_once_a_topic",
        BAD_READINGS,
    ),
    "a key that is unknown is not named": Mutant(
        "edged.config.mistakes.explain",
        'return [*steps, unknown["name"]], "unknown key"',
        'return steps, "unknown key"',
        "integration/test_bad_site.py::test_a_mistake_in_the_configuration_is_named_with_its_key[misspelt key in a table]",
        BAD_SITE,
    ),
    "the way out of an open directory shuts everybody out": Mutant(
        "edged.base.files.check_private",
        "PRIVATE_DIRECTORY if stat.S_ISDIR(found.st_mode) else PRIVATE_FILE",
        "PRIVATE_FILE",
        "integration/test_bad_site.py::test_what_others_may_open_is_refused_with_the_chmod_that_mends_it[state-457-0700]",
        BAD_SITE,
    ),
    "a version that was taken back goes on": Mutant(
        "edged.board.daemon.loader.load_models",
        "now[2] in rejected or now[2] < lowest",
        "now[2] < lowest",
        "integration/test_rollback.py::test_a_version_on_trial_is_taken_back",
        SWAPS,
    ),
    "a version that fails its trial stays": Mutant(
        "edged.board.delivery.path.MessagePath.end_trial",
        "lane.roll_back()",
        "lane.end_trial()",
        "integration/test_life.py::test_a_version_that_is_too_slow_in_its_trial_gives_way_and_no_window_is_lost",
        SWAPS,
    ),
    "a hub accepts a result again": Mutant(
        "edged.formats.channel.receiver.Receiver._new_count",
        "if self._ledger.is_marked(device, epoch.key.kid, count):",
        "if epoch.last < count:",
        "hub/test_hub_attacks.py::test_result_replayed_also_after_a_restart",
        HUB,
    ),
    "a hub forgets what it accepted when it ends": Mutant(
        "edged.hub.state.HubState.mark",
        "self._changed.add(key)\n",
        "\n",
        "hub/test_hub_attacks.py::test_result_replayed_also_after_a_restart",
        HUB,
    ),
    "a hub believes an older announcement": Mutant(
        "edged.formats.channel.receiver.Receiver._check_newer",
        "if newest.epoch < before.epoch:",
        "if newest.epoch < before.epoch and newest.kid == before.kid:",
        "hub/test_hub_attacks.py::test_announcement_of_an_older_epoch_replayed_also_after_a_restart",
        HUB,
    ),
}

QUICK = ("a bad signature is accepted", "a reading that was accepted last is accepted again")
"""These are made without `make faults`, too."""

_CHOSEN = list(MUTANTS) if LONG else list(QUICK)
_LONGEST = 300.0
_NEEDS_ROOT = "integration/test_ram_only.py"

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(2 * _LONGEST)]


def _marked(title: str) -> object:
    """Return a mutant as a parameter: what looks into other processes needs root."""
    looks = MUTANTS[title].test.startswith(_NEEDS_ROOT)
    skip = pytest.mark.skipif(looks and bool(ram.cannot_look()), reason=ram.cannot_look())
    return pytest.param(title, id=title, marks=[skip, pytest.mark.root] if looks else [])


def test_each_promise_is_broken_by_some_mutant() -> None:
    promised = {mark.args[0] for mark in vars(promises).values() if isinstance(mark, pytest.MarkDecorator)}
    assert {mutant.promise.args[0] for mutant in MUTANTS.values()} == promised


@pytest.mark.parametrize("title", MUTANTS)
def test_the_table_fits_the_code(title: str) -> None:
    """A mutant that changes nothing would be caught by nobody."""
    with copied() as copy:
        copy.mutate(MUTANTS[title])


@pytest.mark.parametrize("title", [_marked(title) for title in _CHOSEN])
def test_a_mutant_breaks_its_promise(title: str) -> None:
    mutant = MUTANTS[title]
    assert mutant.test.partition("/")[0] in make_test()[1]
    with copied() as copy:
        copy.mutate(mutant)
        run = copy.test(mutant.test, timeout=_LONGEST)
        assert copy.was_imported, run.output
        said = run.check_red(mutant.promise)
    print(f"\n{title}: {mutant.promise.args[0]}: BROKEN, says {mutant.test}: {said.splitlines()[0][:100]}")


def test_without_a_mistake_all_promises_are_kept() -> None:
    """The control: a copy fails none of these tests for being one."""
    cannot = bool(ram.cannot_look())
    chosen = [
        mutant
        for mutant in (MUTANTS[title] for title in _CHOSEN)
        if not (cannot and mutant.test.startswith(_NEEDS_ROOT))
    ]
    tests = list(dict.fromkeys(mutant.test for mutant in chosen))
    with copied() as copy:
        run = copy.test(*tests, timeout=_LONGEST)
    assert run.code == pytest.ExitCode.OK, run.output
    assert Counter(case.outcome for case in run.cases) == {"passed": len(tests)}, run.output
    assert run.broken == set()
    assert run.kept == {mutant.promise.args[0] for mutant in chosen}
