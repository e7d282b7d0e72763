"""Detections from outputs: any memory layout, priors kept between images, and the location of each detection."""

import pytest
import torch
from cases import DYNAMIC_HOSTS, HOSTS, build, features, gfl_config, host_config, host_features, metas


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
        """Another thread replaces the kept priors as soon as they are written."""

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
def test_detections_do_not_depend_on_autocast(dtype, autocast):
    head = build(gfl_config()).eval()
    outs = [[level.detach().to(dtype) for level in levels] for levels in head(features((96, 160), 2))]
    (alone, _) = head.predict_by_feat(*outs, batch_img_metas=metas((96, 160), 2))
    with torch.autocast('cpu', autocast):
        (found, _) = head.predict_by_feat(*outs, batch_img_metas=metas((96, 160), 2))
    assert len(found) > 10
    for name in ('scores', 'labels', 'bboxes'):
        assert torch.equal(found[name], alone[name]), name


def test_detections_of_a_batch_are_those_of_its_images():
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


# Statistics of the sides --------------------------------------------------------------------------------------------


def boxes_of(found):
    """Boxes from the location and the mean distances of each detection."""
    location, mean = found.bbox_location, found.bbox_mean
    return torch.cat((location - mean[:, :2], location + mean[:, 2:]), dim=1)


def head_with_statistics(host, box):
    head = build(host_config(host, None, box)).eval()
    head.test_cfg.with_distribution = 'stats'
    return head


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize('box', ['gaussian', 'dfl'])
@pytest.mark.parametrize('host', (*HOSTS, *DYNAMIC_HOSTS))
def test_location_and_mean_distances_give_the_unclipped_box(host, box, rescale):
    size, scale = (96, 160), (0.5, 0.8)
    head = head_with_statistics(host, box)
    with torch.no_grad():
        outs = head(host_features(host, size, 2))
    images = metas(size, 2, scale)
    clipped = head.predict_by_feat(*outs, batch_img_metas=images, rescale=rescale)
    head.bbox_coder.clip_border = False
    unclipped = head.predict_by_feat(*outs, batch_img_metas=images, rescale=rescale)
    assert sum(map(len, unclipped)) > 20 and sum(map(len, clipped)) > 20
    for found in unclipped:
        assert found.bbox_location.shape == (len(found), 2)
        torch.testing.assert_close(boxes_of(found), found.bboxes, rtol=1e-4, atol=1e-2)
    assert torch.cat([found.bboxes for found in unclipped]).min() < 0
    last = torch.tensor([size[1], size[0]] * 2) - (1 if host == 'Fovea' else 0)  # which clips to the last pixel
    last = last / torch.tensor([*scale, *scale]) if rescale else last
    for found in clipped:
        torch.testing.assert_close(boxes_of(found).clamp(min=0).minimum(last), found.bboxes, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize('host', (*HOSTS, *DYNAMIC_HOSTS))
def test_locations_of_detections_are_the_centers_of_priors(host, rescale):
    size, scale = (96, 160), torch.tensor([0.5, 0.8])
    head = head_with_statistics(host, 'dfl')
    with torch.no_grad():
        outs = head(host_features(host, size, 1))
    (found,) = head.predict_by_feat(*outs, batch_img_metas=metas(size, 1, scale.tolist()), rescale=rescale)
    priors = torch.cat(head.prior_generator.grid_priors([level.shape[-2:] for level in outs[0]], device='cpu'))
    centers = priors if priors.size(1) == 2 else (priors[:, :2] + priors[:, 2:]) / 2
    location = found.bbox_location * scale if rescale else found.bbox_location
    assert len(found) > 10 and len(location.unique(dim=0)) > 5
    assert torch.cdist(location, centers).amin(dim=1).max() < 1e-3
