"""The grammar of codecs and operating points."""

from types import SimpleNamespace

import pytest

import latentpress
from latentpress.errors import InputError, LatentpressError
from latentpress.eval.bench.plan import find_points
from latentpress.eval.bench.spec import own_points, parse_spec, peer_points
from latentpress.eval.domains import domain
from latentpress.eval.peers import FAMILIES, family

KEYS = ("q", "effort")


def names(points):
    return [(p.name, p.setting) for p in points]


@pytest.fixture
def steps(monkeypatch):
    """`load_codec` replaced by codecs whose name says how many levels they have."""
    monkeypatch.setitem(latentpress.__dict__, "load_codec", lambda name: SimpleNamespace(digest=b"\1", max_level=int(name.split("-")[-1]) - 1))


@pytest.mark.parametrize(
    "text, name, label, options",
    [
        ("webp", "webp", "", {}),
        ("webp@q=50", "webp", "", {"q": (50,)}),
        ("webp@q=10:90:40", "webp", "", {"q": (10, 50, 90)}),
        ("a@q=0:1:0.1", "a", "", {"q": tuple(i / 10 for i in range(11))}),
        ("walloc-rgb@effort=9,q=14:100:43", "walloc-rgb", "", {"effort": (9,), "q": (14, 57, 100)}),
        ("walloc-rgb@q=14:100:50", "walloc-rgb", "", {"q": (14, 64)}),
        ("a@q=5,20,60:80:10,effort=2,9", "a", "", {"q": (5, 20, 60, 70, 80), "effort": (2, 9)}),
        ("a@quality=7", "a", "", {"q": (7,)}),
        ("./my-preset@q=50", "./my-preset", "", {"q": (50,)}),
        ("hyper=./runs/low", "./runs/low", "hyper", {}),
        ("hyper=../a@b/c@q=1", "../a@b/c", "hyper", {"q": (1,)}),
        ("compressai/mbt2018-mean@q=1:3:1", "compressai/mbt2018-mean", "", {"q": (1, 2, 3)}),
    ],
)
def test_what_is_asked_for_is_what_is_understood(text, name, label, options):
    spec = parse_spec(text, KEYS)
    assert (spec.name, spec.label, dict(spec.options)) == (name, label, options)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "NAME"),
        ("a@", "KEY=VALUES"),
        ("a@50", "KEY=VALUES"),
        ("a@q=", "neither a number"),
        ("a@q=high", "'high'"),
        ("a@q=1:2", "low:high:step"),
        ("a@q=nan", "neither"),
        ("a@q=1:9:0", "step above 0"),
        ("a@q=9:1:1", "low at most high"),
        ("a@q=0:100:0.001", "1000 values"),
        ("a@q=1,q=2", "given twice"),
        ("a@efort=2", "did you mean 'effort'"),
        ("a@qualty=2", "did you mean 'quality'"),
    ],
)
def test_what_is_not_understood_is_named(text, words):
    with pytest.raises(InputError) as caught:
        parse_spec(text, KEYS)
    assert words in str(caught.value) and repr(text) in str(caught.value)


def test_peers_are_asked_at_their_own_points_or_at_those_given():
    assert peer_points("webp", FAMILIES) == [family("webp").at(q) for q in family("webp").points]
    assert [p.setting for p in peer_points("webp@q=10:90:80", FAMILIES)] == ["quality=10,method=6", "quality=90,method=6"]
    assert len(peer_points("webp@q=10,10", FAMILIES)) == 1


@pytest.mark.parametrize("text, words", [("wepb", "did you mean 'webp'"), ("webp@q=101", "0 to 100"), ("webp@q=1.5", "whole number"),
                                         ("webp@effort=2", "'effort'"), ("x=webp", "keeps its name")])  # fmt: skip
def test_peers_that_do_not_exist_are_refused(text, words):
    with pytest.raises(InputError, match=words):
        peer_points(text, FAMILIES)


def test_our_codecs_have_efforts_and_qualities(steps):
    assert names(own_points("fine-897@effort=9,2,q=14,100")) == [
        ("fine-897, effort 9", "quality=14"), ("fine-897, effort 9", "quality=100"),
        ("fine-897, effort 2", "quality=14"), ("fine-897, effort 2", "quality=100"),
    ]  # fmt: skip
    assert len({p.setting for p in own_points("fine-897")}) >= 6
    for text, words in [("fine-897@q=101", "q=101: expected 0 to 100"), ("fine-897@effort=10", "0 to 9"), ("fine-897@effort=1.5", "whole")]:
        with pytest.raises(InputError, match=words):
            own_points(text)


def test_a_codec_of_one_rate_is_one_point_and_a_ladder_one_a_step(steps):
    assert names(own_points("fixed-1")) == [("fixed-1", "fixed")]
    assert names(own_points("ladder-3")) == [("ladder-3", "quality=0"), ("ladder-3", "quality=50"), ("ladder-3", "quality=100")]
    for text in ("fixed-1@q=50", "fixed-1@effort=2", "ladder-3@effort=2"):
        with pytest.raises(InputError, match="leave"):
            own_points(text)


def test_presets_under_one_label_are_one_curve(steps):
    points = find_points(["hyper=low-1", "hyper=high-1"], [], domain("image"))
    assert names(p.peer for p in points) == [("hyper", "preset=low-1"), ("hyper", "preset=high-1")]


def test_models_of_the_zoo_are_one_curve_and_each_has_its_own_weights():
    points = own_points("compressai/mbt2018-mean@q=1:3:1")
    assert names(points) == [("compressai/mbt2018-mean", f"quality={q}") for q in (1, 2, 3)]
    assert [p.codec for p in points] == [f"compressai/mbt2018-mean@q={q}" for q in (1, 2, 3)]


def test_unknown_codecs_get_the_nearest_name():
    with pytest.raises(LatentpressError, match="'walloc-rgb'"):
        own_points("waloc-rgb")


def test_the_same_point_twice_is_refused_with_both_requests(steps):
    with pytest.raises(InputError, match=r"'webp@q=50' and 'webp@q=50,60' both give webp at quality=50"):
        find_points([], ["webp@q=50", "webp@q=50,60"], domain("image"))
    with pytest.raises(InputError, match=r"nothing to measure.*--codecs.*--peers"):
        find_points([], [], domain("image"))
    assert [p.own for p in find_points(["fixed-1"], ["jpeg@q=5"], domain("image"))] == [False, True]
