"""report.html: one file that holds all it shows, needs no network, and suits light, dark, narrow
and wide.
"""

import base64
from html import escape

NARROW = "(max-width: 640px)"


DARK = "(prefers-color-scheme: dark)"


STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1b1f24; --faint: #5b6470;
  --line: #d9dce0; --wash: #f4f6f8; --accent: #0060a0; }
@media (prefers-color-scheme: dark) { :root { --page: #14181d; --ink: #e6e8eb; --faint: #9aa3ad;
  --line: #343b43; --wash: #1c2229; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1.5rem 1.25rem 4rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p, dl, ul { max-width: 46rem; }
.answer { border-left: 4px solid var(--accent); padding: .1rem 0 .1rem 1rem; margin: 1rem 0; }
.answer p { font-size: 1.1rem; margin: 0 0 .4rem; }
.answer ul { margin: 0; padding-left: 1.1rem; }
.warning { border-left: 4px solid #d55e00; padding: .1rem 0 .1rem 1rem; }
.faint, figcaption { color: var(--faint); font-size: .9rem; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 6px;
  padding: .7rem .9rem; margin: .5rem 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .86rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: separate; border-spacing: 0; font-size: .9rem;
  font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .4rem .8rem; text-align: right; white-space: nowrap;
  border-top: 1px solid var(--line); }
thead th { white-space: normal; vertical-align: bottom; border-top: 0; font-weight: 600;
  background: var(--wash); min-width: 6.2rem; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--page);
  font-weight: 600; }
thead th:first-child { background: var(--wash); }
tr.first td, tr.first th { background: var(--wash); }
figure { margin: .5rem 0 0; }
picture img { display: block; width: 100%; height: auto;
  border: 1px solid var(--line); border-radius: 6px; }
figcaption { margin-top: .5rem; max-width: 46rem; }
dt { font-weight: 600; margin-top: .7rem; }
dd { margin: 0; }
details { border-top: 1px solid var(--line); padding: .5rem 0; }
details:last-of-type { border-bottom: 1px solid var(--line); }
summary { cursor: pointer; }
summary span { color: var(--faint); }
.sideways { display: none; }
@media (max-width: 70rem) { .sideways { display: block; } }
@media (max-width: 640px) { body { padding: 1rem .8rem 3rem; } table { font-size: .82rem; }
  th, td { padding: .35rem .45rem; } thead th { min-width: 4.6rem; } }
@page { size: landscape; margin: 12mm; }
@media print { html { font-size: 11px; }
  :root { color-scheme: light; --page: #ffffff; --ink: #1b1f24; --faint: #5b6470;
  --line: #d9dce0; --wash: #f4f6f8; --accent: #0060a0; }
  body { max-width: none; padding: 0; font-size: 1rem; } p, dl, ul, figcaption { max-width: none; }
  .scroll { overflow: visible; border: 0; } .sideways { display: none; }
  table { font-size: .85rem; } th, td { padding: .2rem .35rem; } thead th { min-width: 0; }
  th:first-child { position: static; } tr, summary, dt { break-inside: avoid; }
  h2, dt, summary { break-after: avoid; } figure { break-inside: avoid; }
  picture img { max-height: 118mm; width: auto; max-width: 100%; margin: 0 auto; }
  details::details-content { content-visibility: visible; block-size: auto; } }
"""


def document(title: str, body: list[str]) -> str:
    """A page of these parts, empty ones left out; it needs no network and runs no script."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def figure(variants: dict[tuple[str, str], bytes], alt: str, caption: str) -> str:
    """A picture as it fits the reader's page."""

    def uri(theme, shape):
        return "data:image/png;base64," + base64.b64encode(variants[theme, shape]).decode()

    both, alt, caption = (
        f"{NARROW} and {DARK}",
        *(escape(" ".join(x.split())) for x in (alt, caption)),
    )
    media = (both, "dark", "narrow"), (NARROW, "light", "narrow"), (DARK, "dark", "wide")
    sources = (f'<source media="{at}" srcset="{uri(*kind)}">' for at, *kind in media)
    picture = f'{"".join(sources)}<img src="{uri("light", "wide")}" alt="{alt}">'
    text = f"<figcaption>{caption}</figcaption>"
    return f"<figure><picture>{picture}</picture>{text}</figure>"


def pairs(found: list[tuple[str, str]]) -> str:
    """Terms and what they mean."""
    parts = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in found)
    return f"<dl>{''.join(parts)}</dl>"


def answer(sentences: list[str]) -> str:
    """The answer: the first sentence large, the others below it."""
    first, *rest = map(escape, sentences)
    items = "".join(f"<li>{sentence}</li>" for sentence in rest)
    return f'<div class="answer"><p>{first}</p>{f"<ul>{items}</ul>" if items else ""}</div>'


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table whose first column names the rows, and whose first row stands out."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    lines = []
    for name, *values in rows:
        mark = "" if lines else ' class="first"'
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        lines.append(f'<tr{mark}><th scope="row">{escape(name)}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + '\n</tbody></table></div>\n<p class="faint sideways">The table scrolls sideways.</p>'
    )


def made(command: str, versions: dict[str, str], files: str) -> str:
    """The command, the versions, and the files beside the page."""
    used = escape(", ".join(map(" ".join, versions.items())))
    return f'<p>Command:</p><pre>{escape(command)}</pre><p class="faint">{used}. {files}</p>'
