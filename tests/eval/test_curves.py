import pytest

from latentpress.errors import InputError
from latentpress.eval.bd import Delta
from latentpress.eval.curves import Point, as_curve, bd_table, mean_curves, mean_point, psnr_at, rising
from latentpress.eval.quality import qualities


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


def test_means_of_other_metrics_leave_out_what_an_item_has_no_number_for():
    rows = [row("a", 1, 30) | {"ms_ssim": 0.9, "lpips": 0.2}, row("b", 1, 30) | {"ms_ssim": 0.8, "lpips": None}]
    assert mean_point(rows, ["a", "b"], ["ms_ssim", "lpips", "absent"]).means == {"ms_ssim": pytest.approx(0.85)}


def test_a_lossless_point_has_no_place_on_a_curve():
    rows = [row("a", 1, 30), row("a", 2, 40, setting="t"), row("a", 9, None, setting="lossless")]
    assert as_curve("c", mean_curves(rows, ["a"])["c"]).quality == [30, 40]


def test_curves_of_other_metrics_rise_whatever_their_direction():
    ms_ssim, in_db, lpips = qualities(["ms_ssim", "lpips"])
    points = [
        Point(setting="1", bpp=0.1, psnr=30, bytes_by_image=[1], psnr_by_image=[30], means={"ms_ssim": 0.9, "lpips": 0.4}),
        Point(setting="2", bpp=0.2, psnr=33, bytes_by_image=[1], psnr_by_image=[33], means={"ms_ssim": 0.99, "lpips": 0.1}),
    ]
    assert as_curve("c", points, in_db).quality == [pytest.approx(10), pytest.approx(20)] == as_curve("c", points, ms_ssim).quality
    assert as_curve("c", points, lpips).quality == [-0.4, -0.1]
    assert in_db.shown(0.99) == pytest.approx(20) and ms_ssim.shown(0.99) == 0.99 and lpips.from_rising(-0.4) == 0.4
    assert ms_ssim.from_rising(20) == pytest.approx(0.99) and in_db.from_rising(20) == 20


def test_half_the_rate_at_equal_similarity_is_minus_fifty_percent_for_every_metric_and_method():
    def curve(factor: float) -> list[Point]:
        return [
            Point(setting=f"{b}", bpp=factor * b, psnr=q, bytes_by_image=[1], psnr_by_image=[q], means={"ms_ssim": s, "lpips": d})
            for b, q, s, d in [(0.1, 28, 0.9, 0.5), (0.2, 31, 0.95, 0.3), (0.4, 34, 0.98, 0.2), (0.8, 37, 0.99, 0.1)]
        ]

    for quality in qualities(["psnr", "ms_ssim", "lpips"]):
        for method in ("pchip", "akima"):
            delta = bd_table({"a": curve(1), "half": curve(0.5)}, ["a"], quality, method)["half"]["a"]
            assert isinstance(delta, Delta) and delta.value == pytest.approx(-50), (quality, method)
