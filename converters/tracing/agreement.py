"""Whether provenance says of each link what the manifest says. No I/O."""

from collections.abc import Mapping

from converters.tracing import built
from edge_core.bundle.provenance import Predicate, Resource

SIGNED = "signed by"
_OF_RESOURCES = {
    "dataset": built.DATA,
    "snapshot": built.DATA,
    "recipe": built.TRAINING,
    "code": built.TRAINING,
    "parent": built.TRAINING,
    "teacher": built.TRAINING,
    "tool": built.TRAINING,
}
_OF_PARAMETERS = {
    "recipe": built.TRAINING,
    "seed": built.TRAINING,
    "settings": built.TRAINING,
    "machine": built.TRAINING,
    "codeDirty": built.TRAINING,
    "targets": built.CONVERSION,
    "waivers": built.GATES,
}


def disagreements(said: Predicate, expected: Predicate) -> dict[str, list[str]]:
    """Differences by the name of the link that they break.

    Args:
        said: by ``provenance.sig``.
        expected: what the manifest says in the same words.
    """
    found: dict[str, list[str]] = {}
    mine, theirs = said.build_definition, expected.build_definition
    resources = (_by_name(mine.resolved_dependencies), _by_name(theirs.resolved_dependencies))
    for name in _differing(*resources):
        link = _OF_RESOURCES.get(name.partition("/")[0], SIGNED)
        found.setdefault(link, []).append(_words(name))
    for parameters in (
        (mine.external_parameters, theirs.external_parameters),
        (mine.internal_parameters, theirs.internal_parameters),
    ):
        for name in _differing(*parameters):
            found.setdefault(_OF_PARAMETERS.get(name, SIGNED), []).append(_words(name))
    if not found and said != expected:
        found[SIGNED] = ["provenance says something else than the manifest of how it was built"]
    return found


def _by_name(resources: list[Resource]) -> dict[str, object]:
    return {resource.name: resource for resource in resources}


def _differing(mine: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    return sorted(n for n in mine.keys() | theirs.keys() if mine.get(n) != theirs.get(n))


def _words(name: str) -> str:
    return f"provenance says something else of {name} than the manifest"
