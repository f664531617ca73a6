"""Draws a Mermaid sequence diagram as SVG, in the colours of the page.

It supports the part of Mermaid's language that the chapters use (https://mermaid.js.org/syntax/sequenceDiagram.html):

    participant C as Caller         a lane, from left to right
    C->>W: GET /                    an arrow; `-->>` is dashed
    W->>W: think                    an arrow from a lane to itself
    Note over C,W: the caller waits
    loop twice … end                a frame around some of the rows

Anything else raises ValueError, so that no part of a diagram is silently left out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

_PARTICIPANT = re.compile(r"participant (\w+) as (.+)")
_MESSAGE = re.compile(r"(\w+)(--?)>>(\w+): (.+)")
_NOTE = re.compile(r"Note over (\w+)(?:,(\w+))?: (.+)")

# In pixels of the SVG's own coordinates, for the page's default font size.
ROW, TOP, MARGIN = 42, 56, 12
LETTER = 7.2  # the width of an average letter
MIN_GAP = 130  # between two lanes


@dataclass(frozen=True)
class _Message:
    start: int
    end: int
    text: str
    dashed: bool


@dataclass(frozen=True)
class _Note:
    start: int
    end: int
    text: str


@dataclass
class _Frame:
    text: str
    first: int
    last: int = 0


@dataclass
class _Diagram:
    lanes: dict[str, str] = field(default_factory=dict)
    rows: list[_Message | _Note | None] = field(default_factory=list)  # None: the title of a frame
    frames: list[_Frame] = field(default_factory=list)


def sequence_svg(text: str) -> str:
    """The SVG element for a diagram's source. Raises ValueError for a line that is not supported."""
    diagram = _read(text)
    places = _places(diagram)
    width, height = places[-1] + places[0], TOP + ROW * len(diagram.rows) + MARGIN
    parts = [*_lanes(diagram, places, height), *_frames(diagram, width)]
    for number, row in enumerate(diagram.rows):
        y = TOP + ROW * number + ROW // 2
        match row:
            case _Message(start, end) if start == end:
                parts += _message_to_itself(row, places[start], y)
            case _Message():
                parts += _message(row, places, y)
            case _Note():
                parts += _note(row, places, y)
    label = escape("; ".join(row.text for row in diagram.rows if row), quote=True)
    return (
        f'<svg class="sequence" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _read(text: str) -> _Diagram:
    diagram, open_frames = _Diagram(), list[_Frame]()
    for line in filter(None, map(str.strip, text.splitlines())):
        index = list(diagram.lanes).index
        if found := _PARTICIPANT.fullmatch(line):
            diagram.lanes[found[1]] = found[2]
        elif found := _MESSAGE.fullmatch(line):
            diagram.rows.append(_Message(index(found[1]), index(found[3]), found[4], found[2] == "--"))
        elif found := _NOTE.fullmatch(line):
            diagram.rows.append(_Note(index(found[1]), index(found[2] or found[1]), found[3]))
        elif line.startswith("loop "):
            open_frames.append(_Frame(line[5:], len(diagram.rows)))
            diagram.frames.append(open_frames[-1])
            diagram.rows.append(None)
        elif line == "end":
            open_frames.pop().last = len(diagram.rows)
        elif line != "sequenceDiagram":
            raise ValueError(f"not a supported line of a sequence diagram: {line}")
    if not diagram.lanes:
        raise ValueError("a sequence diagram needs a participant")
    return diagram


def _places(diagram: _Diagram) -> list[float]:
    """The x of each lane. The distance between two lanes depends on the longest label between them."""
    names = list(diagram.lanes.values())
    gaps = [max(MIN_GAP, (len(a) + len(b)) / 2 * LETTER + 30) for a, b in pairwise(names)]
    for row in diagram.rows:
        if row is None:
            continue
        left, right = sorted((row.start, row.end))
        needed = len(row.text) * LETTER + 24
        if left == right and left < len(gaps):
            gaps[left] = max(gaps[left], needed + (20 if isinstance(row, _Message) else -needed / 2))
        elif left != right:
            share = needed / (right - left)
            gaps[left:right] = [max(gap, share) for gap in gaps[left:right]]
    places = [max(len(names[0]) * LETTER / 2 + 24, 60.0)]
    for gap in gaps:
        places.append(places[-1] + gap)
    return places


def _lanes(diagram: _Diagram, places: Sequence[float], height: int) -> Iterator[str]:
    for name, x in zip(diagram.lanes.values(), places, strict=True):
        half = len(name) * LETTER / 2 + 12
        yield f'<line class="lane" x1="{x:.0f}" y1="40" x2="{x:.0f}" y2="{height}"/>'
        yield f'<rect class="name" x="{x - half:.0f}" y="10" width="{2 * half:.0f}" height="30" rx="6"/>'
        yield f'<text x="{x:.0f}" y="30">{escape(name)}</text>'


def _frames(diagram: _Diagram, width: float) -> Iterator[str]:
    for frame in diagram.frames:
        y, height = TOP + ROW * frame.first + 8, ROW * (frame.last - frame.first) - 8
        yield f'<rect class="frame" x="6" y="{y}" width="{width - 12:.0f}" height="{height}" rx="6"/>'
        yield f'<text class="loop" x="16" y="{y + 20}">loop: {escape(frame.text)}</text>'


def _message(message: _Message, places: Sequence[float], y: int) -> Iterator[str]:
    start, end = places[message.start], places[message.end]
    direction = 1 if end > start else -1
    kind = "arrow dashed" if message.dashed else "arrow"
    yield f'<path class="{kind}" d="M{start:.0f} {y + 8}H{end:.0f}"/>'
    yield f'<path class="head" d="M{end:.0f} {y + 8}l{-9 * direction} -5v10z"/>'
    yield f'<text x="{(start + end) / 2:.0f}" y="{y}">{escape(message.text)}</text>'


def _message_to_itself(message: _Message, x: float, y: int) -> Iterator[str]:
    yield f'<path class="arrow" d="M{x:.0f} {y - 8}h18v18h-18"/>'
    yield f'<path class="head" d="M{x:.0f} {y + 10}l9 -5v10z"/>'
    yield f'<text class="self" x="{x + 26:.0f}" y="{y + 5}">{escape(message.text)}</text>'


def _note(note: _Note, places: Sequence[float], y: int) -> Iterator[str]:
    middle = (places[note.start] + places[note.end]) / 2
    half = max(abs(places[note.end] - places[note.start]) / 2 + 20, len(note.text) * LETTER / 2 + 10)
    half = min(half, middle - 2)
    yield f'<rect class="note" x="{middle - half:.0f}" y="{y - 14}" width="{2 * half:.0f}" height="28" rx="3"/>'
    yield f'<text x="{middle:.0f}" y="{y + 5}">{escape(note.text)}</text>'
