"""What a FalClient is made of, put together; built at its first call. Nothing is decided here.

A part is imported when it is first asked for: a one-shot text call pays for no picture code.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING
from urllib.request import getproxies

from services.fal.endpoints import Endpoints
from services.fal.jobs import Jobs
from services.fal.language import Language
from services.fal.models import Models
from services.fal.settings import Settings
from services.fal.wire import Wire

if TYPE_CHECKING:
    from services.fal.downloads import Downloads
    from services.fal.pictures import Pictures
    from services.fal.product import Product
    from services.fal.workflow import Workflow


class Core:
    """The parts of one client, sharing one TLS context and one set of connections."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.wire = Wire(settings)
        self._endpoints = Endpoints(settings.endpoints, account=hash((settings.key, getproxies().get("https"))))
        self.jobs = Jobs(self.wire, self._endpoints, settings.max_concurrency)
        self.language = Language(self.jobs, self.wire, Models(settings.models, self._endpoints))

    @cached_property
    def pictures(self) -> Pictures:
        from services.fal.own_photokit import OwnPhotokit
        from services.fal.pictures import Pictures

        return Pictures(self.jobs, self._endpoints, OwnPhotokit(self.wire))

    @cached_property
    def product(self) -> Product:
        from services.fal.product import Product

        return Product(self.language, self.pictures)

    @cached_property
    def workflow(self) -> Workflow:
        from services.fal.workflow import Workflow

        return Workflow(self.wire, self.product)

    @cached_property
    def downloads(self) -> Downloads:
        from services.fal.downloads import Downloads

        return Downloads(self.wire, self._settings.download_hosts)

    def close(self) -> None:
        self.wire.close()
