"""Compares rows with those that a manifest names. No I/O."""

from converters.data.dataset import ROLES, Snapshot
from converters.refusal import OtherData
from edge_core.bundle.digest import sha256_bytes
from edge_core.bundle.manifest import DatasetRecord, Manifest
from edge_core.features import definition as definitions

Records = dict[str, DatasetRecord]
SHOWN = 16
"""Digits of a digest that a person is shown."""


def check(made: Snapshot, manifest: Manifest) -> None:
    """Refuse other rows.

    Raises:
        OtherData: names each role that differs, with rows and digests of both.
    """
    own: Records = {record.role: record for record in made.records("", "")}
    named: Records = {record.role: record for record in manifest.datasets}
    odd = [role for role in own.keys() | named.keys() if _mark(own, role) != _mark(named, role)]
    if not odd:
        return
    told = "; ".join(
        f"{role} has {_text(own.get(role))}, the manifest {_text(named.get(role))}"
        for role in ROLES
        if role in odd
    )
    features = sha256_bytes(definitions.serialize(made.definition))
    why = " (the feature definition differs, too)" if features != manifest.features_sha256 else ""
    raise OtherData(
        f"this is not the data of {manifest.model}@{manifest.version}: {told}{why}; "
        "nothing was trained. Name its snapshot, or bring back its data"
    )


def _mark(records: Records, role: str) -> tuple[int, str] | None:
    return (records[role].rows, records[role].sha256) if role in records else None


def _text(record: DatasetRecord | None) -> str:
    return f"{record.rows} rows {record.sha256[:SHOWN]}" if record else "none"
