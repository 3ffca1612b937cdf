"""The one-line prompt: editing, and what Enter and Esc do with what was typed."""

from __future__ import annotations

from filters import FilterError
from view import Prompt, View


def edit(view: View, prompt: Prompt, key: str) -> str:
    """Do what a key means in a prompt. Returns "", or on Enter what is to be done outside."""
    if key == "enter" and prompt.purpose != "filter":
        view.prompt = None
        return f"{prompt.purpose} {prompt.text.strip()}"
    if key == "enter":
        _keep_filter(view, prompt)
        return ""
    if key == "esc":
        view.prompt = None
        if prompt.purpose == "filter":
            view.set_filter(prompt.before)
        return "cancel"
    before, after = prompt.text[: prompt.cursor], prompt.text[prompt.cursor :]
    if key == "space":
        key = " "
    if len(key) == 1 and key.isprintable():
        before += key
    elif key == "backspace":
        before = before[:-1]
    elif key == "delete":
        after = after[1:]
    elif key == "ctrl-u":
        before = ""
    elif key == "ctrl-w":
        before = before.rstrip().rpartition(" ")[0] + " " if " " in before.rstrip() else ""
    elif key in ("up", "down") and prompt.purpose == "filter":
        before, after = _remembered(view, prompt, key), ""
    elif key in ("left", "right", "home", "end", "ctrl-a", "ctrl-e"):
        whole = len(prompt.text)
        moves = {"left": prompt.cursor - 1, "right": prompt.cursor + 1, "home": 0, "ctrl-a": 0}
        prompt.cursor = max(0, min(moves.get(key, whole), whole))
        return ""
    else:
        return ""
    prompt.text, prompt.cursor = (before + after)[:500], min(len(before), 500)
    if prompt.purpose == "filter":
        _try_filter(view, prompt)
    return ""


def _remembered(view: View, prompt: Prompt, key: str) -> str:
    """The kept filter before or after the one in the prompt."""
    if not view.history:
        return prompt.text
    at = view.history.index(prompt.text) if prompt.text in view.history else len(view.history)
    at = max(0, min(at + (-1 if key == "up" else 1), len(view.history)))
    return view.history[at] if at < len(view.history) else ""


def _try_filter(view: View, prompt: Prompt) -> None:
    """Live effect: a right expression filters at once; a wrong one says where and why, and what was before holds.

    Not the longest right beginning: of "state:foo" that is the bare word "state", which fits nothing.
    """
    try:
        view.set_filter(prompt.text)
        prompt.error = ""
    except FilterError as error:
        prompt.error = f"at {error.position + 1}: {error.message}"
        view.set_filter(prompt.before)


def _keep_filter(view: View, prompt: Prompt) -> None:
    _try_filter(view, prompt)
    if prompt.error:
        return
    view.prompt = None
    if prompt.text.strip():
        view.history = [*[text for text in view.history if text != prompt.text], prompt.text][-50:]
