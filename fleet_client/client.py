"""``FleetClient``: every call of the fleet server's API, from Python."""

from fleet_client.calls.consumers import ConsumerCalls
from fleet_client.calls.cost import CostCalls
from fleet_client.calls.devices import DeviceCalls
from fleet_client.calls.drift import DriftCalls
from fleet_client.calls.enrolment import EnrolmentCalls
from fleet_client.calls.groups import GroupCalls
from fleet_client.calls.history import HistoryCalls
from fleet_client.calls.incidents import IncidentCalls
from fleet_client.calls.journal import JournalCalls
from fleet_client.calls.labels import LabelCalls
from fleet_client.calls.releases import ReleaseCalls
from fleet_client.calls.retraining import RetrainingCalls
from fleet_client.calls.rollouts import RolloutCalls
from fleet_client.calls.tokens import TokenCalls
from fleet_client.calls.webhooks import WebhookCalls
from fleet_client.transport import DEFAULT_URL as DEFAULT_URL
from fleet_client.transport import Json as Json
from fleet_client.transport import Refused as Refused


class FleetClient(
    DeviceCalls,
    GroupCalls,
    ReleaseCalls,
    ConsumerCalls,
    CostCalls,
    RolloutCalls,
    LabelCalls,
    DriftCalls,
    RetrainingCalls,
    HistoryCalls,
    IncidentCalls,
    JournalCalls,
    WebhookCalls,
    TokenCalls,
    EnrolmentCalls,
):
    """Speaks to one server with one token; answers are the API's JSON.

    Every method raises :class:`Unavailable` when the server cannot be reached and
    :class:`Refused` when it will not do what was asked.
    """
