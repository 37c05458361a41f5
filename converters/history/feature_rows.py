"""Rows of features from logs on disk, by the evaluator that training and devices use.

Of requests there is a row for each, in the log's order: its place, its time, further columns. Of
sensor samples there is a row for each window, in the order of the samples that complete them: its
stream, first and last time. ``features`` holds the values.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from converters.data import event_log, tables
from converters.data.event_log import SampleLog, SampleTable
from converters.data.log_folder import REQUESTS, LogFolder, Piece
from converters.history.piecewise import Counts, Step
from edge_core.errors import InvalidInput, quoted
from edge_core.features.evaluation import Evaluator
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import FeatureStream

ROW = "row"
FIRST, LAST = "first_us", "last_us"
FEATURES = "features"
SAMPLES = "samples"
"""Column of the rounded windows themselves, for models that take them."""
PIECE_BYTES = 64 * 2**20
"""Of the windows of one piece of a log."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
T = TypeVar("T")


class RequestRows:
    """A row for each request of a log."""

    def __init__(self, path: Path, definition: RequestDefinition, keep: Sequence[str] = ()) -> None:
        """Look at a log; nothing is read yet.

        Raises:
            InvalidInput: the log does not fit.
            InvalidBundle: a registered function is not here.
        """
        self.definition = definition
        self.log = LogFolder(path, definition, keep)
        self.files = self.log.files
        self.base = path
        self.total = self.log.rows
        self.identity = [ROW, definition.request.time, *keep]
        self.key = [ROW]
        self.width = len(definition.feature_names)
        self._evaluator = RequestEvaluator(definition)
        self._taken: dict[str, int] = {}

    def schema(self) -> Any:
        """Of the rows."""
        import pyarrow as pa

        kept = [pa.field(name, _plain(kind)) for name, kind in self.log.also_types.items()]
        time = pa.field(self.definition.request.time, pa.timestamp("us", tz="UTC"))
        features = pa.field(FEATURES, pa.list_(pa.float32(), self.width))
        return pa.schema([pa.field(ROW, pa.int64()), time, *kept, features])

    def steps(self) -> Iterator[Step]:
        """Go on with the next piece; see :class:`converters.history.piecewise.Source`."""
        for piece in self.log.pieces(self._taken, tables.PIECE_ROWS):
            first = self._taken.get(REQUESTS, 0)
            with told(f"{REQUESTS} from row {first}"):
                features = self._evaluator.replay(*piece.log)
            read = sum(piece.taken.values()) - sum(self._taken.values())
            self._taken = dict(piece.taken)
            yield Step(self.rows(piece, first, features), read)

    def rows(self, piece: Piece, first: int, features: Float32) -> Any:
        """A table of a piece's requests."""
        import pyarrow as pa

        time = self.definition.request.time
        schema = self.schema()
        moments = pa.array(np.asarray(piece.log.request[time], np.int64))
        columns = [
            pa.array(np.arange(first, first + len(features)), pa.int64()),
            moments.cast(schema.field(time).type),
            *(_kept(piece.also.get(n), schema.field(n).type) for n in self.log.also_types),
            listed(features),
        ]
        return pa.table(columns, schema=schema)

    def snapshot(self) -> bytes:
        """The evaluator's state, and how far the log was read."""
        return msgspec.msgpack.encode((self._evaluator.snapshot(), self._taken))

    def restore(self, data: bytes) -> None:
        """Go on from there."""
        state, self._taken = _decode(data, tuple[bytes, dict[str, int]])
        self._evaluator = RequestEvaluator.restore(self.definition, state)

    def counts(self) -> Counts:
        """What each store dropped."""
        return dropped(self._evaluator)


