"""What notebooks show: small, complete, escaped."""

from html.parser import HTMLParser

import torch

import pipeline
from pipeline.display import card, table


class Text(HTMLParser):
    """Collects the text, and checks that every tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def text_of(thing):
    html = thing._repr_html_()
    assert len(html) < 20_000
    assert "<script" not in html
    parser = Text()
    parser.feed(html)
    assert not parser.open
    return " ".join(parser.text)


def evil(x):
    return torch.sin(x).prod() / torch.where(x[0] == 0.5, 0.0, 1.0)


def test_everything_is_escaped_and_long_things_are_cut():
    html = card("<script>", {"<b>": "<i>" * 500})
    assert "<script>" not in html
    assert "<i>" not in html
    assert "…" in html
    assert table(("a&b",), [("c<d",)]).count("<td") == 1


def test_an_evaluation():
    points = torch.rand((20, 3), dtype=torch.float64)
    points[3] = 0.5
    text = text_of(pipeline.evaluate(evil, points, ["gradient", "hessian"]))
    for words in (
        "Derivatives",
        "19 ok, 1 nonfinite",
        "(20, 3, 3) torch.float64",
        "Certificate",
        "largest error",
    ):
        assert words in text


def test_an_evaluator_its_plan_and_certificate():
    evaluator = pipeline.prepare(evil, torch.rand((20, 3), dtype=torch.float64), "hessian")
    text = text_of(evaluator)
    for words in (
        "evaluator(points)['hessian'] (B, 3, 3)",
        "Plan",
        "vmap",
        "verdict",
        "compared",
    ):
        assert words in text
    assert "directions at once" in text_of(evaluator.plan)
    assert "finite differences" in text_of(evaluator.certificate)
    assert "directions at once" in str(evaluator.plan)
    assert "verdict" in str(evaluator.plan)
    assert str(evaluator.certificate).startswith("certificate\n  route  ")
    assert repr(evaluator).startswith("Evaluator by route vmap ")
    assert "evaluator(points)['hessian']  (B, 3, 3)" in repr(evaluator)


def test_results(tmp_path):
    points = torch.rand((20, 3), dtype=torch.float64)
    with pipeline.run(
        "rosenbrock", points, "hessian", output_dir=tmp_path, shard_rows=7
    ) as results:
        text = text_of(results)
        assert "hessian of rosenbrock at 20 points" in text
        assert "(20, 3, 3) float64" in text
        assert "missing" not in text
        assert "reference error hessian " in text
        found = pipeline.verify(results.path)
        assert "20 points in " in text_of(found)
        assert str(found).endswith("result.h5: verified")
        place = results.path.parent
    (place / "result.h5").unlink()
    (place / "shards" / "shard-00001.h5").unlink()
    with pipeline.open_results(place) as results:
        assert "7 to 13" in text_of(results)


def test_a_terminal_gets_shapes_and_no_walls_of_numbers():
    text = repr(pipeline.evaluate(evil, torch.rand(500, 3).double(), ["gradient", "hessian"]))
    assert "(500, 3, 3) torch.float64" in text
    assert "500 ok" in text
    assert len(text) < 500
