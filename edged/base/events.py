"""The kinds of event in the journal: a MESSAGE_ID for each, and the fields that describe one event."""

from __future__ import annotations

from enum import Enum
from typing import TypedDict, Unpack

from edged.base.errors import BrokerError, DuplicateDeviceError, RefusedError, TakeoverError


class Facts(TypedDict, total=False):
    """The subject of an event. In the journal, ``model`` is ``EDGED_MODEL``, and so on.

    :ivar error: the class of what was raised.
    :ivar device: the board that a hub reports on.
    """

    model: str
    version: int
    channel: str
    topic: str
    device: str
    epoch: int
    error: str


class Event(Enum):
    """A kind of event. Its value is its MESSAGE_ID (sd_journal_print(3)), which never changes.

    ``systemd/edged.catalog`` explains each, ``docs/journal.md`` lists them.
    """

    STARTED = "2d642b35a7c94771adc7fae6168b372e"
    READY = "b16d3cb9cf514484b539e2d33b37c1ff"
    STOPPED = "75aa3f577e67436e82f1566d4e76d4db"
    FAILED = "f6da52a9510647ce91b1415d440454a5"
    CRASHED = "3a805a8349724c5ba8abbe7767349f70"
    UNCLEAN_END = "765353d829cb4ff1ac1646b34b3a4ac3"
    PROTECTION = "ba5872d1c6f34e31b5400864ef3cbfd9"
    RELOADING = "8aa5d96ac2be40d5a8fe6364551d2d1c"
    RELOAD_REFUSED = "162e17aad1ff42aaa1a3e455c5c8ec02"
    INTERNAL_ERROR = "af46b07da4484dc4a6bebd82d7d73d72"

    MODEL_INSTALLED = "9789baf572bc4632a45aa186d58e2dbe"
    MODEL_SERVING = "1f10cc31c0cd4099b9050ebf8d5bcaed"
    PACKAGE_REFUSED = "562fe85e23b34e758d8ba9cce198aa77"
    TRIAL_PASSED = "27d1c6a9d6e2406ebdcb2dc8d7e71d52"
    TRIAL_FAILED = "a351f85f686f489eb1075fcc45e28368"
    ROLLED_BACK = "7774847addda461188513708a3e496e7"

    READING_REFUSED = "4ac5a7f82112402580c974f5faa5800e"
    READING_FAILED = "268af52bd4a8465c9211942bad971bfb"
    SET_ASIDE = "f10e7d9905294da7b8b4a69ad06e7354"
    REPLAYED = "bc9c662a11204d0d90a4a5abe10bf839"

    RESULT_DROPPED = "b0b22a31aeb44a28b8a101d26c647b5e"
    RESULTS_UNHEARD = "2d4fa6accd22409ebcfc93cabc2f1615"
    EPOCH_BEGUN = "ed2471dd6c2a4de68eb6c09224729cc5"
    DUPLICATE_DEVICE = "cca2e3dfb3db4e669920f5545c80f251"

    DEGRADED = "d42c342eb6f04f1ca0d914c5918ac16f"
    RECOVERED = "fa4e8bf44d11426889d9fc73ffaf5a22"
    STATE_TROUBLE = "835cf2dab619407096fc661088bc508f"

    BROKER_UP = "a309349ede344115b7bea3f9aec8ce19"
    BROKER_DOWN = "89f8ef7a174d4698af396d747bff09ab"
    BROKER_REFUSED = "07d312d773bd468bbc53fb6fb9970767"

    BOARD_ENROLLED = "dc022834e5154358bb1d9cbbba73f462"
    BOARD_REMOVED = "3c1e51c3367f4c819de1f29ee645b790"
    RECORD_REFUSED = "91828ecd768c44f591b003ec7c748c2c"
    STRANGER = "993509e9ac18432ea792265a746d1d68"
    EPOCH_ANNOUNCED = "75a2883368274b43aa9630ec6494d40f"
    RESULT_REFUSED = "5733eed766a44110bd4563237485b172"
    PLAINTEXT_UPSTREAM = "d70fbd4a6e8c4bd887ea82e3c579fb2b"

    @property
    def label(self) -> str:
        """The name that people use: ``EDGED_EVENT``."""
        return self.name.lower().replace("_", "-")

    def about(self, **facts: Unpack[Facts]) -> dict[str, dict[str, str]]:
        """Return the ``extra`` that makes a log record an event of this kind."""
        fields = {f"EDGED_{name.upper()}": str(fact) for name, fact in facts.items()}
        return {"fields": {"MESSAGE_ID": self.value, "EDGED_EVENT": self.label, **fields}}


_BY_ERROR: tuple[tuple[type[Exception], Event], ...] = (
    (DuplicateDeviceError, Event.DUPLICATE_DEVICE),
    (TakeoverError, Event.DUPLICATE_DEVICE),
    (RefusedError, Event.BROKER_REFUSED),
    (BrokerError, Event.BROKER_DOWN),
)


def event_of(error: Exception, otherwise: Event) -> Event:
    """Return the kind of event that belongs to an error, or ``otherwise``."""
    return next((event for kind, event in _BY_ERROR if isinstance(error, kind)), otherwise)
