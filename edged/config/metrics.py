"""``[metrics]``: where a daemon's numbers are served."""

from __future__ import annotations

from edged.base.web.address import Listen
from edged.config.model import SiteTable


class MetricsTable(SiteTable, frozen=True):
    """``[metrics]``: numbers for Prometheus.

    :ivar listen: path of a unix socket, or ``127.0.0.1:PORT``.
    """

    listen: str

    def __post_init__(self) -> None:
        Listen.parse(self.listen)
