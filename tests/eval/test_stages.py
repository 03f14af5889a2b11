"""The time of the entropy coder, measured from outside."""

import time

import numpy as np
import pytest

from latentpress.entropy import coder
from latentpress.eval.domains import domain
from latentpress.eval.images import fingerprint
from latentpress.eval.measure import How, Item, Task, measure
from latentpress.eval.own import OwnCodec
from latentpress.eval.stages import coder_time
from tests.eval.fakes import Shift
from tests.helpers import natural


def test_only_the_coders_own_time_is_counted_and_the_classes_are_left_as_they_were(monkeypatch):
    monkeypatch.setattr(coder.Encoder, "push", lambda self, *_: time.sleep(0.02))
    before = dict(vars(coder.Encoder))
    with coder_time() as spent:
        encoder = coder.Encoder()
        encoder.push(None, None, None)
        encoder.push(None, None, None)
        time.sleep(0.05)
    assert spent.calls == 3 and 0.04 <= spent.seconds < 0.05 + 0.04
    assert dict(vars(coder.Encoder)) == before


def test_nested_calls_are_counted_once_and_errors_pass(monkeypatch):
    def finish(self):
        time.sleep(0.02)
        self.push(None, None, None)
        raise KeyError("end")

    monkeypatch.setattr(coder.Encoder, "push", lambda self, *_: time.sleep(0.02))
    monkeypatch.setattr(coder.Encoder, "finish", finish)
    with pytest.raises(KeyError), coder_time() as spent:
        coder.Encoder().finish()
    assert spent.calls == 2 and spent.seconds >= 0.04
    with coder_time() as after:
        pass
    assert after.calls == 0


def test_rows_of_our_codecs_say_what_the_coder_takes_and_those_of_peers_do_not(tmp_path):
    from PIL import Image

    path = tmp_path / "a.png"
    Image.fromarray(natural(64, 64)).save(path)
    item = Item(name="a", digest=fingerprint(path), path=path)
    rows = {}
    for peer in (OwnCodec(codec="walloc-rgb", quality=50), Shift(bits=4)):
        rows[peer.name] = measure(Task(peer=peer, digest=peer.digest, item=item), How(domain=domain("image"), metrics=("psnr",))).row
    ours = rows["walloc-rgb, effort 2"]
    assert ours["status"] == "ok" and ours["shape"] == [64, 64, 3], ours["error"]
    assert 0 < ours["encode_entropy_s"] < ours["encode_s"] and 0 < ours["decode_entropy_s"] < ours["decode_s"]
    assert not [k for k in rows["shift"] if "entropy" in k]


def test_a_preset_folder_gives_the_bytes_and_samples_of_the_api(tmp_path):
    import latentpress
    from latentpress.codecs.registry import preset_directories

    folder = tmp_path / "mine"
    folder.symlink_to(preset_directories()["walloc-rgb"])
    peer, image = OwnCodec(codec=str(folder), quality=40, effort=0), natural(64, 64)
    blob = peer.encode(image)
    assert blob == latentpress.encode(image, codec=folder, quality=40, effort=0)
    named = latentpress.decode(latentpress.encode(image, codec="walloc-rgb", quality=40, effort=0)).data
    assert np.array_equal(peer.decode(blob), named) and peer.digest == OwnCodec(codec="walloc-rgb", quality=40).digest
