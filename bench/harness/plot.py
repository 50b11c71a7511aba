"""Plots as SVG, readable on light and on dark pages."""
import dataclasses, html, math

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 74, 16, 40, 84
# Told apart by all kinds of eyes (Okabe and Ito).
COLOURS = ("#56b4e9", "#0072b2", "#d55e00", "#e69f00", "#009e73", "#f0e442", "#000000", "#555555", "#cc79a7", "#8c564b", "#17becf", "#7f7f00")
# Names to colours: the same in all plots.
Palette = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Axis:
    label: str
    log: bool = False


def number(v: float) -> str:
    """A number as short as it can be: 0.25, 12, 3k, 1.5M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(v) >= unit:
            return f"{v / unit:.3g}{name}"
    return f"{v:.3g}"


class Scale:
    def __init__(self, axis: Axis, values: list[float], start: float, end: float):
        self.log, self.start, self.end = axis.log, start, end
        if self.log:
            positive = [v for v in values if v > 0] or [1]
            self.low, self.high = math.log10(min(positive)), math.log10(max(positive))
            margin = 0.04 * (self.high - self.low) or 0.5
            self.low, self.high = self.low - margin, self.high + margin
        else:
            self.low, self.high = 0, 1.06 * max([*values, 1e-9])

    def at(self, v: float) -> float:
        v = math.log10(max(v, 1e-12)) if self.log else v
        return self.start + (max(v, self.low) - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.log:
            step = 10 ** math.floor(math.log10(self.high / 4))
            step *= next(f for f in (1, 2, 5, 10) if self.high / (step * f) <= 6)
            return [i * step for i in range(int(self.high / step) + 1)]
        mantissas = (1, 2, 5) if self.high - self.low < 2.2 else (1,)
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        return [m * 10.0**d for d in decades for m in mantissas if self.low <= math.log10(m * 10.0**d) <= self.high]


def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{html.escape(words)}</text>'


def frame(title: str, y: Scale, y_label: str) -> list[str]:
    parts = [text(LEFT, 22, title, "start", ' font-weight="600" font-size="15"'),
             text(16, (TOP + HEIGHT - BOTTOM) / 2, y_label, "middle", f' transform="rotate(-90 16 {(TOP + HEIGHT - BOTTOM) / 2})"')]
    for v in y.ticks():
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.at(v):.1f}" y2="{y.at(v):.1f}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, y.at(v) + 4, number(v), "end"))
    return parts


def legend(names: list[str], palette: Palette) -> list[str]:
    parts, x, y = [], LEFT, HEIGHT - 30
    for name in names:
        width = 30 + 6.6 * len(name)
        if x + width > WIDTH:
            x, y = LEFT, y + 18
        parts.append(f'<rect x="{x:.1f}" y="{y - 10}" width="12" height="12" fill="{palette[name]}"/>')
        parts.append(text(x + 17, y, name, "start"))
        x += width
    return parts


def document(title: str, parts: list[str]) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}" '
            'font-family="system-ui, sans-serif" font-size="12" fill="#222">\n'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n")


def lines(title: str, x_axis: Axis, y_axis: Axis, series: dict[str, list[tuple[float, float]]], palette: Palette) -> str:
    points = [p for s in series.values() for p in s]
    x = Scale(x_axis, [p[0] for p in points], LEFT, WIDTH - RIGHT)
    y = Scale(y_axis, [p[1] for p in points], HEIGHT - BOTTOM, TOP)
    parts = frame(title, y, y_axis.label)
    for v in x.ticks():
        parts.append(text(x.at(v), HEIGHT - BOTTOM + 17, number(v)))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 34, x_axis.label))
    for name, s in series.items():
        colour = palette[name]
        path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in s)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="3.5" fill="{colour}"/>' for a, b in s]
    return document(title, parts + legend(list(series), palette))


def bars(title: str, y_axis: Axis, groups: dict[str, dict[str, float]], palette: Palette) -> str:
    """Groups of bars, in each the same names in the same colours."""
    names = list(dict.fromkeys(n for g in groups.values() for n in g))
    y = Scale(y_axis, [v for g in groups.values() for v in g.values()], HEIGHT - BOTTOM, TOP)
    parts = frame(title, y, y_axis.label)
    room = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    width = min(56, room * 0.8 / max(1, len(names)))
    for i, (group, values) in enumerate(groups.items()):
        middle = LEFT + room * (i + 0.5)
        parts.append(text(middle, HEIGHT - BOTTOM + 18, group))
        for j, name in enumerate(names):
            if name not in values:
                continue
            left, top = middle + (j - len(names) / 2) * width, y.at(values[name])
            parts.append(f'<rect x="{left + 2:.1f}" y="{top:.1f}" width="{width - 4:.1f}" height="{HEIGHT - BOTTOM - top:.1f}" '
                         f'fill="{palette[name]}"/>')
            parts.append(text(left + width / 2, top - 4, number(values[name]), more=' font-size="11"'))
    return document(title, parts + legend(names, palette))
