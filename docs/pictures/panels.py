"""Draws the panels of a Grafana dashboard from the answers to their queries.

What the dashboard's JSON sets is followed: place, title, type, unit, thresholds, mappings, legend, bars or lines,
columns. What it leaves to Grafana is drawn much as Grafana draws it.
"""

import datetime
import itertools
import math
import re

import fontpkg_inter
from matplotlib import dates, figure, font_manager, patches
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

# In pixels. A panel's place counts in columns and rows.
WIDTH, MARGIN, GAP, HEADER, PAD, LINE = 1600, 16, 8, 52, 12, 20
COLUMN, ROW = (WIDTH - 2 * MARGIN + GAP) / 24, 38
DPI = 100
# Between two values of a line.
LONGEST_STEP = datetime.timedelta(minutes=2)

CANVAS, PANEL, BORDER, GRID = "#111217", "#181b1f", "#2a2c31", "#25282d"
TEXT, MUTED = "#d4d4e0", "#9d9fae"
# Grafana's, of which the first ones are those of series.
COLORS = {
    "green": "#73bf69", "yellow": "#f2cc0c", "light-blue": "#8ab8ff", "orange": "#ff9830", "red": "#f2495c",
    "blue": "#5794f2", "purple": "#b877d9", "light-purple": "#ca95e5",
}  # fmt: skip
# The darker ones behind white text.
BACKGROUND = {"green": "#37872d", "orange": "#c9691c", "red": "#c4314b"}
FONT = fontpkg_inter.ROOT / "files" / "Inter[opsz,wght].ttf"

