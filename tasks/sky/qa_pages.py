"""Pages to leaf through a run: one for each batch with a picture of each object, and an index. No external assets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from string import Template

from storage.manifest import Run
from tasks.sky.extraction_plan import BatchJob, ObjectRow
from tasks.sky.profile import STATES, ObjectFlag, Profile

PAGES = "pages"
INDEX = "index.html"
_LINKED = 2000
"""Objects that were not measured, listed on the index at most."""

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;color:#23291f;background:#fbfaf6;margin:0 auto;max-width:1180px;padding:1em}
nav{display:flex;gap:1.2em;flex-wrap:wrap;margin:.4em 0}h1{font-size:1.25em;margin:.3em 0}a{color:#0b5d3b}
.filter{position:sticky;top:0;background:#fbfaf6;padding:.5em 0;border-bottom:1px solid #dfe2da;z-index:1}
.filter button{font:inherit;border:1px solid #b9beb2;background:#fff;border-radius:4px;padding:.15em .6em;margin:.1em}
.filter button.on{background:#0b5d3b;color:#fff;border-color:#0b5d3b}
article{border-bottom:1px solid #dfe2da;padding:.7em 0}article h2{font-size:1em;margin:0}article p{margin:.15em 0}
img{max-width:100%;height:auto;background:#fff}.gallery{display:block;margin:.6em 0}table{border-collapse:collapse;margin:.5em 0}
td,th{padding:.15em .8em .15em 0;text-align:right;vertical-align:top}td:first-child,th:first-child{text-align:left}
td.words{text-align:left}.flag{background:#eceee8;border-radius:3px;padding:0 .35em;margin-right:.3em}
.failed .state,.rejected .state{color:#b3261e}.outside .state{color:#8a5a12}small{color:#6b7266}
"""
_SCRIPT = """
const chosen=new Set();
for(const button of document.querySelectorAll('.filter button'))button.onclick=()=>{
button.classList.toggle('on');const name=button.dataset.name;chosen.has(name)?chosen.delete(name):chosen.add(name);let shown=0;
for(const one of document.querySelectorAll('article')){const has=new Set(one.dataset.is.split(' '));
one.hidden=[...chosen].some(name=>!has.has(name));shown+=!one.hidden}
document.getElementById('shown').textContent=shown};
"""
_PAGE = Template(
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>$title</title>\n'
    '<meta name="viewport" content="width=device-width"><style>$style</style></head>\n<body>\n$body\n</body></html>\n'
)
_COLUMNS = (
    ("R24", "r24_arcsec"),
    ("R25", "r25_arcsec"),
    ("R26", "r26_arcsec"),
    ("half-light", "half_light_radius_arcsec"),
    ("mag", "magnitude"),
    ("total", "total_magnitude"),
    ("sky", "sky"),
)


def flag_names(flags: int) -> list[str]:
    """Return the names of an object's flags.

    Examples
    --------
    >>> flag_names(1 | 16)
    ['instrumental', 'restarted']
    """
    return [str(flag.name).lower().replace("_", "-") for flag in ObjectFlag if flags & flag]


def write_batch_page(job: BatchJob, objects: Sequence[tuple[ObjectRow, Sequence[Profile]]]) -> None:
    """Write the page of a batch, beside the pictures that its objects have in ``pages/<batch>/<number>.png``."""
    names = [f"batch {job.index + 1} of {job.batches}", job.run.id]
    links = {
        "index": INDEX,
        "previous": f"{job.index - 1:05d}.html" if job.index else None,
        "next": f"{job.index + 1:05d}.html" if job.index + 1 < job.batches else None,
    }
    counts = Counter(name for row, _ in objects for name in _is(row))
    filters = "".join(
        f'<button data-name="{name}">{name} {counts[name]}</button>' for name in _filter_names() if counts[name]
    )
    measured = any(row.state == "measured" for row, _ in objects)
    picture = f'<img class="gallery" src="{job.name}.gallery.png" alt="gallery of the batch">' if measured else ""
    articles = "\n".join(
        _article(row, profiles, f"{job.name}/{number:04d}.png") for number, (row, profiles) in enumerate(objects)
    )
    body = (
        f"{_navigation(links)}<h1>{escape(names[0])}</h1><small>{escape(names[1])}</small>\n{picture}\n"
        f'<div class="filter">{filters} <small><span id="shown">{len(objects)}</span> shown</small></div>\n'
        f"{articles}\n{_navigation(links)}<script>{_SCRIPT}</script>"
    )
    _write(job.run, f"{job.name}.html", ", ".join(names), body)


