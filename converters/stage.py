"""The contract of one step of a build: what it requires, does and ensures."""

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, Protocol, TypeVar


class Product(Protocol):
    """What goes into a stage or comes out of it."""

    def digest(self) -> str:
        """Sha256 over everything that later stages may read of it."""
        ...


Given = TypeVar("Given", bound=Product)
Made = TypeVar("Made", bound=Product)


class Stage(ABC, Generic[Given, Made]):
    """One step. It leaves ``given`` untouched; the runner checks that by its digest.

    ``requires`` and ``ensures`` raise a ``SerinusError`` that names the cause and the fix.
    """

    name: ClassVar[str]
    """Short; shown to people while the stage runs."""

    @abstractmethod
    def requires(self, given: Given) -> None:
        """Refuse input that the stage cannot work on."""

    @abstractmethod
    def run(self, given: Given) -> Made:
        """Make the product."""

    @abstractmethod
    def ensures(self, given: Given, made: Made) -> None:
        """Refuse a product that is not what the stage promises."""


class StoredStage(Stage[Given, Made]):
    """A stage whose product depends on ``given`` alone, so that it need not be made twice."""

    @abstractmethod
    def pack(self, made: Made) -> bytes:
        """Bytes from which :meth:`unpack` makes the same product."""

    @abstractmethod
    def unpack(self, data: bytes) -> Made:
        """The product again."""