# Of each unit: what a value is divided by from which size on, and the name of that.
UNITS = {
    "s": [(86400, " days"), (3600, " hours"), (60, " mins"), (1, " s"), (0.001, " ms")],
    "bytes": [(2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")],
    "short": [(1, "")],
}
# Distances between the lines of a grid.
STEPS = {
    "s": [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 3 * 3600, 6 * 3600, 12 * 3600],
    "bytes": [n * 2**20 for n in (1, 2, 5, 10, 20, 50, 100)],
    "short": [n * 10**e for e in range(6) for n in (1, 2, 5)],
}


def draw(dashboard, answers, file):
    """Draws all panels. `answers` has what Prometheus returned by panel id and refId, and the end of the 24 hours."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    canvas = Canvas(HEADER + rows * ROW + GAP, moment(answers["end"]))
    header(canvas, dashboard)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        x, y = MARGIN + place["x"] * COLUMN, HEADER + place["y"] * ROW
        box = (x, y, place["w"] * COLUMN - GAP, place["h"] * ROW - GAP)
        canvas.box(*box, PANEL, BORDER)
        canvas.text(x + PAD, y + 20, panel["title"], 14)
        series = [(target, one) for target in panel["targets"] for one in answers[str(panel["id"])][target["refId"]]]
        inside = (x + PAD, y + 38, box[2] - 2 * PAD, box[3] - 38 - PAD)
        kinds = {"stat": stat, "timeseries": timeseries, "table": table}
        if series:
            kinds[panel["type"]](canvas, panel, series, inside)
        else:
            canvas.text(x + box[2] / 2, y + box[3] / 2, "No data", 16, MUTED, "center")
    canvas.save(file)


class Canvas:
    """A figure in pixels from its upper left corner."""

    def __init__(self, height, end):
        self.height = height
        self.span = end - datetime.timedelta(hours=24), end
        self.figure = figure.Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=CANVAS)
        self.renderer = FigureCanvasAgg(self.figure).get_renderer()

    def box(self, x, y, w, h, color, edge="none"):
        shape = patches.Rectangle(
            (x / WIDTH, 1 - (y + h) / self.height), w / WIDTH, h / self.height,
            facecolor=color, edgecolor=edge, linewidth=0.8, transform=self.figure.transFigure, zorder=-1,
        )  # fmt: skip
        self.figure.add_artist(shape)

    def line(self, x, y, w):
        self.box(x, y, w, 0.8, BORDER)

    def text(self, x, y, text, size, color=TEXT, align="left", fit=None):
        """Text whose middle is at `y`. With `fit`, it is made smaller, then cut, to be no wider."""
        font = font_manager.FontProperties(fname=FONT, size=size * 72 / DPI)
        if fit:
            while size > 10 and self.width(text, size) > fit:
                size -= 1
            while len(text) > 2 and self.width(text, size) > fit:
                text = text[:-2] + "…"
            font.set_size(size * 72 / DPI)
        self.figure.text(
            x / WIDTH, 1 - y / self.height, text, color=color, ha=align, va="center_baseline",
            fontproperties=font, parse_math=False,
        )  # fmt: skip

    def width(self, text, size):
        font = font_manager.FontProperties(fname=FONT, size=size * 72 / DPI)
        return self.renderer.get_text_width_height_descent(text, font, False)[0]

    def axes(self, x, y, w, h):
        axes = self.figure.add_axes((x / WIDTH, 1 - (y + h) / self.height, w / WIDTH, h / self.height))
        axes.set_facecolor("none")
        axes.spines[:].set_visible(False)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6, colors=MUTED)
        return axes

    def save(self, file):
        # A palette is enough, and a fifth of the size.
        self.figure.savefig(file, dpi=DPI, facecolor=CANVAS)
        image = Image.open(file).convert("RGB")
        image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(file, optimize=True)


def header(canvas, dashboard):
    canvas.text(MARGIN, HEADER / 2, dashboard["title"], 18)
    x = MARGIN + canvas.width(dashboard["title"], 18) + 32
    for variable in dashboard["templating"]["list"]:
        value = variable.get("current", {}).get("text", "Prometheus")
        for text, color in ((variable["label"], MUTED), (value, TEXT)):
            canvas.text(x, HEADER / 2, text, 14, color)
            x += canvas.width(text, 14) + 8
        x += 20
    canvas.text(WIDTH - MARGIN, HEADER / 2, "Last 24 hours", 14, align="right")


def stat(canvas, panel, series, inside):
    x, y, w, h = inside
    height = (h + GAP / 2) / len(series)
    size = min(20, 0.5 * height)
    for number, (target, one) in enumerate(series):
        top, middle = y + number * height, y + (number + 0.5) * height - GAP / 4
        text, color = shown(panel, float(one["value"][1]))
        canvas.box(x, top, w, height - GAP / 2, BACKGROUND[color])
        beside = canvas.width(text, size) + 3 * PAD
        canvas.text(x + PAD, middle, legend(target, one), 14, "white", fit=w - beside)
        canvas.text(x + w - PAD, middle, text, size, "white", "right")


def shown(panel, value):
    """The text of a value and its color's name."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in defaults.get("mappings", []):
        if option := mapping["options"].get(f"{value:g}"):
            return option["text"], option["color"]
    steps = defaults["thresholds"]["steps"]
    color = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
    return with_unit(value, defaults["unit"]), color


def timeseries(canvas, panel, series, inside):
    x, y, w, h = inside
    defaults = panel["fieldConfig"]["defaults"]
    names = [legend(target, one) for target, one in series]
    colors = list(colored(panel, names))
    bottom = y + h - key(canvas, names, colors, inside)
    rows = [points(one) for _, one in series]
    is_stacked = "stacking" in defaults["custom"]
    values = stacked(rows) if is_stacked else [value for line in rows for _, value in line]
    top, low = max(values, default=0), min(0, min(values, default=0))
    steps = STEPS[defaults["unit"]]
    step = next((step for step in steps if top / step <= 5), steps[-1])
    ticks = [n * step for n in range(int(top * 1.1 / step) + 1)]
    labels = [with_unit(tick, defaults["unit"]) for tick in ticks]
    margin = max(canvas.width(label, 12) for label in labels) + 10
    axes = canvas.axes(x + margin, y + 4, w - margin - 20, bottom - y - 28)
    axes.set_yticks(ticks, labels)
    axes.set_ylim(low, max(top * 1.1, step))
    axes.set_xlim(*canvas.span)
    axes.xaxis.set_major_locator(dates.HourLocator(byhour=range(0, 24, 3)))
    axes.xaxis.set_major_formatter(lambda at, _: dates.num2date(at).strftime("%H:%M"))
    for label in axes.get_xticklabels() + axes.get_yticklabels():
        label.set_fontproperties(font_manager.FontProperties(fname=FONT, size=12 * 72 / DPI))
    (bars if is_stacked else lines)(axes, rows, colors)


MATCHERS = {
    "byName": lambda wanted, name: wanted == name,
    "byRegexp": lambda pattern, name: re.search(pattern.strip("/"), name),
}


def colored(panel, names):
    """The color of each series: Grafana's next one, or the one that an override fixes."""
    palette = itertools.cycle(COLORS.values())
    for name in names:
        color = next(palette)
        for override in panel["fieldConfig"]["overrides"]:
            matcher = override["matcher"]
            if MATCHERS[matcher["id"]](matcher["options"], name):
                color = COLORS[override["properties"][0]["value"]["fixedColor"]]
        yield color


def lines(axes, rows, colors):
    for color, line in zip(colors, rows):
        drawn = []
        for at, value in line:
            if drawn and at - drawn[-1][0] > LONGEST_STEP:
                drawn.append((at, float("nan")))  # a gap
            drawn.append((at, value))
        if drawn:
            axes.plot(*zip(*drawn), color=color, linewidth=1.1, solid_joinstyle="round")


def bars(axes, rows, colors):
    base = {}
    for color, line in zip(colors, rows):
        line = [(at, value) for at, value in line if value > 0]
        for at, value in line:
            axes.vlines(at, base.get(at, 0), base.get(at, 0) + value, color=color, linewidth=1.6)
            base[at] = base.get(at, 0) + value


def stacked(rows):
    sums = {}
    for line in rows:
        for at, value in line:
            sums[at] = sums.get(at, 0) + value
    return sums.values()


def key(canvas, names, colors, inside):
    """Draws the legend at the bottom, as lines of names, and returns its height."""
    x, y, w, h = inside
    lines, left = [[]], 0
    for color, name in zip(colors, names):
        width = canvas.width(name, 12) + 36
        if left and left + width > w:
            lines.append([])
            left = 0
        lines[-1].append((left, color, name))
        left += width
    # Grafana scrolls what is more than a third of the panel.
    lines = lines[: int(0.42 * h / LINE)]
    for number, line in enumerate(lines):
        middle = y + h - (len(lines) - number - 0.5) * LINE + 4
        for left, color, name in line:
            canvas.box(x + left, middle - 2, 14, 4, color)
            canvas.text(x + left + 20, middle, name, 12, fit=w - left - 20)
    return len(lines) * LINE


def table(canvas, panel, series, inside):
    x, y, w, _ = inside
    excluded, renamed = set(), {}
    for change in panel.get("transformations", []):
        excluded |= {name for name, is_out in change["options"].get("excludeByName", {}).items() if is_out}
        renamed |= change["options"].get("renameByName", {})
    labels = sorted({name for _, one in series for name in one["metric"]})
    rows = [{"Time": clock(one["value"][0]), **one["metric"], "Value": one["value"][1]} for _, one in series]
    columns = [name for name in ["Time", *labels, "Value"] if name not in excluded]
    rows.insert(0, {name: renamed.get(name, name) for name in columns})
    longest = {name: max(canvas.width(row[name], 13) for row in rows) for name in columns}
    spare = (w - sum(longest.values())) / len(columns)
    for number, row in enumerate(rows):
        top, left, color = y + number * 32, x, TEXT if number else COLORS["light-blue"]
        for name in columns:
            width = longest[name] + spare
            canvas.text(left + 4, top + 14, row[name], 13, color, fit=width - 8)
            left += width
        canvas.line(x, top + 30, w)


def legend(target, one):
    return re.sub(r"{{(\w+)}}", lambda found: one["metric"].get(found[1], ""), target["legendFormat"])


def points(one):
    found = ((at, float(value)) for at, value in one["values"])
    return [(moment(at), value) for at, value in found if not math.isnan(value)]


def moment(at):
    return datetime.datetime.fromtimestamp(at, datetime.UTC)


def clock(at):
    return moment(at).strftime("%Y-%m-%d %H:%M:%S")


def with_unit(value, unit):
    for size, name in UNITS[unit]:
        if abs(value) >= size or (not value and size == 1):
            return f"{value / size:.3g}{name}"
    return f"{value:.3g}"
