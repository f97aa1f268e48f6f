"""The thread of a slow model."""

from __future__ import annotations

import os
import threading

from edged.board.delivery.inference import ModelThread


def test_a_slow_models_thread_stands_back_behind_the_main_loop() -> None:
    woken = threading.Event()
    thread = ModelThread(lambda _: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), woken.set)
    thread.submit(None)
    assert woken.wait(10)
    ((_, niceness),) = thread.take_done()
    thread.close()

    here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert isinstance(niceness, int)
    assert niceness > here or here == 19
