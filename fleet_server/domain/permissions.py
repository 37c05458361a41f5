"""What each role may do. Pure."""

from typing import Final, Literal, get_args

Role = Literal["viewer", "ci", "operator", "approver"]
Permission = Literal["read", "build", "operate", "approve", "administer"]
"""``build``: tell labels, take requests to train again; ``operate``: rollouts, devices, alerts,
incidents; ``approve``: let a rollout go on that asks for people; ``administer``: tokens, prices."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)
ALLOWED: Final[dict[Role, frozenset[Permission]]] = {
    "viewer": frozenset({"read"}),
    "ci": frozenset({"read", "build"}),
    "operator": frozenset({"read", "build", "operate", "approve", "administer"}),
    "approver": frozenset({"read", "approve"}),
}


def may(role: str, permission: Permission) -> bool:
    """Whether a role includes a permission; an unknown role includes none."""
    return any(permission in allowed for name, allowed in ALLOWED.items() if name == role)


def roles_with(permission: Permission) -> list[Role]:
    """Roles that include a permission."""
    return [role for role in ROLES if permission in ALLOWED[role]]
