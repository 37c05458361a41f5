"""Before what people sign ends, the server says so: to people, to pagers, to Prometheus."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from converters import publishing, release_list
from edge_core.errors import UntrustedBundle
from fleet_server.app import create_app
from fleet_server.config import ServerConfig
from fleet_server.domain import expiry
from fleet_server.repository_watch import RepositoryWatch
from fleet_server.services.suite import Services
from fleet_server.storage import journal
from tests.simulators.ceremony import Team

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def services(config: ServerConfig) -> Iterator[Services]:
    """On the real clock, as the watch is."""
    found = Services.open(config)
    yield found
    found.database.close()


def repository_of_age(folder: Path, days: float) -> None:
    """A repository whose metadata all was signed so long ago."""
    then = datetime.now(UTC) - timedelta(days=days)
    publishing.init_repository(folder / "repository", folder / "keys", then)
    (folder / "online").symlink_to(folder / "keys" / "online")


def look(config: ServerConfig, services: Services) -> None:
    RepositoryWatch(config, services.catalog, services.repository_expiry).look()
    services.incidents.collect()


def open_alerts(services: Services) -> dict[str, list[str]]:
    """Kind -> subjects."""
    with services.database.read() as connection:
        found = {kind: journal.open_alerts(connection, kind) for kind in expiry.KINDS}
    return {kind: [alert.subject for alert in alerts] for kind, alerts in found.items()}


def left(services: Services, config: ServerConfig) -> dict[str, float]:
    """Role -> seconds, as Prometheus scrapes them."""
    with TestClient(create_app(config, services)) as http:
        text = http.get("/metrics").text
    return {
        sample.labels["role"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "serinus_repository_expires_seconds"
    }


@pytest.mark.parametrize(
    ("days", "kind"),
    [(31, None), (30, "expiry"), (7.5, "expiry"), (7, "lapsing"), (0, "lapsing"), (-9, "lapsing")],
)
def test_the_kind_follows_what_is_left(days: float, kind: str | None) -> None:
    assert expiry.kind(NOW + timedelta(days=days), NOW) == kind


def test_a_fresh_repository_is_no_matter(
    config: ServerConfig, services: Services, tmp_path: Path
) -> None:
    assert left(services, config) == {}
    repository_of_age(tmp_path, days=0)
    look(config, services)
    assert open_alerts(services) == {"expiry": [], "lapsing": []}
    found = left(services, config)
    life = {
        "root": release_list.ROOT_LIFE,
        "targets": release_list.TARGETS_LIFE,
        "releases": release_list.RELEASES_LIFE,
    }
    assert found.keys() == life.keys()
    for role, seconds in found.items():
        assert 0 < seconds <= life[role].total_seconds()


def test_weeks_before_the_end_there_is_an_alert_and_days_before_it_an_incident(
    config: ServerConfig, services: Services, tmp_path: Path
) -> None:
    repository_of_age(tmp_path, days=release_list.RELEASES_LIFE.days - 20)
    look(config, services)
    assert open_alerts(services) == {"expiry": ["releases"], "lapsing": []}
    assert services.incidents.counts() == {}
    with services.database.read() as connection:
        (alert,) = journal.open_alerts(connection, "expiry")
    assert "sign it again with serinus-convert renew" in alert.title
    look(config, services)  # a day later, it says the same
    with services.database.read() as connection:
        told = [e for e in journal.latest_events(connection, 50) if e.kind == "expiry"]
    assert len(told) == 1


def test_days_before_the_end_somebody_is_called_and_a_renewal_ends_it(
    config: ServerConfig, services: Services, tmp_path: Path
) -> None:
    services.webhooks.create("pager", "https://pager.example/", ["page"], by="ann", role="operator")
    repository_of_age(tmp_path, days=release_list.RELEASES_LIFE.days - 5)
    look(config, services)
    assert open_alerts(services) == {"expiry": [], "lapsing": ["releases"]}
    assert services.incidents.counts() == {"open": 1}
    services.webhooks.collect()
    (page,) = services.webhooks.deliveries("pager", 10)
    assert "releases ends on" in str(page)
    Team(tmp_path).renew()
    look(config, services)
    assert open_alerts(services) == {"expiry": [], "lapsing": []}
    assert services.incidents.counts() == {"mitigated": 1}


def test_what_has_ended_is_told_although_nothing_more_is_read(
    config: ServerConfig, services: Services, tmp_path: Path
) -> None:
    repository_of_age(tmp_path, days=release_list.ROOT_LIFE.days + 1)
    with pytest.raises(UntrustedBundle, match="expired"):
        look(config, services)
    assert sorted(open_alerts(services)["lapsing"]) == ["releases", "root", "targets"]
    assert all(seconds < 0 for seconds in left(services, config).values())
    services.incidents.collect()
    assert services.incidents.counts() == {"open": 3}
