"""What HTTP and gRPC have in common: from a request of the protocol to the engine and back.

It knows neither status codes nor bytes on the wire; both shells translate its values and errors.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edge_agent.serving import tensors
from edge_agent.serving.asking import Occlusion
from edge_agent.serving.engine import Engine
from edge_agent.serving.explanation import Explanation
from edge_agent.serving.predictions import Prediction
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.tensors import Asked, Described, Tensor
from edge_agent.serving.work import Answer, Terms
from edge_core.errors import SerinusError, Unavailable, UnknownModel
from edge_core.features.columns import Given
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import Observed

log = logging.getLogger(__name__)

NAME = "serinus"
EXTENSIONS = ["binary_tensor_data", "serinus_events", "serinus_explain", "serinus_feedback"]


class Metadata(NamedTuple):
    """What a client may know of a model before it asks."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Described]
    outputs: list[Described]


class Inferred(NamedTuple):
    """The answer to an inference request."""

    model: str
    version: str
    id: str
    parameters: dict[str, str]
    outputs: list[Tensor]


class Dataplane:
    """The protocol's operations over the engine. To be called on the event loop."""

    def __init__(self, engine: Engine, version: str) -> None:
        self._engine = engine
        self.version = version
        """The server's own."""

    @property
    def ready(self) -> bool:
        """Whether a release serves, of whichever model."""
        return any(lane.active is not None for lane in self._engine.lanes)

    def release_of(self, model: str, version: str = "") -> LoadedRelease:
        """The release that answers for a model.

        Args:
            model: its name.
            version: the release's; empty for whichever serves.

        Raises:
            Unavailable: no release is active.
            UnknownModel: the device does not serve it.
        """
        if not model:
            raise UnknownModel("the request names no model")
        release = self._engine.serving(model).release
        if version and version != release.ref.version:
            raise UnknownModel(
                f"{release.ref.model} has version {release.ref.version} here, no other; "
                "leave the version out to ask whichever serves"
            )
        return release

    def metadata(self, model: str, version: str = "") -> Metadata:
        """Describe a model; raises as :meth:`release_of`."""
        release = self.release_of(model, version)
        return Metadata(
            release.ref.model,
            [release.ref.version],
            release.session.runtime,
            tensors.inputs_of(release.definition),
            tensors.outputs_of(release),
        )

    def submit(
        self,
        model: str,
        version: str,
        asked: Asked,
        consumer: str,
        done: Callable[[Inferred | SerinusError], None],
    ) -> None:
        """Ask the engine; ``done`` gets the answer, or an error, on the event loop.

        The one place where a client's request for answers reaches the engine.

        Args:
            model: its name.
            version: the release's; empty for whichever serves.
            asked: the request.
            consumer: who asks; see :mod:`~edge_agent.serving.declared_consumer`.
            done: gets the answer.

        Raises: as :meth:`release_of` and the engine.
        """
        release = self.release_of(model, version)
        tensors.check_outputs(release, asked.outputs)
        terms = _terms(model, asked, consumer)

        def answered(answer: Answer) -> None:
            if isinstance(answer, SerinusError):
                done(answer)
                return
            try:
                assert isinstance(answer, list)
                found = _inferred(release, asked, answer)
            except Exception as error:  # a defect of ours: the client has to hear of it
                log.error("answering failed: %s: %s", type(error).__name__, error)
                done(Unavailable(f"the agent could not answer ({type(error).__name__}: {error})"))
                return
            done(found)

        if isinstance(release.definition, RequestDefinition):
            fields = tensors.fields_of(release.definition, asked)
            self._engine.submit_requests(fields, asked.slices, answered, terms)
        else:
            self._engine.submit(tensors.samples_of(asked), asked.slices, answered, terms)

    async def infer(self, model: str, version: str, asked: Asked, consumer: str) -> Inferred:
        """As :meth:`submit`, for who awaits the answer."""
        future: asyncio.Future[Inferred] = asyncio.get_running_loop().create_future()

        def done(found: Inferred | SerinusError) -> None:
            if future.done():
                return
            if isinstance(found, SerinusError):
                future.set_exception(found)
            else:
                future.set_result(found)

        self.submit(model, version, asked, consumer, done)
        return await future

    async def explain(
        self, model: str, version: str, asked: Asked, how: Occlusion, consumer: str
    ) -> Explanation:
        """Say what each input did to the answers; raises as :meth:`infer`."""
        release = self.release_of(model, version)
        terms = _terms(model, asked, consumer)
        if isinstance(release.definition, RequestDefinition):
            fields = tensors.fields_of(release.definition, asked)
            return await self._engine.explain_requests(fields, how, terms)
        return await self._engine.explain(tensors.samples_of(asked), how, terms)

    async def observe(
        self,
        model: str,
        version: str,
        stream: str,
        times_us: Sequence[int],
        sequence: Sequence[int],
        fields: Given,
        arrived_us: Sequence[int] | None,
    ) -> tuple[LoadedRelease, Observed]:
        """Remember events of a stream; raises as :meth:`infer`."""
        release = self.release_of(model, version)
        observed = await self._engine.observe(
            stream, times_us, sequence, fields, arrived_us, Terms(model=model)
        )
        return release, observed

    def feedback(self, model: str, version: str, prediction_id: str, label: str) -> bool:
        """Join a label with its prediction; false when it is unknown, too old or labelled."""
        self.release_of(model, version)
        return self._engine.feedback(prediction_id, label)


def _terms(model: str, asked: Asked, consumer: str) -> Terms:
    deadline = time.perf_counter() + asked.timeout_us / 1e6 if asked.timeout_us else None
    return Terms(model=model, deadline=deadline, consumer=consumer)


def _inferred(release: LoadedRelease, asked: Asked, found: list[Prediction]) -> Inferred:
    first = found[0]
    return Inferred(
        first.model,
        first.version,
        asked.id,
        {"release": first.digest, "target": first.target, "runtime": first.runtime},
        tensors.answered(release, asked.outputs, found),
    )
