import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from voxuda.experiments import plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plots.plt.close("all")


def ball(radius=5.0, size=16):
    k = torch.arange(size) - size / 2
    return (k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2).sqrt() < radius


def test_slices_draw_the_central_slice_and_the_outline():
    volume = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    figure = plots.slices([volume, volume[0]], ["a", "b"], [ball(), None])
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), volume[0, 0, 8])
    assert len(figure.axes[0].collections) == 1 and len(figure.axes[1].collections) == 0


def test_panels_have_the_width_and_the_text_that_are_asked_for():
    figure = plots.slices([torch.randn(1, 4, 16, 16)] * 3, ["a", "b", "c"], columns=2, width=5.0, text=12)
    assert figure.get_size_inches()[0] == 5.0 and figure.axes[2].title.get_size() == 12
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c", ""]


def test_a_scale_bar_has_its_length_and_its_label():
    figure = plots.panels([np.eye(16)], ["a"])
    plots.scale_bar(figure.axes[0], 4.0, "40 Å")
    (bar,) = figure.axes[0].artists
    assert bar.txt_label.get_text() == "40 Å"
    assert bar.size_bar.get_children()[0].get_width() == 4.0


def test_a_slider_shows_the_images_of_its_steps():
    grey, red = np.arange(12.0).reshape(3, 4), np.zeros((2, 2, 3))
    red[0] = [1, 0, 0]  # the bottom row
    steps = {"one": [grey, red], "two": [-grey, red]}
    shown = plots.slider(steps, ["a", "b"], alt="two pictures", prefix="step ", start=1, bars=[(2.0, "20 Å"), None])
    (slider,) = shown.figure.layout.sliders
    assert [step.label for step in slider.steps] == ["one", "two"] and slider.active == 1
    assert slider.currentvalue.prefix == "step "
    (one, colours), places = slider.steps[0].args[0]["source"], slider.steps[0].args[1]
    assert list(places) == [0, 1]
    assert [trace.source for trace in shown.figure.data] == list(slider.steps[1].args[0]["source"])

    def picture(source):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))

    assert picture(one).shape == (3, 4) and picture(one)[0, -1] == 255 and picture(one)[-1, 0] == 0
    np.testing.assert_array_equal(picture(colours)[-1], [[255, 0, 0]] * 2)
    line = shown.figure.layout.shapes[0]
    assert line.x1 - line.x0 == 2.0 and "20 Å" in [a.text for a in shown.figure.layout.annotations]


def test_isosurface_lies_on_the_ball(monkeypatch):
    monkeypatch.delenv("VOXUDA_BOOK", raising=False)
    shown = plots.isosurface({"ball": ball().float(), "nothing": torch.zeros(16, 16, 16)}, alt="a ball")
    assert len(shown.figure.data) == 1, "a volume without a surface is left out"
    mesh = shown.figure.data[0]
    radius = np.sqrt((mesh.x - 8) ** 2 + (mesh.y - 8) ** 2 + (mesh.z - 8) ** 2)
    assert radius.min() > 4.0 and radius.max() < 5.5


def test_turnable_figures_for_the_book_and_for_a_live_kernel(monkeypatch):
    shown = plots.isosurface({"ball": ball().float()}, alt='a "ball"')
    monkeypatch.setenv("VOXUDA_BOOK", "1")
    bundle = shown._repr_mimebundle_()
    assert 'aria-label="a &quot;ball&quot;"' in bundle["text/html"] and "http" not in bundle["text/html"].replace(
        "http://www.w3", ""
    )
    assert bundle["application/vnd.plotly.v1+json"]["data"][0]["name"] == "ball"
    assert bundle["text/plain"] == 'a "ball"'
    monkeypatch.delenv("VOXUDA_BOOK")
    assert shown._repr_mimebundle_()["text/plain"] == 'a "ball"'


def test_curves_have_labels_and_distinct_dashes():
    figure = plots.curves({"a": [1, 2], "b": [2, 1]}, "x", "y")
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["a", "b"]
    assert axis.lines[0].get_linestyle() != axis.lines[1].get_linestyle()


def test_seed_dots_show_every_seed_and_the_mean():
    figure = plots.seed_dots({"a": {"x": [1.0, 3.0], "y": [0.0, 0.0]}, "b": {"x": [5.0], "y": [4.0]}}, "IoU")
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["a", "b"]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [[1.0, 3.0], [5.0]]
    assert 2.0 in {line.get_xdata()[0] for line in axis.lines if line.get_marker() in ("None", "")}
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["x", "y"]


def test_interval_dots_show_both_ends_and_the_other_value():
    figure = plots.interval_dots({"a": (2.0, 1.0, 4.0), "b": (5.0, 5.0, 5.0)}, "IoU", beside={"b": 3.0}, beside_label="paper")
    axis = figure.axes[0]
    assert [part.tolist() for part in axis.collections[0].get_segments()] == [[[1, 0], [4, 0]], [[5, 1], [5, 1]]]
    ours, paper = axis.lines
    np.testing.assert_array_equal(ours.get_xydata(), [[2, 0], [5, 1]])
    np.testing.assert_array_equal(paper.get_xydata(), [[np.nan, 0], [3, 1]])
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["ours, 95 %", "paper"]
