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
