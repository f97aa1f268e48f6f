"""The thread of a slow model."""

from __future__ import annotations

import os
import threading
from typing import cast

import numpy as np

from edged.board.delivery.model_threads import ModelThread, Task
from edged.model.live import Floats


def test_a_slow_models_thread_stands_back_behind_the_main_loop() -> None:
    woken = threading.Event()

    def ask(_: Task) -> Floats:
        return np.array([os.getpriority(os.PRIO_PROCESS, threading.get_native_id())], np.float32)

    thread = ModelThread(ask, woken.set)
    thread.submit(cast("Task", None))
    assert woken.wait(10)
    ((_, niceness),) = thread.take_done()
    thread.close()

    here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert isinstance(niceness, np.ndarray)
    assert niceness[0] > here or here == 19
