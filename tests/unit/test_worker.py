"""The thread of a slow model."""

from __future__ import annotations

import os
import threading

from edged.board.delivery.inference import Worker


def test_a_slow_models_thread_stands_back_behind_the_main_loop() -> None:
    woken = threading.Event()
    worker = Worker(lambda _: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), woken.set)
    worker.submit(None)
    assert woken.wait(10)
    ((_, niceness),) = worker.take_done()
    worker.close()

    here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert isinstance(niceness, int)
    assert niceness > here or here == 19
