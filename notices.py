"""What is wrong, with its cure: what is lost, stale, switched off or unknown; why there is nothing to see."""

from __future__ import annotations

from flows import FlowTable
from intake import TRACKING_CURE, TRACKING_OFF, Status
from view import View


def empty_reason(view: View, status: Status, table: FlowTable, live: bool) -> list[tuple[str, str]]:
    """Why no row is there: (words, command that helps)."""
    if len(table) and view.work is not None:
        return [("adding up ..." if view.kind.grouping else "looking ...", "")]
    if len(table) and view.context.since is None and "new:" in view.filter.lower():
        return [("nothing is marked: what would be new?", "m")]
    if len(table) and view.predicate is not None:
        return [("no flow fits the filter", "Esc" if view.filter else "")]
    if len(table) and view.kind.name == "nat":
        return [("no flow here is translated: this host does no NAT, or nobody needs it now", "nft list ruleset")]
    if len(table) and view.kind.name == "events":
        return [("no event yet: they come as connections open, change and end", "")]
    if (problem := status.troubles.get("listing") or status.troubles.get("events")) is not None:
        return [(problem.what, problem.cure)]
    if status.rejects and not status.understood:
        return [("nothing of what was read is understood", "")]
    if not live:
        return [("the recording has no flow at this time", "")]
    if table.listed_at is None:
        return [("reading the connection table ...", "")]
    if status.facts.get("count", 0) > 0 and view.base is None:
        return [("the kernel counts entries but lists none", "conntrack -L")]
    return [(TRACKING_OFF, TRACKING_CURE), ("or simply nobody has sent anything yet", "")]