class WindowRows:
    """A row for each window of a log of samples."""

    def __init__(
        self,
        path: Path,
        definition: WindowDefinition,
        keep: Sequence[str] = (),
        *,
        samples: bool = False,
    ) -> None:
        """Look at a log; nothing is read yet.

        Args:
            path: of the log.
            definition: of the features.
            keep: has to be empty: many samples make a window.
            samples: whether rows hold the rounded windows, too.

        Raises:
            InvalidInput: the log does not fit.
        """
        if keep:
            raise InvalidInput(
                f"--keep {','.join(keep)}: a window is made of many samples and has no columns of "
                "its own; it is known by its stream and times"
            )
        self.definition = definition
        self.log = SampleTable(path, definition.inputs)
        self.files = self.log.files
        self.base = path if path.is_dir() else self.files[0].parent
        self.total = self.log.rows
        self.identity = [event_log.STREAM, FIRST, LAST]
        self.key = [event_log.STREAM, LAST]
        self.width = len(definition.feature_names)
        self.sample_width = int(np.prod(definition.raw_shape)) if samples else 0
        self._evaluator = Evaluator(definition)
        self._streams: dict[str, FeatureStream] = {}
        self._taken = 0

    @property
    def piece_rows(self) -> int:
        """Samples that are looked at together, so that their windows fit into memory."""
        window = self.definition.window
        bytes_each = 8 * window.samples * len(self.definition.inputs)
        most = PIECE_BYTES // bytes_each * window.hop
        return max(window.samples, min(tables.PIECE_ROWS, most))

    def schema(self) -> Any:
        """Of the rows."""
        import pyarrow as pa

        fields = [
            pa.field(event_log.STREAM, pa.string()),
            pa.field(FIRST, pa.int64()),
            pa.field(LAST, pa.int64()),
            pa.field(FEATURES, pa.list_(pa.float32(), self.width)),
        ]
        if self.sample_width:
            fields.append(pa.field(SAMPLES, pa.list_(pa.float32(), self.sample_width)))
        return pa.schema(fields)

    def steps(self) -> Iterator[Step]:
        """Go on with the next piece; see :class:`converters.history.piecewise.Source`."""
        for piece in self.log.pieces(skip=self._taken, rows=self.piece_rows):
            rows, _ = self.windows(piece, self._taken)
            self._taken += len(piece.times_us)
            yield Step(rows, len(piece.times_us))

    def windows(
        self, piece: SampleLog, first: int, chosen: Callable[[str], bool] | None = None
    ) -> tuple[Any, Int64]:
        """Windows that a piece completes, and the sample in the log that completed each.

        Args:
            piece: of the log.
            first: its first sample's row in the log.
            chosen: tells which streams are read; by default all.
        """
        import pyarrow as pa

        names: list[str] = []
        parts = []
        for name, mine in _by_stream(piece.streams).items():
            if chosen is not None and not chosen(name):
                continue
            stream = self._streams.setdefault(name, FeatureStream(self.definition, self._evaluator))
            with told(f"stream {name[:64]}, samples from row {first}"):
                found = stream.push(piece.times_us[mine], piece.samples[mine])
                rounded = self._evaluator.rounded(found.raw) if self.sample_width else found.raw
            # The first sample of a time is the one that was taken; later ones came too late.
            times, at = np.unique(piece.times_us[mine], return_index=True)
            completed = mine[at[np.searchsorted(times, found.last_us)]]
            names += [name] * len(completed)
            samples = rounded.reshape(len(completed), -1) if self.sample_width else found.features
            parts.append((completed, found.first_us, found.last_us, found.features, samples))
        if not parts:
            return self.schema().empty_table(), np.empty(0, np.int64)
        completed, starts, ends, features, samples = map(np.concatenate, zip(*parts, strict=True))
        order = np.argsort(completed)
        columns = [
            pa.array(names, pa.string()).take(pa.array(order)),
            pa.array(starts[order]),
            pa.array(ends[order]),
            listed(features[order]),
            *([listed(samples[order])] if self.sample_width else []),
        ]
        return pa.table(columns, schema=self.schema()), first + completed[order]

    def snapshot(self) -> bytes:
        """All streams' states, and how far the log was read."""
        states = {name: stream.snapshot() for name, stream in self._streams.items()}
        return msgspec.msgpack.encode((states, self._taken))

    def restore(self, data: bytes) -> None:
        """Go on from there."""
        states, self._taken = _decode(data, tuple[dict[str, bytes], int])
        self._streams = {
            name: FeatureStream.restore(self.definition, state, self._evaluator)
            for name, state in states.items()
        }

    def counts(self) -> Counts:
        """Samples of each stream that came too late, and gaps."""
        return {
            name: {"late": stream.late, "gaps": stream.gaps}
            for name, stream in self._streams.items()
        }


Rows = RequestRows | WindowRows


def opened(
    path: Path,
    definition: RequestDefinition | WindowDefinition,
    keep: Sequence[str] = (),
    *,
    samples: bool = False,
) -> Rows:
    """Rows of a log, by the kind of definition; ``samples`` as in :class:`WindowRows`."""
    if isinstance(definition, RequestDefinition):
        return RequestRows(path, definition, keep)
    return WindowRows(path, definition, keep, samples=samples)


def check_names(identity: Sequence[str], made: Sequence[str]) -> None:
    """Raise :class:`InvalidInput` where two columns of an output would have one name.

    Nor may a kept column be called as rows call their values until they are written.
    """
    names = [*identity, *made]
    if own := {FEATURES, SAMPLES} & set(identity):
        raise InvalidInput(f"--keep {min(own)}: rename the column, its name is taken meanwhile")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(
            f"two columns would be called {twice[0]}: leave it out of --keep, or rename it"
        )


def matrix(rows: Any, name: str) -> Float32:
    """A column of lists as float32 [rows, width]."""
    column = rows.column(name).combine_chunks()
    values = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
    return values.reshape(rows.num_rows, rows.schema.field(name).type.list_size)


def listed(values: Float32) -> Any:
    """A float32 [rows, width] array as a column of lists."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def dropped(evaluator: RequestEvaluator) -> Counts:
    """What each store of an evaluator dropped."""
    return {
        name: {kind: int(count) for kind, count in msgspec.structs.asdict(counts).items()}
        for name, counts in evaluator.dropped.items()
    }


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Say where in the log a refused value stands."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from error


def _by_stream(streams: Sequence[str]) -> dict[str, Int64]:
    """Places of each stream's samples, in order; streams in the order in which they come."""
    codes: dict[str, int] = {}
    coded = np.fromiter((codes.setdefault(n, len(codes)) for n in streams), np.int64, len(streams))
    order = np.argsort(coded, kind="stable")
    bounds = np.searchsorted(coded[order], np.arange(len(codes) + 1))
    return {name: order[bounds[code] : bounds[code + 1]] for name, code in codes.items()}


def _plain(kind: Any) -> Any:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _kept(column: Any, kind: Any) -> Any:
    import pyarrow as pa

    if column is None:
        return pa.array([], kind)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"a stored state is damaged: {quoted(error)}") from error
