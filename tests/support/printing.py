"""A record as conntrack prints it, and any record that it can print."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from parse import Kind, Record, Tuple

FAMILIES = {"ipv4": ("ipv4", 2), "ipv6": ("ipv6", 10)}
TAGS = {None: "", "new": "    [NEW] ", "update": " [UPDATE] ", "destroy": "[DESTROY] "}


def tuple_text(side: Tuple) -> str:
    """As libnetfilter_conntrack prints a tuple."""
    words = [f"src={side.src} dst={side.dst}"]
    words += [f"sport={side.sport} dport={side.dport}"] * (side.sport is not None)
    words += [f"type={side.type} code={side.code} id={side.icmp_id}"] * (side.type is not None)
    words += [f"srckey={side.srckey} dstkey={side.dstkey}"] * (side.srckey is not None)
    return " ".join(words)


def counts_text(side: Tuple) -> list[str]:
    return [f"packets={side.packets} bytes={side.bytes}"] * (side.packets is not None)


def head_of(found: Record) -> str:
    """All before the original tuple."""
    family = f"{found.kind.family:<8} {FAMILIES[found.kind.family][1]} " if found.kind.family else ""
    timeout = "" if found.timeout is None else f"{found.timeout} "
    state = "" if found.state is None else f"{found.state} "
    stamp = "" if found.stamp is None else f"[{found.stamp}]\t"
    return f"{stamp}{TAGS[found.event]}{family}{found.kind.protocol:<8} {found.kind.number} {timeout}{state}"


def rest_text(found: Record) -> str:
    """All behind the original tuple."""
    words = [f"zone-orig={found.original.zone}"] * (found.original.zone is not None) + counts_text(found.original)
    words += ["[UNREPLIED]"] * ("UNREPLIED" in found.flags) + [tuple_text(found.reply)]
    words += [f"zone-reply={found.reply.zone}"] * (found.reply.zone is not None) + counts_text(found.reply)
    words += [f"[{flag}]" for flag in found.flags if flag != "UNREPLIED"]
    for name in ("mark", "secmark", "secctx", "zone", "delta-time", "start", "stop", "helper", "use", "id"):
        value = getattr(found, name.replace("-", "_"))
        if value is not None:
            words.append(f"[{name}={value}]" if name in ("start", "stop") else f"{name}={value}")
    if found.labels is not None:
        words.append("labels=" + ",".join(found.labels) if found.labels else "labels")
    if found.portid is not None:
        words.append(f"[USERSPACE] portid={found.portid} progname={found.progname}")
    return " ".join(words)


def printed(found: Record) -> str:
    return f"{head_of(found)}{tuple_text(found.original)} {rest_text(found)}"


numbers32 = st.sampled_from([0, 1, 9, 16, 4_294_967_295])
counts = st.sampled_from([(0, 0), (1, 60), (2**64 - 1, 2**64 - 1)])
ports = st.sampled_from([0, 1, 443, 65_535])
texts = st.sampled_from(["a", "system_u:object_r:unlabeled_t:s0", "two words", "use=7x", "zone", "id=x"])
dates = st.sampled_from(["Thu Nov  5 00:00:00 2026", "Sun Nov 22 22:22:49 2026"])
HOSTS = {
    "ipv4": ["10.0.0.1", "192.0.2.255", "8.8.8.8"],
    "ipv6": ["::", "2001:db8:1111:2222:3333:4444:5555:6666", "::ffff:192.0.2.9"],
}
STATES_OF = {6: ["ESTABLISHED", "SYN_SENT2", "CLOSE"], 132: ["ESTABLISHED", "SHUTDOWN_ACK_SENT"]}
ANSWERS = {8: 0, 13: 14, 3: 3, 128: 129}  # of ICMP types


@st.composite
def tuples(draw: st.DrawFn, family: str, number: int) -> tuple[Tuple, Tuple]:
    hosts = HOSTS[family]
    one, other = Tuple(draw(st.sampled_from(hosts)), draw(st.sampled_from(hosts))), Tuple()
    if number in (6, 17, 33, 132, 136):
        one.sport, one.dport = draw(ports), draw(ports)
    elif number in (1, 58):
        one.type, one.code, one.icmp_id = draw(st.sampled_from([8, 13, 3] if number == 1 else [128, 3])), 0, draw(ports)
    elif number == 47:
        one.srckey, one.dstkey = draw(st.sampled_from(["0x0", "0xffff"])), "0x1234"
    other = replace(
        one, src=one.dst, dst=one.src, sport=one.dport, dport=one.sport, srckey=one.dstkey, dstkey=one.srckey
    )
    other.type = None if one.type is None else ANSWERS[one.type]
    if draw(st.booleans()) and one.src != one.dst:  # NAT; what a host sends to itself is not translated
        other.dst = draw(st.sampled_from([host for host in hosts if host != other.src]))
        if one.sport != one.dport:
            other.dport = None if other.dport is None else draw(ports.filter(lambda port: port != other.sport))
        other.icmp_id = None if other.icmp_id is None else draw(ports)
    for side in (one, other):
        side.zone = draw(st.sampled_from([None, None, 0, 65_535]))
    return one, other


@st.composite
def records(draw: st.DrawFn, rare: bool = True, listed: bool = False) -> Record:
    """Anything that conntrack can print of a flow; ``rare``: words that are not in every line, too; ``listed``: -L."""
    family = draw(st.sampled_from(["ipv4", "ipv6"]))
    protocols = [(6, "tcp"), (17, "udp"), (47, "gre"), (50, "unknown"), (255, "unknown"), (132, "sctp")]
    number, name = draw(st.sampled_from([*protocols, (1, "icmp") if family == "ipv4" else (58, "icmpv6")]))
    one, other = draw(tuples(family, number))
    found = Record(Kind(draw(st.sampled_from([family, ""])), name, number), one, other)
    if not listed:
        found.event = draw(st.sampled_from([None, "new", "update", "destroy"]))
        found.stamp = draw(st.sampled_from([None, "1795386413.786793", "1.5"]))
    if found.event in (None, "destroy") and draw(st.booleans()):  # with accounting
        for side in (one, other):
            side.packets, side.bytes = draw(counts)
    found.flags = list(
        draw(st.sampled_from([[], ["UNREPLIED"], ["ASSURED"], ["OFFLOAD"], ["HW_OFFLOAD"], ["UNREPLIED", "OFFLOAD"]]))
    )
    offloaded = bool({"OFFLOAD", "HW_OFFLOAD"} & set(found.flags))
    times = st.sampled_from([0, 431_999, 4_294_967_295])
    found.timeout = draw(times | st.none() if offloaded or found.event == "destroy" else times)
    if states := STATES_OF.get(number):
        known = st.sampled_from(states)
        found.state = draw(known | st.none() if offloaded or found.event in ("update", "destroy") else known)
    found.mark = draw(st.none() | numbers32)
    found.use = None if found.event else draw(numbers32)
    found.id = draw(st.none() | numbers32)
    if (
        found.id is not None and found.id == other.icmp_id
    ):  # of an ICMP line whose last two ids are alike one was doubled
        found.id = 77
    if rare and draw(st.booleans()):
        _draw_rare_words(draw, found)
    return found


def _draw_rare_words(draw: st.DrawFn, found: Record) -> None:
    for key, values in (
        *(("secmark", numbers32), ("zone", st.sampled_from([0, 65_535])), ("secctx", texts)),
        *(("delta_time", st.sampled_from([0, 61, 2**64 - 1])), ("start", dates), ("stop", dates)),
        *(("helper", st.sampled_from(["ftp", "sip-5060"])), ("labels", st.sampled_from([[], ["a"], ["a b", "c"]]))),
    ):
        setattr(found, key, draw(st.none() | values))
    if found.event and draw(st.booleans()):
        found.portid, found.progname = draw(numbers32), draw(st.sampled_from(["conntrack", "a [NEW] labels=x id=9"]))
