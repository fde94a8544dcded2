"""What every case must get right, or says that it cannot run."""


class LeftOut(Exception):
    """A case that this device or build cannot run, with the reason."""


def check(condition, message):
    """Stop unless the answer of a case is right; `assert` would vanish under `python -O`."""
    if not condition:
        raise AssertionError(message)


def relative_error(got, expected):
    got, expected = got.float(), expected.float()
    return float((got - expected).norm() / expected.norm())
