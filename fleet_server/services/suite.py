"""All services together, over one database."""

from datetime import timedelta
from typing import Self

import msgspec

from fleet_server.authority.device_ca import DeviceCa
from fleet_server.config import ServerConfig
from fleet_server.services.appeals import Appeals
from fleet_server.services.audit_log import AuditLog
from fleet_server.services.budgets import Budgets
from fleet_server.services.catalog import Catalog
from fleet_server.services.certificates import Certificates
from fleet_server.services.clock import Clock, wall_clock
from fleet_server.services.commands import Commands
from fleet_server.services.consumers import Consumers
from fleet_server.services.cost import Costs
from fleet_server.services.desired import DesiredStates
from fleet_server.services.drift import DriftWatch
from fleet_server.services.drift_response import DriftResponses
from fleet_server.services.enrol_tokens import EnrolTokens
from fleet_server.services.enrolment import Enrolment
from fleet_server.services.fairness import Fairness
from fleet_server.services.feedback_loops import FeedbackLoops
from fleet_server.services.figures import FigureBook
from fleet_server.services.gauges import Gauges
from fleet_server.services.groups import Groups
from fleet_server.services.health import Health
from fleet_server.services.history import History
from fleet_server.services.idempotency import IdempotentRequests
from fleet_server.services.incidents import Incidents
from fleet_server.services.ingest import Ingest
from fleet_server.services.label_status import LabelStatuses
from fleet_server.services.labels import Labels
from fleet_server.services.leading import Leading
from fleet_server.services.lineage import Lineages
from fleet_server.services.listening import Listening
from fleet_server.services.measures import Measures
from fleet_server.services.overview import Overview
from fleet_server.services.repository_expiry import RepositoryExpiry
from fleet_server.services.retention import Retention
from fleet_server.services.retraining import Retraining
from fleet_server.services.rollouts import Rollouts
from fleet_server.services.succession import Succession
from fleet_server.services.tokens import Tokens
from fleet_server.services.verdicts import Verdicts
from fleet_server.services.webhooks import Webhooks
from fleet_server.storage.database import Database

DATABASE = "serinus.sqlite"


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the API, the page, the gateway and the leader call."""

    database: Database
    tokens: Tokens
    enrol_tokens: EnrolTokens
    certificates: Certificates
    enrolment: Enrolment
    succession: Succession
    catalog: Catalog
    ingest: Ingest
    listening: Listening
    leading: Leading
    desired: DesiredStates
    costs: Costs
    budgets: Budgets
    overview: Overview
    audit_log: AuditLog
    incidents: Incidents
    health: Health
    figures: FigureBook
    gauges: Gauges
    measures: Measures
    groups: Groups
    history: History
    rollouts: Rollouts
    commands: Commands
    verdicts: Verdicts
    drift: DriftWatch
    drift_responses: DriftResponses
    labels: Labels
    label_status: LabelStatuses
    fairness: Fairness
    feedback_loops: FeedbackLoops
    appeals: Appeals
    retraining: Retraining
    repository_expiry: RepositoryExpiry
    retention: Retention
    webhooks: Webhooks
    idempotency: IdempotentRequests
    consumers: Consumers
    lineages: Lineages

    @classmethod
    def open(cls, config: ServerConfig, clock: Clock = wall_clock) -> Self:
        """Open the database and build every service over it."""
        database = Database.at(config.database.url, config.data / DATABASE)
        return cls.over(database, config, clock)

    @classmethod
    def over(cls, database: Database, config: ServerConfig, clock: Clock) -> Self:
        """Build every service over a database."""
        catalog = Catalog(database, clock)
        listening = Listening(clock)
        rollouts = Rollouts(database, catalog, clock, listening)
        costs = Costs(database, clock)
        retraining = Retraining(database, catalog, clock, rollouts)
        measures = Measures()
        enrol_tokens = EnrolTokens(database, clock)
        life = timedelta(days=config.enrolment.certificate_days)
        authority = DeviceCa(config.ca_dir)
        certificates = Certificates(database, clock, authority, life)
        told = Labels(
            database,
            catalog,
            clock,
            config.labels,
            drift_period_seconds=config.windows.drift_period_seconds,
        )
        return cls(
            database=database,
            tokens=Tokens(database, clock),
            enrol_tokens=enrol_tokens,
            certificates=certificates,
            enrolment=Enrolment(database, clock, enrol_tokens, certificates),
            succession=Succession(database, clock, authority),
            catalog=catalog,
            ingest=Ingest(
                database,
                catalog,
                clock,
                drift_period_seconds=config.windows.drift_period_seconds,
                future_seconds=config.windows.future_seconds,
                hour_days=config.retention.hour_days,
                measures=measures,
            ),
            listening=listening,
            leading=Leading(database, clock),
            desired=DesiredStates(
                database,
                clock,
                config.devices.republish_seconds,
                confirm_seconds=config.devices.confirm_seconds,
            ),
            costs=costs,
            budgets=Budgets(database, clock),
            commands=Commands(database, clock, rollouts.changed),
            audit_log=AuditLog(database, clock),
            incidents=Incidents(database, clock),
            health=Health(database, clock),
            figures=FigureBook(database, clock),
            gauges=Gauges(),
            measures=measures,
            groups=Groups(database, clock),
            overview=Overview(database, catalog, clock, costs),
            history=History(database, catalog, clock, config.fairness.rows_per_observation),
            rollouts=rollouts,
            verdicts=Verdicts(database),
            drift=DriftWatch(
                database, catalog, clock, period_seconds=config.windows.drift_period_seconds
            ),
            drift_responses=DriftResponses(database, catalog, clock, retraining),
            labels=told,
            label_status=LabelStatuses(
                database, catalog, clock, config.fairness.rows_per_observation
            ),
            fairness=Fairness(database, catalog, clock, config.fairness),
            feedback_loops=FeedbackLoops(database, catalog, clock, config.fairness),
            appeals=Appeals(database, catalog, clock, told),
            retraining=retraining,
            repository_expiry=RepositoryExpiry(database, clock),
            retention=Retention(database, clock, config.retention),
            webhooks=Webhooks(database, clock),
            idempotency=IdempotentRequests(database, clock),
            consumers=Consumers(database, clock),
            lineages=Lineages(database, catalog),
        )
