"""Run the tables and the ladder, and make statistics, reports and figures of them."""

from lazy_loader import attach

_NAMES: dict[str, list[str]] = {
    "intervals": ["moderated", "seeds_needed", "student"],
    "ladder": ["Rung", "climb"],
    "paper": ["PUBLISHED"],
    "plots": [],
    "references": [],
    "report": [],
    "sweep": ["collect", "reproduce"],
    "tables": ["Row", "TABLES"],
    "verdicts": ["CLAIMS", "Claim", "judge"],
}
__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _NAMES)  # a module is imported when a name of it is used
