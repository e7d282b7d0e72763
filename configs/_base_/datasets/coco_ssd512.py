# COCO 2017 for SSD512: SSD300's with images of 512 x 512 px.
_base_ = './coco_ssd300.py'

train_pipeline = [dict(t, scale=(512, 512)) if t['type'] == 'Resize' else t for t in _base_.train_pipeline]
test_pipeline = [dict(t, scale=(512, 512)) if t['type'] == 'Resize' else t for t in _base_.test_pipeline]

train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
