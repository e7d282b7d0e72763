"""Detections from outputs: what does not depend on how they lie in memory, and what is remembered between images."""

import pytest
import torch
from cases import build, features, gfl_config, metas


@pytest.mark.parametrize('form', ['channels-last', 'sliced'])
def test_detections_do_not_depend_on_strides(form):
    head = build(gfl_config()).eval()
    outs = head(features((96, 160), 2))
    other = [
        [
            level.to(memory_format=torch.channels_last)
            if form == 'channels-last'
            else torch.cat((level, level), dim=1)[:, : level.size(1)]
            for level in levels
        ]
        for levels in outs
    ]
    images = metas((96, 160), 2)
    for one, same in zip(*(head.predict_by_feat(*out, batch_img_metas=images) for out in (outs, other))):
        assert len(one) > 10 and torch.equal(one.scores, same.scores)
        torch.testing.assert_close(one.bboxes, same.bboxes)


def test_images_of_other_sizes_have_other_priors():
    head = build(gfl_config()).eval()
    for size in [(96, 160), (160, 96), (96, 160)]:
        outs = head(features(size, 1))
        one = head.predict_by_feat(*outs, batch_img_metas=metas(size, 1))
        fresh = build(gfl_config()).eval()
        fresh.load_state_dict(head.state_dict())
        assert len(one[0]) > 10
        assert torch.equal(one[0].bboxes, fresh.predict_by_feat(*outs, batch_img_metas=metas(size, 1))[0].bboxes)


def test_another_thread_may_predict_other_sizes_meanwhile():
    head = build(gfl_config()).eval()
    outs = {size: head(features(size, 1)) for size in [(96, 160), (160, 96)]}
    expected = head.predict_by_feat(*outs[96, 160], batch_img_metas=metas((96, 160), 1))[0]
    other = head._priors_of(outs[160, 96][0])

    class Interrupted(type(head)):
        """Another thread's priors take the place of the remembered ones as soon as these are written."""

        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == '_last_priors':
                object.__setattr__(self, name, ('other sizes', other))

    head._last_priors = None
    head.__class__ = Interrupted
    found = head.predict_by_feat(*outs[96, 160], batch_img_metas=metas((96, 160), 1))[0]
    assert len(found) > 10 and torch.equal(found.bboxes, expected.bboxes)


@pytest.mark.parametrize('autocast', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float32])
def test_detections_under_autocast_are_those_without(dtype, autocast):
    head = build(gfl_config()).eval()
    outs = [[level.detach().to(dtype) for level in levels] for levels in head(features((96, 160), 2))]
    (alone, _) = head.predict_by_feat(*outs, batch_img_metas=metas((96, 160), 2))
    with torch.autocast('cpu', autocast):
        (found, _) = head.predict_by_feat(*outs, batch_img_metas=metas((96, 160), 2))
    assert len(found) > 10
    for name in ('scores', 'labels', 'bboxes'):
        assert torch.equal(found[name], alone[name]), name


def test_a_batch_gives_what_its_images_give():
    head = build(gfl_config()).eval()
    outs = head(features((96, 160), 3))
    images = metas((96, 160), 3)
    images[1]['img_shape'] = (60, 90)  # clipped to its own size
    together = head.predict_by_feat(*outs, batch_img_metas=images)
    for index, image in enumerate(images):
        own = [[level[index : index + 1] for level in levels] for levels in outs]
        (alone,) = head.predict_by_feat(*own, batch_img_metas=[image])
        torch.testing.assert_close(together[index].bboxes, alone.bboxes)
        assert torch.equal(together[index].labels, alone.labels)
    assert together[1].bboxes[:, 2].max() <= 90 < together[0].bboxes[:, 2].max()
