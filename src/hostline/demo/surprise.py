"""What the demo raises when something is not as it should be."""


class Surprise(Exception):  # noqa: N818 - it is no error of the demo's
    """Says what was expected, and what came instead."""


def expect(what: str, wanted: object, got: object) -> None:
    """Raise a :class:`Surprise` unless they are equal."""
    if got != wanted:
        raise Surprise(f"{what}: expected {wanted}, got {got}")
