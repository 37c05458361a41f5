"""All services together, over one database."""

from typing import Self

import msgspec

from fleet_server.config import ServerConfig
from fleet_server.services.catalog import Catalog
from fleet_server.services.clock import Clock, wall_clock
from fleet_server.services.commands import Commands
from fleet_server.services.cost import Costs
from fleet_server.services.desired import DesiredStates
from fleet_server.services.drift import DriftWatch
from fleet_server.services.history import History
from fleet_server.services.ingest import Ingest
from fleet_server.services.leading import Leading
from fleet_server.services.listening import Listening
from fleet_server.services.overview import Overview
from fleet_server.services.retention import Retention
from fleet_server.services.rollouts import Rollouts
from fleet_server.services.tokens import Tokens
from fleet_server.services.verdicts import Verdicts
from fleet_server.storage.database import Database

DATABASE = "serinus.sqlite"


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the API, the page, the gateway and the leader call."""

    database: Database
    tokens: Tokens
    catalog: Catalog
    ingest: Ingest
    listening: Listening
    leading: Leading
    desired: DesiredStates
    costs: Costs
    overview: Overview
    history: History
    rollouts: Rollouts
    commands: Commands
    verdicts: Verdicts
    drift: DriftWatch
    retention: Retention

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
        costs = Costs(database, config.cost)
        return cls(
            database=database,
            tokens=Tokens(database, clock),
            catalog=catalog,
            ingest=Ingest(
                database,
                catalog,
                clock,
                drift_period_seconds=config.windows.drift_period_seconds,
                future_seconds=config.windows.future_seconds,
                hour_days=config.retention.hour_days,
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
            commands=Commands(database, clock, rollouts.changed),
            overview=Overview(database, catalog, clock, costs),
            history=History(database, catalog, clock),
            rollouts=rollouts,
            verdicts=Verdicts(database),
            drift=DriftWatch(
                database, catalog, clock, period_seconds=config.windows.drift_period_seconds
            ),
            retention=Retention(database, clock, config.retention),
        )
