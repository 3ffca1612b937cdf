"""The help: all keys, the filters, all that is wrong."""

from __future__ import annotations

from columns import VIEWS
from keys import BINDINGS, Binding
from panel import notice_lines
from text import Line, pad, wrap
from view import Scene

KEYS_WIDTH, TEXT_WIDTH = 13, 26  # of a key in the help: two times both is 80 less the margins

_ABOUT = {
    "connections": "a row is a flow",
    "hosts": "a row is a host on the near side; in is what comes to it",
    "remotes": "a row is a host on the far side; in is what it sends",
    "countries": "where the remote ends are",
    "networks": "whose network the remote ends are in",
    "services": "protocol and port, and who uses it",
    "nat": "inside, what NAT shows in its place, remote; also of what has ended",
    "events": "what conntrack -E says, the newest first; totals at the end",
    "map": "remote hosts where they are; bigger is more",
}
_FILTER_HELP = """\
Filters: words joined by blanks mean and; or; ( ); ! or not negates; a bare word searches everything shown.
proto: state: family: src: dst: host: port: sport: dport: dir:in|out|fwd|local nat:snat|dnat|any mark:0x10 \
zone:3 flag:unreplied bytes:>1M rate:>100k age:<10s country:DE asn:15169 org:google near: far: service:tcp/443 \
new: wan:203.0.113.1:38768 at:14:02 (who was it? in the NAT view) city:"""


def help_lines(scene: Scene, width: int) -> list[Line]:
    """All keys, two on a line where both are short and there is room; filters; all that is wrong."""
    mark = scene.glyphs.cut
    lines: list[Line] = []
    kind = scene.view.kind
    lines += [[(text, "plain")] for text in wrap(f" {kind.title}: {_ABOUT[kind.name]}", max(8, width), mark)]
    views = [kind for kind in VIEWS if kind.key]
    names = " ".join(kind.name for kind in views)
    lines += _wrapped(f"{views[0].key} to {views[-1].key}", f"views: {names}", width, mark)
    left: Binding | None = None
    for binding in BINDINGS:
        if binding.keys[0] in {kind.key for kind in views}:
            continue
        short = width >= 80 and len(binding.text) <= TEXT_WIDTH
        if left is not None and short:
            lines[-1][-1] = (pad(left.text, TEXT_WIDTH, False), "plain")
            lines[-1] += _key_line(binding)
            left = None
        else:
            lines += _wrapped(" ".join(binding.keys), binding.text, width, mark)
            left = binding if short else None
    for paragraph in _FILTER_HELP.split("\n"):
        lines += [[(f" {text}", "plain")] for text in wrap(paragraph, max(8, width - 2), mark)]
    for paragraph in scene.status.attributions:
        lines += [[(f" {text}", "dim")] for text in wrap(paragraph, max(8, width - 2), mark)]
    return lines + notice_lines(scene, width)


def _key_line(binding: Binding) -> Line:
    return [(f" {' '.join(binding.keys):<{KEYS_WIDTH}}", "key"), (binding.text, "plain")]


def _wrapped(keys: str, text: str, width: int, mark: str) -> list[Line]:
    texts = wrap(text, max(8, width - KEYS_WIDTH - 1), mark)
    first: Line = [(f" {keys:<{KEYS_WIDTH}}", "key"), (texts[0], "plain")]
    return [first, *([(" " * (KEYS_WIDTH + 1), "plain"), (text, "plain")] for text in texts[1:])]
