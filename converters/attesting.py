"""What a manifest says of its making, in the terms of SLSA: ``docs/provenance.md``.

All of it is the manifest's, so that the same build gives the same statement.
"""

from packageurl import PackageURL

from edge_core.bundle.manifest import CARD, FEATURES, GOLDEN, REFERENCE, Manifest
from edge_core.bundle.provenance import (
    BUILD_TYPE,
    BuildDefinition,
    Builder,
    Invocation,
    Predicate,
    Resource,
    RunDetails,
)

BUILDER = "urn:serinus:serinus-convert"
NO_PACKAGES = ("python", "serinus")
"""Tools that no package index has."""
BYPRODUCTS = (CARD, FEATURES, GOLDEN, REFERENCE)


def predicate(manifest: Manifest, digest: str) -> Predicate:
    """The provenance of a bundle; ``digest`` is its manifest's sha256."""
    return Predicate(
        build_definition=BuildDefinition(
            build_type=BUILD_TYPE,
            external_parameters=_external(manifest),
            internal_parameters=_internal(manifest),
            resolved_dependencies=[
                entry for part in (_data, _code, _models, _tools) for entry in part(manifest)
            ],
        ),
        run_details=RunDetails(
            builder=Builder(id=BUILDER, version=_builder_version(manifest)),
            metadata=Invocation(invocation_id=f"{_name(manifest)}/{digest}"),
            byproducts=[
                Resource(name=entry.path, digest={"sha256": entry.sha256})
                for entry in manifest.files
                if entry.path in BYPRODUCTS
            ],
        ),
    )


def package_url(name: str, version: str) -> str:
    """Purl of a tool: of Python itself, of Serinus, or of a Python package."""
    kind = "generic" if name in NO_PACKAGES else "pypi"
    return PackageURL(type=kind, name=name, version=version).to_string()


def _name(manifest: Manifest) -> str:
    return f"{manifest.model}@{manifest.version}"


def _external(manifest: Manifest) -> dict[str, object]:
    """What a person asked for."""
    return {
        "recipe": manifest.provenance.recipe,
        "release": _name(manifest),
        "seed": manifest.provenance.seed,
        "targets": [variant.target for variant in manifest.variants],
        "waivers": [
            {"gate": waiver.gate, "slice": waiver.slice, "reason": waiver.reason}
            for waiver in manifest.waivers
        ],
    }


def _internal(manifest: Manifest) -> dict[str, object]:
    """What the recipe and the machine set."""
    made = manifest.provenance
    return {"settings": made.settings, "machine": made.machine, "codeDirty": made.code_dirty}


def _builder_version(manifest: Manifest) -> dict[str, str]:
    version = manifest.provenance.tools.get("serinus")
    return {} if version is None else {"serinus": version}


def _data(manifest: Manifest) -> list[Resource]:
    snapshot = manifest.snapshot
    found = [
        Resource(
            name=f"dataset/{record.role}/{record.name}",
            digest={"sha256": record.sha256},
            annotations={"rows": record.rows, "first": record.first, "last": record.last},
        )
        for record in manifest.datasets
    ]
    if snapshot is not None:
        kept = Resource(name=f"snapshot/{snapshot.name}", digest={"sha256": snapshot.id})
        found.insert(0, kept)
    return found


def _code(manifest: Manifest) -> list[Resource]:
    made = manifest.provenance
    recipe = Resource(name=f"recipe/{made.recipe}", digest={"sha256": made.recipe_sha256})
    if made.code_commit is None:
        return [recipe]
    return [recipe, Resource(name="code", digest={"gitCommit": made.code_commit})]


def _models(manifest: Manifest) -> list[Resource]:
    parent, teacher = manifest.parent, manifest.teacher
    found = []
    if parent is not None:
        found.append(Resource(name=f"parent/{parent.name}", digest={"sha256": parent.digest}))
    if teacher is not None:
        found.append(Resource(name=f"teacher/{teacher.name}", digest={"sha256": teacher.digest}))
    return found


def _tools(manifest: Manifest) -> list[Resource]:
    return [
        Resource(name=f"tool/{name}", uri=package_url(name, version))
        for name, version in sorted(manifest.provenance.tools.items())
    ]
