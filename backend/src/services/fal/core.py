"""What a FalClient is made of, put together; built at its first call. Nothing is decided here."""

from __future__ import annotations

from urllib.request import getproxies

from services.fal.downloads import Downloads
from services.fal.endpoints import Endpoints
from services.fal.jobs import Jobs
from services.fal.language import Language
from services.fal.own_photokit import OwnPhotokit
from services.fal.pictures import Pictures
from services.fal.product import Product
from services.fal.settings import Settings
from services.fal.wire import Wire
from services.fal.workflow import Workflow


class Core:
    """The parts of one client, sharing one TLS context and one set of connections."""

    def __init__(self, settings: Settings) -> None:
        self.wire = Wire(settings)
        endpoints = Endpoints(settings.endpoints, account=f"{settings.key}@{getproxies().get('https')}")
        self.jobs = Jobs(self.wire, endpoints, settings.max_concurrency)
        self.language = Language(self.jobs, self.wire)
        self.pictures = Pictures(self.jobs, endpoints, OwnPhotokit(settings.key, self.wire.tls))
        self.product = Product(self.language, self.pictures)
        self.workflow = Workflow(self.wire, self.product)
        self.downloads = Downloads(self.wire.tls, settings.download_hosts)

    def close(self) -> None:
        self.wire.close()
