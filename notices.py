"""What is wrong, with its cure: what is lost, stale, switched off or unknown; why there is nothing to see."""

from __future__ import annotations

from dataclasses import dataclass

from flows import FlowTable
from intake import ACCOUNTING_CURE, ACCOUNTING_OFF, EVENTS_CURE, TRACKING_CURE, TRACKING_OFF, Status
from view import View

SLOW = 5.0  # seconds: 262,144 flows, the kernel's default maximum, are listed in two


@dataclass(frozen=True)
class Notice:
    """One line about what is lost, stale, switched off or unknown."""

    text: str
    cure: str = ""
    bad: bool = False  # the picture may be untrue, not only poorer


def notices_of(status: Status, table: FlowTable, live: bool, now: float) -> list[Notice]:
    """All that is wrong, the worst first."""
    out = []
    for part in ("listing", "events"):
        if (problem := status.troubles.get(part)) is not None:
            since = "" if table.listed_at is None else f", table is {max(0, now - table.listed_at):.0f} s old"
            text = f"{part} stopped: {problem.what}{since if part == 'listing' else ''}, trying again"
            out.append(Notice(text, problem.cure, bad=True))
    if status.losses and status.lost_at is not None and now - status.lost_at < 60:
        again = status.healed >= status.losses
        text = f"{status.last_loss} lost {status.losses}x, " + ("table read anew since" if again else "reading it anew")
        out.append(Notice(text, "sysctl -w net.core.rmem_default=8388608" if live else "", bad=not again))
    if status.recording:
        out.append(Notice(status.recording, bad=True))
    if live and status.listing_since is not None and now - status.listing_since > SLOW:
        seconds = now - status.listing_since
        out.append(Notice(f"the listing that began {seconds:.0f} s ago has not ended: the table is older than that"))
    if live and status.facts.get("events") == 0:
        out.append(Notice("the kernel sends no events", EVENTS_CURE, bad=True))
    if live and status.facts.get("acct") == 0 and not table.counted:
        out.append(Notice(ACCOUNTING_OFF, ACCOUNTING_CURE))
    if table.overflow:
        out.append(Notice(f"{table.overflow} flows dropped: more than {table.limit} are not kept", bad=True))
    out += [Notice(text) for text in status.unread()]
    if status.settings:
        out.append(Notice(status.settings))
    out += [Notice(text, cure) for text, cure in status.geography]
    return out


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