def write_index_page(run: Run, rows: Sequence[ObjectRow], *, title: str, notes: Sequence[str] = ()) -> None:
    """Write the index of a run: counts, batches, and what was not measured."""
    states = Counter(row.state for row in rows)
    reasons = Counter((row.state, row.reason) for row in rows if row.state != "measured")
    flags = Counter(name for row in rows for name in flag_names(row.flags))
    batches: dict[int, Counter[str]] = {}
    for row in rows:
        batches.setdefault(row.batch, Counter())[row.state] += 1
    lost = [row for row in rows if row.state != "measured"]
    body = f"<h1>{escape(title)}</h1><small>{escape(run.id)}</small>\n"
    body += "".join(f"<p>{escape(note)}</p>" for note in notes)
    body += _table(("state", "objects"), [(state, f"{states[state]:,}") for state in STATES if states[state]])
    if reasons:
        listed = [(f"{state}: {reason}", f"{count:,}") for (state, reason), count in reasons.most_common()]
        body += _table(("not measured", "objects"), listed)
    if flags:
        body += _table(("flag", "objects"), [(name, f"{count:,}") for name, count in flags.most_common()])
    shown = [
        (f'<a href="{index:05d}.html">{index + 1}</a>', *(f"{counts[state]:,}" for state in STATES))
        for index, counts in sorted(batches.items())
    ]
    body += _table(("batch", *STATES), shown)
    if lost:
        more = f", the first {_LINKED:,}" if len(lost) > _LINKED else ""
        body += f"<h1>Not measured: {len(lost):,}{more}</h1>" + "".join(_lost(row) for row in lost[:_LINKED])
    _write(run, INDEX, title, body)


def _filter_names() -> list[str]:
    return [*STATES, *(str(flag.name).lower().replace("_", "-") for flag in ObjectFlag)]


def _is(row: ObjectRow) -> list[str]:
    return [row.state, *flag_names(row.flags)]


def _article(row: ObjectRow, profiles: Sequence[Profile], picture: str) -> str:
    flags = "".join(f'<span class="flag">{name}</span>' for name in flag_names(row.flags))
    words = f"<p>{escape(row.reason)}: {escape(row.message)}</p>" if row.reason else ""
    place = "" if math.isnan(row.ra) else f"<small>{row.ra:.5f} {row.dec:+.5f}</small>"
    shown = ""
    if row.state == "measured":
        shown = f'<img loading="lazy" width="1008" height="200" src="{picture}" alt="no picture of {escape(row.object_id)}">'
        shown += _table(("band", *(name for name, _ in _COLUMNS)), [_numbers(profile) for profile in profiles])
    return (
        f'<article class="{row.state}" data-is="{" ".join(_is(row))}" id="{escape(_anchor(row))}">'
        f'<h2>{escape(row.object_id)} <span class="state">{row.state}</span> {place}</h2><div>{flags}</div>{words}{shown}</article>'
    )


def _lost(row: ObjectRow) -> str:
    return (
        f'<p class="{row.state}"><a href="{row.batch:05d}.html#{escape(_anchor(row))}">{escape(row.object_id)}</a> '
        f'<span class="state">{row.state}</span> {escape(row.reason)}: {escape(row.message)}</p>'
    )


def _anchor(row: ObjectRow) -> str:
    return "object-" + "".join(letter if letter.isalnum() else "-" for letter in row.object_id)


def _numbers(profile: Profile) -> tuple[str, ...]:
    if profile.state != "measured":
        return (escape(f"{profile.band}: {profile.state}"), *([""] * len(_COLUMNS)))
    values = (getattr(profile, name) for _, name in _COLUMNS)
    return (escape(profile.band), *("" if math.isnan(value) else f"{value:.4g}" for value in values))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{lines}</table>"


def _navigation(links: Mapping[str, str | None]) -> str:
    return "<nav>" + "".join(f'<a href="{href}">{name}</a>' for name, href in links.items() if href) + "</nav>"


def _write(run: Run, name: str, title: str, body: str) -> None:
    text = _PAGE.substitute(title=escape(title), style=_STYLE, body=body)
    run.location.write_bytes(f"{PAGES}/{name}", text.encode())
