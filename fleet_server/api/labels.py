"""Labels, predictions by id, fairness by slice, and appeals."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from fleet_server.api import answers
from fleet_server.api.access import Builder, Operator, ServicesOf, Viewer
from fleet_server.api.paging import Cursor, Limit, Number, page, place_of
from fleet_server.api.schemas import Answer
from fleet_server.api.scopes import names_models, within
from fleet_server.services.appeals import AppealView, PredictionView
from fleet_server.services.errors import InvalidRequest
from fleet_server.services.fairness import FairnessReport
from fleet_server.services.feedback_loops import LoopReport
from fleet_server.services.label_status import LabelStatus
from fleet_server.services.labels import Taken, ToldLabel

router = APIRouter(default_response_class=Answer)

Label = Annotated[str, Field(min_length=1, max_length=256)]
Model = Annotated[str, Query(max_length=64)]


class _Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /labels."""

    items: list[ToldLabel]


class OpenAppeal(BaseModel):
    """Body of POST /appeals."""

    model_config = ConfigDict(extra="forbid")

    prediction_id: str = Field(min_length=1, max_length=64)
    reason: str = Field(min_length=1, max_length=2000)
    label: Label | None = None
    """What the answer should have been."""
    contact: str = Field(default="", max_length=200)


class DecideAppeal(BaseModel):
    """Body of POST /appeals/{appeal}/decision."""

    model_config = ConfigDict(extra="forbid")

    decision: str = Field(max_length=64, examples=["upheld", "rejected", "withdrawn"])
    reason: str = Field(min_length=1, max_length=2000)
    label: Label | None = None
    """The right answer; what was claimed where left out."""


class Explanation(BaseModel):
    """Body of PUT /appeals/{appeal}/explanation."""

    model_config = ConfigDict(extra="forbid")

    method: str = Field(min_length=1, max_length=200)
    contributions: dict[Annotated[str, Field(max_length=128)], float] = Field(max_length=2048)
    """Input or feature -> how much the answer's score falls without it."""
    note: str = Field(default="", max_length=2000)


@router.post("/labels")
@answers.one(Taken)
@answers.takes(_Told)
@names_models
async def tell_labels(request: Request, services: ServicesOf, token: Builder) -> Response:
    """Tell the labels of predictions, some thousands at once; the same again changes nothing."""
    body = await request.body()
    try:
        told = msgspec.json.decode(body, type=_Told)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the labels are not valid: {error}") from error
    take = services.labels.take
    return Answer(await run_in_threadpool(take, told.items, token.name, token.models))


@router.get("/labels")
@answers.one(LabelStatus)
def label_status(services: ServicesOf, _token: Viewer, model: Model) -> Response:
    """Tell how many labels of a model came, how late, and what performance is estimated."""
    return Answer(services.label_status.of_model(model))


@router.get("/predictions/{prediction}")
@answers.one(PredictionView)
def prediction(prediction: str, services: ServicesOf, _token: Viewer) -> Response:
    """Show a prediction with its release and its labels."""
    return Answer(services.appeals.prediction(prediction))


@router.get("/fairness")
@answers.one(FairnessReport)
def fairness(
    services: ServicesOf, _token: Viewer, release: Annotated[str, Query(max_length=128)]
) -> Response:
    """Show how a release fares on each declared slice."""
    return Answer(services.fairness.report(release))


@router.get("/holdout")
@answers.one(LoopReport)
def holdout(services: ServicesOf, _token: Viewer, model: Model) -> Response:
    """Compare labels of devices that are held out of a model's rollouts with all others'."""
    return Answer(services.feedback_loops.of_model(model))


@router.get("/appeals")
@answers.part(AppealView)
def appeals(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    cursor: Cursor = None,
    limit: Limit = 100,
    state: str | None = None,
) -> Response:
    """List contested predictions, newest first."""
    found = services.appeals.every(state, limit + 1, place_of(cursor, int))
    return page(request, found, limit, lambda appeal: appeal.appeal)


@router.post("/appeals", status_code=201)
@answers.one(AppealView)
@names_models
def open_appeal(body: OpenAppeal, services: ServicesOf, token: Operator) -> Response:
    """Contest a prediction."""
    if token.models:
        release = services.appeals.prediction(body.prediction_id).release
        within(token, [(release or "").partition("@")[0]])
    opened = services.appeals.open(
        body.prediction_id,
        reason=body.reason,
        claimed=body.label,
        contact=body.contact,
        by=token.name,
        role=token.role,
    )
    return Answer(opened, status_code=201)


@router.get("/appeals/{appeal}")
@answers.one(AppealView)
def appeal(appeal: Number, services: ServicesOf, _token: Viewer) -> Response:
    """Show one appeal with its prediction, release and explanation."""
    return Answer(services.appeals.one(appeal))


@router.get("/appeals/{appeal}/sample")
@answers.other("application/msgpack")
def appeal_sample(appeal: Number, services: ServicesOf, _token: Builder) -> Response:
    """Send what the contested answer was computed from, as its device sent it (msgpack)."""
    return Response(services.appeals.sample(appeal), media_type="application/msgpack")


@router.put("/appeals/{appeal}/explanation")
@answers.one(AppealView)
def explain_appeal(
    appeal: Number, body: Explanation, services: ServicesOf, token: Builder
) -> Response:
    """Keep what each input did to the contested answer."""
    return Answer(
        services.appeals.explain(appeal, body.model_dump(), by=token.name, role=token.role)
    )


@router.post("/appeals/{appeal}/decision")
@answers.one(AppealView)
def decide_appeal(
    appeal: Number, body: DecideAppeal, services: ServicesOf, token: Operator
) -> Response:
    """Uphold, reject or withdraw an appeal; one that is upheld corrects the label."""
    decided = services.appeals.decide(
        appeal,
        body.decision,
        text=body.reason,
        label=body.label,
        by=token.name,
        role=token.role,
    )
    return Answer(decided)
