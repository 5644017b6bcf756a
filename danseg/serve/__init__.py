"""A trained network as an HTTP service: pictures come by POST, labels, areas or overlays go back.

``danseg serve`` starts it, and docs/serving.md says what it answers. In a program::

    service = Service(prepare_for_inference(load_model("danet_r50_cityscapes", "best.pth")))
    serve(application(service), service, bound_socket("127.0.0.1", 8000))

The way of a request: :mod:`danseg.serve.application` gives it a place in the queue,
:mod:`danseg.web.uploads` reads its picture, :mod:`danseg.serve.service` decodes it,
:mod:`danseg.serve.batcher` takes it through the network with others of its size, and
:mod:`danseg.serve.answers` makes what was asked for. :mod:`danseg.web.server` listens, and stops.
"""

from danseg.errors import require_extra

require_extra("serve", "the service", "fastapi", "uvicorn", "prometheus_client", "python_multipart")

from danseg.serve.application import application
from danseg.serve.limits import Limits
from danseg.serve.service import Service
from danseg.web.server import bound_socket, serve

__all__ = ["Limits", "Service", "application", "bound_socket", "serve"]
