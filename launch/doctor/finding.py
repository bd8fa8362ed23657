"""One line of `rostro doctor`: the subject, its state, and what to type or to ask of the admin."""

from dataclasses import dataclass

OK, NOTE, MISSING, HARMFUL = "ok", "note", "missing", "harmful"


@dataclass(frozen=True)
class Finding:
    """A finding.

    level: ok; note (works, worth knowing); missing (a feature is absent); harmful (runs lose work or stop)
    """

    level: str
    what: str  # name of the setting or the part
    text: str  # what was found
    advice: str = ""  # what to type, or to ask of the admin; empty for ok
