"""Scorers: what the classical ones see, what calibration makes of figures, and a CLIP of this test's own."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from reverie_dreams.calibrate import main as calibrate
from reverie_dreams.scoring.aesthetic import aesthetic_quality
from reverie_dreams.scoring.calibration import Calibration, calibrated, recorded
from reverie_dreams.scoring.duplicates import alike, perceptual_hash
from reverie_dreams.scoring.panel import judge, open_benches, require_scorers
from reverie_dreams.scoring.technical import technical_quality
from reverie_dreams.settings import DreamsSettings, read_scorers


def disc(*, at=(32, 32), radius=18, ground=(40, 80, 200), ink=(220, 40, 40)):
    picture = Image.new("RGB", (64, 64), ground)
    x, y = at
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
    return picture


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def quality(picture):
    return technical_quality(np.asarray(picture, float) / 255)


def noisy(picture, strength):
    rng = np.random.default_rng(1)
    pixels = np.asarray(picture, float) + rng.normal(0, strength, (64, 64, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def test_the_technical_scorer_prefers_sharp_clean_and_well_exposed_pictures():
    good = quality(disc())
    assert good > quality(disc().filter(ImageFilter.GaussianBlur(4)))
    assert good > quality(noisy(disc(), 40))
    assert good > quality(disc(ground=(0, 0, 0), ink=(8, 8, 8)))
    assert quality(Image.new("RGB", (64, 64), (120, 120, 120))) < 0.2


def test_the_aesthetic_scorer_prefers_colour_and_contrast_to_mud():
    def taste(picture):
        return aesthetic_quality(np.asarray(picture, float) / 255)

    assert taste(disc()) > taste(disc(ground=(120, 118, 119), ink=(130, 128, 129)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=20, max_size=300), st.floats(-2, 2), st.floats(-2, 2))
def test_a_calibrated_score_is_a_part_of_the_reference_set_and_keeps_the_order(figures, one, other):
    calibration = calibrated("x", figures, reference="these")
    low, high = sorted((calibration.score(one), calibration.score(other)))
    assert 0 <= low <= high <= 1
    assert (calibration.score(min(one, other)), calibration.score(max(one, other))) == (low, high)


def test_half_of_the_reference_set_scores_above_a_half():
    calibration = calibrated("x", np.linspace(3, 9, 200), reference="these")
    assert calibration.score(6.0) == pytest.approx(0.5, abs=0.01)
    assert calibration.score(float("nan")) == 0.0
    with pytest.raises(ValueError, match="20"):
        calibrated("x", [1.0] * 19, reference="few")


def test_recordings_of_ones_own_go_before_ours_and_broken_ones_are_refused(tmp_path):
    assert recorded("builtin").count == 960
    assert recorded("nobody") is None
    (tmp_path / "builtin.json").write_text(json.dumps({"scorer": "builtin", "quantiles": [0, 1]}))
    assert recorded("builtin", [tmp_path]) == Calibration("builtin", (0.0, 1.0))
    for broken in ("{", '{"scorer": "builtin", "quantiles": [1, 0]}'):
        (tmp_path / "builtin.json").write_text(broken)
        with pytest.raises(ValueError, match=r"dreams\.calibration"):
            recorded("builtin", [tmp_path])


def test_near_duplicates_are_alike_and_other_pictures_are_not():
    hash_ = perceptual_hash(disc())
    assert alike(hash_, perceptual_hash(noisy(disc(), 3)))
    assert alike(hash_, perceptual_hash(disc().resize((256, 256))))
    assert not alike(hash_, perceptual_hash(disc(at=(14, 14))))
    assert not alike(hash_, perceptual_hash(disc(ground=(40, 200, 80))))


def test_pictures_are_judged_in_batches_and_what_is_none_is_left_out():
    benches = open_benches({"technical": "", "aesthetic": ""})
    one, none, other = judge(benches, [png(disc()), b"no picture", png(disc(at=(10, 10)))], "x")
    assert none is None
    assert set(one.scores) == {"technical", "aesthetic"}
    assert (one.width, one.height) == (64, 64)
    assert one.hash != other.hash
    assert judge(benches, [], "x") == []


def test_the_builtin_scorer_puts_the_right_caption_first():
    [bench] = open_benches({"builtin": ""})
    picture = disc()
    right, wrong = (
        bench.scorer.raw([picture], f"a {c} circle on a blue background")[0] for c in ("red", "green")
    )
    assert right > wrong
    assert bench.calibration.score(right) > 0.75 > bench.calibration.score(wrong)


def test_a_clip_from_a_folder_scores_and_says_what_pictures_look_like(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<start>", "<end>", "<unk>", "a", "fog"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="<end>"
    ).save_pretrained(tmp_path)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**size, "vocab_size": 6, "max_position_embeddings": 8, "eos_token_id": 2},
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    [bench] = open_benches({"clip": str(tmp_path)})
    found = judge([bench], [png(disc().resize((100, 60))), png(disc(at=(5, 5)))], "a fog")
    assert all(0 <= one.scores["clip"] <= 1 for one in found)
    assert len(found[0].signature) > 8


def test_a_scorer_that_cannot_be_had_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no scorer 'oracle'"):
        require_scorers({"oracle": ""})
    with pytest.raises(ValueError, match="clip cannot be loaded"):
        open_benches({"clip": str(tmp_path)})


@pytest.mark.parametrize("wrong", ["builtin", "builtin=x", "=1", "builtin=-1", "builtin=0"])
def test_scorers_of_the_settings_have_a_name_and_a_weight(wrong):
    with pytest.raises(ValueError, match=r"dreams\.scorers"):
        DreamsSettings(scorers=(wrong,))
    [choice] = read_scorers(("clip:/models/clip=0.5",))
    assert (choice.name, choice.options, choice.weight) == ("clip", "/models/clip", 0.5)


def test_a_calibration_is_recorded_from_a_folder_of_pictures(tmp_path, capsys):
    prompts = {}
    for number in range(12):
        name = f"{number}.png"
        disc(radius=4 + number).save(tmp_path / name)
        prompts[name] = f"a disc of {number}"
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    assert calibrate([str(tmp_path), "--scorer", "technical", "--output", str(tmp_path)]) == 0
    assert "48 figures" in capsys.readouterr().out
    assert recorded("technical", [tmp_path]).count == 48
