"""Every surface by its name."""

from tests.fuzz.surface import Surface
from tests.fuzz.surfaces import (
    bundles,
    ceremony,
    enrolment,
    frames,
    http,
    messages,
    shared,
    stored,
    tuf,
)

SURFACES: dict[str, type[Surface]] = {
    surface.name: surface
    for surface in (
        frames.Decoding,
        frames.Socket,
        frames.Streams,
        shared.SharedMemory,
        http.HttpWindows,
        http.HttpRequests,
        messages.Codec,
        messages.Topics,
        messages.Desired,
        messages.Reports,
        bundles.Manifests,
        bundles.References,
        bundles.Definitions,
        bundles.Baselines,
        bundles.Goldens,
        bundles.Signatures,
        bundles.Provenances,
        bundles.Keys,
        bundles.Releases,
        bundles.Archives,
        stored.Journals,
        stored.Pointers,
        stored.Memories,
        stored.PredictionLogs,
        stored.Settings,
        tuf.Timestamp,
        tuf.Snapshot,
        tuf.Releases,
        tuf.Roots,
        ceremony.RootProposals,
        ceremony.DelegationProposals,
        ceremony.PublicKeys,
        enrolment.Enrolments,
        enrolment.RenewalCalls,
        enrolment.CertificateRequests,
        enrolment.HolderKeys,
    )
}
