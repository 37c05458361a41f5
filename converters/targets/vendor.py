"""What targets share whose compiler and simulator live in an environment of their own.

A worker script compiles (``compile MODEL FILE TOLD OPTION...``) and answers (``run MODEL FEEDS
ANSWERS OPTION...``); it imports the vendor's packages and numpy, nothing of Serinus. What it tells
of a compiled file is JSON of :class:`Told`.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec

from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets import environments, int8_io
from converters.targets.environments import Requirements
from converters.targets.floating_left import allowed, called
from converters.targets.profile import Profile
from converters.targets.target import Compiled, Estimate, Placement, Ran, Tool
from converters.tensors import Feeds, pack_places, unpack_places
from edge_core.errors import Unavailable


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """One operator of a compiled file."""

    place: str
    """Such as ``HTP`` or ``CPU``."""
    kind: str
    name: str
    """Of the file's node, as far as the tool keeps it."""
    in_float: bool = False
    """Whether its place says no more than that it computes in float."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a vendor's tool says of a compiled file."""

    operators: list[Operator] = []
    """None where it does not tell."""
    figures: dict[str, float] = {}
    """See :class:`converters.targets.target.Estimate`."""


class Vendor:
    """See :class:`converters.targets.target.Target`."""

    requirements: ClassVar[Requirements]
    worker: ClassVar[str]
    by: ClassVar[str]
    """What compiles, such as ``onnxruntime-qnn 2.7.0``."""
    answers_by: ClassVar[str]
    """Who answers rows, such as ``HTP simulated on x86_64``."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def tool(self) -> Tool:
        """See :class:`converters.targets.target.Target`."""
        if environments.installed(self.requirements):
            return Tool(compiles=True, runs=True, by=self.by)
        command = f"serinus-convert install-target {self.profile.target}"
        return Tool(compiles=False, runs=False, by="", missing=f"not installed: {command}")

    def install(self, say: environments.Say) -> None:
        """Make the environment.

        Raises:
            Unavailable: a package cannot be had.
        """
        environments.install(self.requirements, say)

    def compile(self, model: ModelFile) -> Compiled:
        """Compile in the vendor's environment.

        Raises:
            InvalidInput: the file is damaged.
            StageFailed: the vendor's tool refuses the file.
            Unavailable: the tool is not installed.
        """
        self.check(model)
        prepared = self.prepare(model)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "model").write_bytes(prepared)
            files = [str(folder / name) for name in ("model", "compiled", "told.json")]
            self._work("compile", files)
            report = {"told": (folder / "told.json").read_text()}
            return Compiled(data=(folder / "compiled").read_bytes(), source=model, report=report)

    def placement(self, compiled: Compiled) -> Placement:
        """Where the vendor's tool put operators; what is elsewhere is misplaced.

        Kinds that the profile lists as ``elsewhere`` compute nothing and may be anywhere. Empty
        where the tool does not tell.
        """
        operators = _told(compiled).operators
        wanted, free = self.profile.options["place"], self.profile.options.get("elsewhere", [])
        assert isinstance(free, list)
        misplaced = [
            f"{op.kind} {called(compiled.source, op.name)} on {op.place}"
            for op in operators
            if op.place != wanted
            and op.kind not in free
            and not (op.in_float and allowed(compiled.source, op.name))
        ]
        counted = Counter(f"{op.place}/{op.kind}" for op in operators)
        return Placement(operators=dict(sorted(counted.items())), misplaced=tuple(misplaced))

    def estimate(self, compiled: Compiled) -> Estimate:
        """What the vendor's tool predicts; nothing from most of them."""
        figures = _told(compiled).figures
        return Estimate(figures=figures, by=self.by if figures else "")

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """Answer on this machine with the vendor's simulator."""
        if not self.tool().runs:
            return None
        ends = int8_io.Ends(compiled.source)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "model").write_bytes(self.runs(compiled))
            (folder / "feeds.npz").write_bytes(pack_places(ends.given(feeds)))
            files = [str(folder / name) for name in ("model", "feeds.npz", "answers.npz")]
            self._work("run", files)
            answers = unpack_places((folder / "answers.npz").read_bytes())
        by = f"{self.by}, {self.answers_by}"
        return Ran(outputs=ends.answered(answers), by=by, on_hardware=False)

    def check(self, model: ModelFile) -> None:
        """Refuse what need not be tried.

        Raises:
            InvalidInput: the file is damaged.
            StageFailed: the file is not what it is described as, or not what the target takes.
            Unavailable: the tool is not installed.
        """
        tool = self.tool()
        if not tool.compiles:
            raise Unavailable(tool.missing)
        if model.format != self.profile.format:
            raise StageFailed(
                f"{self.profile.target} takes {self.profile.format} files, not {model.format}"
            )
        int8_io.Ends(model)

    def prepare(self, model: ModelFile) -> bytes:
        """The file as the vendor's compiler takes it."""
        return model.data

    def runs(self, compiled: Compiled) -> bytes:
        """The file that answers rows."""
        return compiled.data

    def variables(self) -> Mapping[str, str]:
        """What the worker needs in its environment."""
        return {}

    def _work(self, what: str, files: list[str]) -> None:
        options = [f"{name}={value}" for name, value in sorted(self.profile.options.items())]
        arguments = [what, *files, *options]
        environments.run_worker(self.requirements, self.worker, arguments, self.variables())


def _told(compiled: Compiled) -> Told:
    return msgspec.json.decode(compiled.report["told"], type=Told)
