"""The report shows every figure, draws from itself alone, and survives what a poor run leaves it."""

import re
from html.parser import HTMLParser

import pytest
from demo_sample import details, summary

from simservice.demo.report import render

VOID = {"meta"}


class Checker(HTMLParser):
    """Fails on a tag that is not closed in order; collects the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], "", []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parse(page):
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    return checker


def test_the_page_shows_the_figures_and_is_well_formed():
    page = parse(render(summary(), details()))
    for shown in ("498.2", "2,500", "of 3,000", "41.3", "61", "17 steps", "2,812", "gravity 12", "102, 217, 144"):
        assert shown in page.text, shown
    assert sum(tag == "figure" for tag, _ in page.tags) == 4 + 3


def test_the_page_needs_no_network():
    page = render(summary(), details())
    assert not re.search(r"https?://|@import|url\(", page)
    assert not any({"src", "href"} & set(attributes) for _, attributes in parse(page).tags)


def test_names_are_escaped():
    page = render(summary(world="<script>alert(1)</script>@0", env_id="A&B"), details())
    assert "<script>" not in page
    assert "A&amp;B" in page


@pytest.mark.parametrize("lost", ["error", "upper", "lower"])
def test_a_run_that_learned_nothing_still_has_a_report(lost):
    found = details()
    for curve in found["curves"]:
        curve[lost] = [None] * len(curve["lead"])
    found["learning"] = [{"steps": [], "return": []}]
    found["baseline"] = {"real_steps": [], "return": []}
    page = parse(render(summary(solved=False, trust_horizon_steps=0), found))
    assert "nan" not in page.text.lower()
