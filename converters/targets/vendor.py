"""What targets share whose compiler and simulator live in an environment of their own.

A worker script compiles (``compile MODEL FILE PLACEMENT OPTION...``) and answers (``run MODEL
FEEDS ANSWERS OPTION...``); it imports the vendor's packages and numpy, nothing of Serinus.
"""

import json
import tempfile
from pathlib import Path
from typing import ClassVar

from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets import environments, int8_io
from converters.targets.environments import Requirements
from converters.targets.profile import Profile
from converters.targets.target import Compiled, Estimate, Placement, Ran, Tool
from converters.tensors import Feeds, pack_places, unpack_places
from edge_core.errors import Unavailable


class Vendor:
    """See :class:`converters.targets.target.Target`."""

    requirements: ClassVar[Requirements]
    worker: ClassVar[str]
    by: ClassVar[str]
    """What compiles and answers, such as ``onnxruntime-qnn 2.7.0``."""
    answers_by: ClassVar[str]
    """Who answers the rows, such as ``HTP simulated on x86_64``."""
    cannot_run: ClassVar[tuple[str, ...]] = ()
    """What a worker says where this machine lacks what running takes."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def tool(self) -> Tool:
        """See :class:`converters.targets.target.Target`."""
        if environments.installed(self.requirements):
            return Tool(compiles=True, runs=True, by=self.by)
        command = f"serinus-convert install-target {self.profile.target}"
        return Tool(compiles=False, runs=False, by="", missing=f"not installed: {command}")

    def install(self, say: environments.Say) -> None:
        """Make the environment."""
        environments.install(self.requirements, say)

    def compile(self, model: ModelFile) -> Compiled:
        """Compile in the vendor's environment."""
        if not self.tool().compiles:
            raise Unavailable(f"{self.profile.target}: {self.tool().missing}")
        prepared = self.prepare(model)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "model").write_bytes(prepared)
            files = [str(folder / name) for name in ("model", "compiled", "placement.json")]
            self._work("compile", files)
            return Compiled(
                data=(folder / "compiled").read_bytes(),
                source=model,
                report={"placement": (folder / "placement.json").read_text()},
            )

    def placement(self, compiled: Compiled) -> Placement:
        """Operators by where the vendor's runtime put them; anything elsewhere is misplaced.

        Empty where the vendor's tool does not tell.
        """
        counted: dict[str, int] = json.loads(compiled.report["placement"])
        wanted = str(self.profile.options["place"])
        odd = sorted(name for name in counted if not name.startswith(f"{wanted}/"))
        return Placement(operators=counted, misplaced=tuple(odd))

    def estimate(self, compiled: Compiled) -> Estimate:
        """Nothing: the vendors' tools predict only on their devices."""
        return Estimate()

    def run(self, compiled: Compiled, feeds: Feeds, *, measure: bool) -> Ran | None:
        """Answer with the vendor's simulator on this machine."""
        if not self.tool().runs:
            return None
        ends = int8_io.Ends(compiled.source)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "model").write_bytes(self.prepare(compiled.source))
            (folder / "feeds.npz").write_bytes(pack_places(ends.given(feeds)))
            files = [str(folder / name) for name in ("model", "feeds.npz", "answers.npz")]
            try:
                self._work("run", files)
            except StageFailed as error:
                if any(text in str(error) for text in self.cannot_run):
                    return None
                raise
            answers = unpack_places((folder / "answers.npz").read_bytes())
        by = f"{self.by}, {self.answers_by}"
        return Ran(outputs=ends.answered(answers), by=by, on_hardware=False)

    def prepare(self, model: ModelFile) -> bytes:
        """The file as the vendor's compiler takes it."""
        return model.data

    def _work(self, what: str, files: list[str]) -> None:
        options = [f"{name}={value}" for name, value in sorted(self.profile.options.items())]
        environments.run_worker(self.requirements, self.worker, [what, *files, *options])
