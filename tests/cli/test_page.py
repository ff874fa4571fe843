"""The page: whole, well formed, and in need of nothing from outside."""

import base64
import re
import subprocess
from html.parser import HTMLParser

import matplotlib.image
import pytest

VOID = {"meta", "img", "source", "br", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and collects links, ids, text and tables."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.tags, self.words, self.attributes = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        self.links += [
            value
            for name, value in attrs
            if name in ("src", "srcset", "href", "data", "action", "poster")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def source(run):
    return (run.folder / "report.html").read_text()


def test_nothing_is_fetched_from_outside(source):
    page = Page(source)
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    style = source[source.index("<style>") : source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in source
    for link in page.links:
        assert base64.b64decode(link.partition(",")[2], validate=True).startswith(b"\x89PNG")


def test_it_says_what_was_done_and_how_to_read_it(run, source):
    page = Page(source)
    for part in (
        "sgd",
        "adam",
        "How to read this",
        "rates that work",
        "Target: validation accuracy",
        "jax 0.",
        "gradxform compare --data wine",
        "95 of 100 such experiments",
        "A safe choice",
        "from gradxform import",
    ):
        assert part in page.text
    assert page.tags.count("table") == 1
    assert page.tags.count("figure") == 3
    assert all(attributes.get("alt") for tag, attributes in page.attributes if tag == "img")
    assert ("html", {"lang": "en"}) in page.attributes


def test_it_suits_dark_and_narrow_screens(source):
    media = [attributes["media"] for tag, attributes in Page(source).attributes if tag == "source"]
    assert any("dark" in query for query in media)
    assert any("max-width" in query for query in media)
    assert "prefers-color-scheme: dark" in source
    assert 'name="viewport"' in source


def test_the_code_it_gives_builds_the_safe_choice(run, source):
    code = (
        re.search(r"<pre>(from gradxform.*?)</pre>", source, re.S).group(1).replace("&#x27;", "'")
    )
    scope = {}
    exec(code, scope)
    assert scope["tx"].name in ("sgd", "adam")


def test_what_users_write_is_escaped(run, tmp_path, source):
    assert Page(source.replace("wine", "&lt;b&gt;")).text  # the parser itself takes escapes
    from gradxform.cli import page as html

    assert html.pairs([("<b>", "a & b")]) == "<dl><dt>&lt;b&gt;</dt><dd>a &amp; b</dd></dl>"


@pytest.mark.chromium
@pytest.mark.parametrize("width", [400, 1280])
def test_chromium_shows_the_page(run, tmp_path, width):
    picture = tmp_path / "page.png"
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path}/profile",
        f"--window-size={width},1600",
        f"--screenshot={picture}",
        (run.folder / "report.html").as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    shown = matplotlib.image.imread(picture)[..., :3]
    assert shown.shape[1] == width
    assert shown.std() > 0.05
    assert shown[800:].std() > 0.01
