import pytest

from latentpress.errors import InputError
from latentpress.eval.bd import Delta
from latentpress.eval.curves import Point, as_curve, bd_table, mean_curves, mean_point, psnr_at, rising


def row(item: str, bpp: float, psnr: float, codec: str = "c", setting: str = "s") -> dict:
    return {"codec": codec, "setting": setting, "item": item, "bytes": round(1000 * bpp), "bpp": bpp, "psnr": psnr}


def point(bpp: float, psnr: float) -> Point:
    return Point(setting=f"{bpp}", bpp=bpp, psnr=psnr, bytes_by_image=[1], psnr_by_image=[psnr])


def test_a_point_is_the_mean_over_images_in_image_order():
    mean = mean_point([row("b", 0.5, 30), row("a", 0.25, 36)], ["a", "b"])
    assert (mean.bpp, mean.psnr) == (0.375, 33)
    assert mean.bytes_by_image == [250, 500] and mean.psnr_by_image == [36, 30]


@pytest.mark.parametrize(
    "rows",
    [
        [row("a", 1, 30)],
        [row("a", 1, 30), row("a", 1, 30)],
        [row("a", 1, 30), row("b", 1, 30), row("b", 1, 31)],
        [row("a", 1, 30), row("c", 1, 30)],
    ],
)
def test_a_mean_over_other_images_is_refused(rows):
    with pytest.raises(InputError, match="each of 2 expected"):
        mean_point(rows, ["a", "b"])


def test_rows_group_by_codec_and_setting_and_sort_by_rate():
    rows = [row("a", 2, 40, "x", "high"), row("a", 1, 30, "x", "low"), row("a", 3, 20, "y", "low")]
    curves = mean_curves(rows, ["a"])
    assert {c: [p.setting for p in points] for c, points in curves.items()} == {"x": ["low", "high"], "y": ["low"]}


def test_points_that_cost_more_and_give_nothing_leave_the_curve():
    points = [point(0.1, 30), point(0.2, 29), point(0.3, 33), point(0.3, 34), point(0.4, 35)]
    assert [p.bpp for p in rising(points)] == [0.1, 0.3, 0.4]
    assert as_curve("c", points).quality == [30, 33, 35]


def test_bd_table_has_a_figure_or_a_reason_for_each_pair():
    curves = {"a": [point(0.1, 30), point(0.2, 33)], "half": [point(0.05, 30), point(0.1, 33)], "far": [point(1, 50), point(2, 60)]}
    table = bd_table(curves, ["a", "absent"])
    assert set(table["half"]) == {"a"} and table["a"] == {}
    assert isinstance(table["half"]["a"], Delta) and table["half"]["a"].value == pytest.approx(-50)
    assert "no overlap" in table["far"]["a"]


def test_psnr_at_a_rate_is_linear_in_log_rate_and_silent_outside():
    points = [point(0.1, 30), point(0.4, 34)]
    assert psnr_at(points, 0.2) == pytest.approx(32)
    assert psnr_at(points, 0.4) == pytest.approx(34)
    assert psnr_at(points, 0.09) is None and psnr_at(points, 0.41) is None
