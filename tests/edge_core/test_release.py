"""A release's name and digest are valid as soon as they exist."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_core.release import ReleaseRef

DIGEST = "0123456789abcdef" * 4
PARTS = st.integers(0, 999_999)


@given(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
    st.tuples(PARTS, PARTS, PARTS),
    st.binary(min_size=32, max_size=32),
)
def test_a_reference_comes_back_from_its_name(
    model: str, parts: tuple[int, int, int], digest: bytes
) -> None:
    ref = ReleaseRef(model=model, version=".".join(map(str, parts)), digest=digest.hex())
    assert ReleaseRef.of(ref.name, ref.digest) == ref
    assert ref.name == f"{model}@{parts[0]}.{parts[1]}.{parts[2]}"


@pytest.mark.parametrize(
    "model",
    ["", "-m", "M", "m_1", "m.1", "../m", "m/n", "m@n", "m\n", "m ", "é", "٣", "m" * 64],
)
def test_a_model_name_of_another_form_is_refused(model: str) -> None:
    with pytest.raises(ValueError, match="model name"):
        ReleaseRef(model=model, version="1.0.0", digest=DIGEST)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "1",
        "1.0",
        "1.0.0.0",
        "v1.0.0",
        "01.0.0",
        "1.00.0",
        "1.0.0-rc1",
        "1.0.0\n",
        " 1.0.0",
        "1.0.1000000",
        "1.0.-1",
        "1.0.٣",
    ],
)
def test_a_version_of_another_form_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match="version"):
        ReleaseRef(model="m", version=version, digest=DIGEST)


@pytest.mark.parametrize(
    "digest", ["", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), DIGEST + "\n", "g" * 64, "٣" * 64]
)
def test_a_digest_of_another_form_is_refused(digest: str) -> None:
    with pytest.raises(ValueError, match="manifest digest"):
        ReleaseRef(model="m", version="1.0.0", digest=digest)


@given(st.text(max_size=30))
@example("m")
@example("m@")
@example("@1.0.0")
@example("m@1.0.0@1.0.0")
@example("m@@1.0.0")
@example("m@1.0.0\n")
def test_only_a_name_that_is_written_the_same_again_is_read(name: str) -> None:
    try:
        ref = ReleaseRef.of(name, DIGEST)
    except ValueError:
        return
    assert ref.name == name


@pytest.mark.parametrize(
    "name", ["m", "m@", "@1.0.0", "m@1.0.0@1.0.0", "m@@1.0.0", "m@1.0.0\n", "m 1.0.0"]
)
def test_a_name_that_lacks_a_part_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="does not match"):
        ReleaseRef.of(name, DIGEST)


def test_a_reference_never_changes() -> None:
    ref = ReleaseRef(model="m", version="1.0.0", digest=DIGEST)
    with pytest.raises(AttributeError):
        ref.version = "2.0.0"  # type: ignore[misc]  # that is what is tried
    assert {ref: 1}[ReleaseRef.of("m@1.0.0", DIGEST)] == 1


def test_a_refusal_is_one_line() -> None:
    with pytest.raises(ValueError, match="model name") as refused:
        ReleaseRef(model="\x1b[2J\nall is well", version="1.0.0", digest=DIGEST)
    assert str(refused.value).isprintable()
