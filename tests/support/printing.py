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
counts = st.sampled_from([None, (0, 0), (1, 60), (2**64 - 1, 2**64 - 1)])
ports = st.sampled_from([0, 1, 443, 65_535])
texts = st.sampled_from(["a", "system_u:object_r:unlabeled_t:s0", "two words", "use=7x", "zone", "id=x"])
dates = st.sampled_from(["Thu Nov  5 00:00:00 2026", "Sun Nov 22 22:22:49 2026"])


@st.composite
def tuples(draw: st.DrawFn, family: str, number: int) -> tuple[Tuple, Tuple]:
    hosts = ["10.0.0.1", "192.0.2.255"] if family == "ipv4" else ["::", "2001:db8:1111:2222:3333:4444:5555:6666"]
    one, other = Tuple(draw(st.sampled_from(hosts)), draw(st.sampled_from(hosts))), Tuple()
    if number in (6, 17, 33, 132, 136):
        one.sport, one.dport = draw(ports), draw(ports)
    elif number in (1, 58):
        one.type, one.code, one.icmp_id = draw(st.sampled_from([0, 8, 128])), 0, draw(ports)
    elif number == 47:
        one.srckey, one.dstkey = draw(st.sampled_from(["0x0", "0xffffffff"])), "0x1234"
    other = replace(
        one, src=one.dst, dst=one.src, sport=one.dport, dport=one.sport, srckey=one.dstkey, dstkey=one.srckey
    )
    if draw(st.booleans()):  # NAT
        other.dst = draw(st.sampled_from(hosts))
        other.dport = None if other.dport is None else draw(ports)
        other.icmp_id = None if other.icmp_id is None else draw(ports)
    for side in (one, other):
        side.zone = draw(st.sampled_from([None, None, 0, 65_535]))
    return one, other


@st.composite
def records(draw: st.DrawFn, rare: bool = True) -> Record:
    """Anything that conntrack can print of a flow; ``rare``: words that are not in every line, too."""
    family = draw(st.sampled_from(["ipv4", "ipv6"]))
    protocols = [(6, "tcp"), (17, "udp"), (47, "gre"), (50, "unknown"), (255, "unknown"), (132, "sctp")]
    number, name = draw(st.sampled_from([*protocols, (1, "icmp") if family == "ipv4" else (58, "icmpv6")]))
    one, other = draw(tuples(family, number))
    for side in (one, other):
        side.packets, side.bytes = draw(counts) or (None, None)
    found = Record(Kind(draw(st.sampled_from([family, ""])), name, number), one, other)
    found.stamp = draw(st.sampled_from([None, "1795386413.786793", "1.5"]))
    found.event = draw(st.sampled_from([None, "new", "update", "destroy"]))
    found.timeout = draw(st.sampled_from([None, 0, 431_999, 4_294_967_295]))
    if number in (6, 132):
        found.state = draw(st.sampled_from([None, "ESTABLISHED", "SYN_SENT2", "SHUTDOWN_ACK_SENT", "CLOSE"]))
    found.flags = draw(
        st.sampled_from([[], ["UNREPLIED"], ["ASSURED"], ["OFFLOAD"], ["HW_OFFLOAD"], ["UNREPLIED", "ASSURED"]])
    )
    found.flags = list(found.flags)
    for key in ("mark", "use", "id"):
        setattr(found, key, draw(st.none() | numbers32))
    if rare and draw(st.booleans()):
        for key, values in (
            *(("secmark", numbers32), ("zone", st.sampled_from([0, 65_535])), ("secctx", texts)),
            *(("delta_time", st.sampled_from([0, 61, 2**64 - 1])), ("start", dates), ("stop", dates)),
            *(("helper", st.sampled_from(["ftp", "sip-5060"])), ("labels", st.sampled_from([[], ["a"], ["a b", "c"]]))),
        ):
            setattr(found, key, draw(st.none() | values))
        if draw(st.booleans()):
            found.portid, found.progname = (
                draw(numbers32),
                draw(st.sampled_from(["conntrack", "a [NEW] labels=x id=9"])),
            )
    return found
