"""What a proposal changes, in words: who can do what before it and after it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from securesystemslib.signer import Key
from tuf.api.metadata import Root, Targets

from converters.ceremony import delegation_change, public_key
from converters.ceremony.root_change import ROLES

MAY: Final = {
    "root": "replace any key of this list, these ones, too",
    "targets": "say who approves releases",
    "snapshot": "say which lists belong together (the server)",
    "timestamp": "say that the list is fresh (the server)",
}
APPROVE: Final = "approve and revoke releases"


def of_root(before: Root | None, after: Root) -> list[str]:
    """Lines that a holder reads before signing root metadata."""
    lines = [_head("root", before, after)]
    for role in ROLES:
        now = _holders(after, role)
        then = {} if before is None else _holders(before, role)
        rule = _rule(after.roles[role].threshold, len(now))
        was = rule if before is None else _rule(before.roles[role].threshold, len(then))
        lines.append(f"  {role}: {rule} may {MAY[role]}" + _was(was, rule))
        lines.extend(_changes(then, now, first=before is None))
    if before is not None and _powers(before) == _powers(after):
        lines.append("  nobody's power changes; only the version and the end do")
    return lines


def of_delegation(before: Targets | None, after: Targets) -> list[str]:
    """Lines that a holder reads before signing targets metadata."""
    now = {key.keyid: key for key in delegation_change.keys_of(after)}
    then = {} if before is None else {k.keyid: k for k in delegation_change.keys_of(before)}
    rule = _rule(1, len(now))
    was = rule if before is None else _rule(1, len(then))
    lines = [_head("targets", before, after)]
    lines.append(f"  releases: {rule} may {APPROVE}" + _was(was, rule))
    lines.extend(_changes(then, now, first=before is None))
    if before is not None and set(then) == set(now):
        lines.append("  nobody's power changes; only the version and the end do")
    return lines


def holders(keys: Sequence[Key]) -> str:
    """Names of holders, in their order."""
    return ", ".join(public_key.holder_of(key) for key in keys) or "nobody"


def _powers(root: Root) -> dict[str, tuple[int, frozenset[str]]]:
    return {
        role: (root.roles[role].threshold, frozenset(root.roles[role].keyids)) for role in ROLES
    }


def _head(role: str, before: Root | Targets | None, after: Root | Targets) -> str:
    if before is None:
        return f"{role} metadata, version {after.version}: ends {after.expires:%Y-%m-%d}"
    return (
        f"{role} metadata, version {before.version} -> {after.version}: ends "
        f"{after.expires:%Y-%m-%d}, before it {before.expires:%Y-%m-%d}"
    )


def _holders(root: Root, role: str) -> dict[str, Key]:
    return {keyid: root.keys[keyid] for keyid in root.roles[role].keyids}


def _rule(threshold: int, keys: int) -> str:
    return f"any {threshold} of {keys}" if keys > 1 else "one key"


def _was(before: str, after: str) -> str:
    return "" if before == after else f"; before it {before}"


def _changes(then: Mapping[str, Key], now: Mapping[str, Key], *, first: bool) -> list[str]:
    lines = []
    for keyid in [*then, *(keyid for keyid in now if keyid not in then)]:
        if keyid not in now:
            lines.append(f"    - {public_key.told(then[keyid])}  loses it")
        elif keyid in then or first:
            lines.append(f"      {public_key.told(now[keyid])}")
        else:
            lines.append(f"    + {public_key.told(now[keyid])}  gets it")
    return lines
