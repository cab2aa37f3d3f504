"""A handful of made-up videos and the artifacts made of them: what the tests of training share."""

from ivcore import config, steps
from ivcore.store.artifacts import Store

SMALL = [
    "data.synthetic.train_clips=48",
    "data.synthetic.val_clips=8",
    "data.synthetic.test_clips=8",
    "frames.workers=1",
    "train.threads=1",
    "train.s2.batch_size=16",
    "train.clip.batch_size=16",
    'train.s2.phases=[{name="all", steps=12, warmup_steps=2, vtm=1.0, mlm=1.0, token_drop=0.5, batches="families"},'
    ' {name="last", steps=3, warmup_steps=0, trainable="fusion", vtc=0.0, vtm=1.0, batches="neighbours"}]',
    'train.clip.phases=[{name="text", steps=4, warmup_steps=2, trainable="clip_text", languages=["en", "zh"],'
    ' long_share=0.5}, {name="pooler", steps=3, warmup_steps=2, trainable="clip", languages=["en", "zh"]}]',
]


class Chain:
    """Artifacts of the chain in one workspace."""

    def __init__(self, home, sets=()):
        self.store = Store(home)
        self.config = config.variants(config.load("demo", [*SMALL, *sets]))[0][2]
        c = self.config
        self.manifest = self.run(steps.ingest(self.store, c.data))
        self.frames = self.run(steps.decode(self.store, c.data, c.frames, self.manifest))
        first, last = c.train.s2.phases
        self.first = self.run(self.s2(first, self.frames, None))
        self.features = self.run(steps.featurize(self.store, c.features, c.train, self.frames, self.first))
        self.last = self.run(self.s2(last, self.features, self.first))

    def run(self, step):
        return steps.run(step, self.store)

    def s2(self, phase, inputs, init):
        return steps.fit_s2(self.store, self.config.model, self.config.train, phase, self.manifest, inputs, init)

    def clip(self, phase, init):
        c = self.config
        return steps.fit_clip(self.store, c.model, c.train, phase, self.manifest, self.features, init)
