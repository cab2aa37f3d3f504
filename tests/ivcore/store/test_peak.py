import numpy as np

from ivcore.steps import Step, run
from ivcore.store.artifacts import Store
from ivcore.store.peak import Peak

MB = 1 << 20


def hold(mb):
    """Take so much memory and give it back."""
    np.ones(mb * MB, np.uint8)


def test_a_stretch_has_its_own_peak_and_that_of_those_within():
    outer = Peak()
    base = outer.bytes()
    hold(200)
    inner = Peak()
    hold(50)
    assert inner.bytes() < base + 150 * MB  # not what was before it
    assert outer.bytes() > base + 190 * MB  # nor forgotten by the one around it


def test_the_record_has_the_peak_of_the_step_not_of_the_process(tmp_path):
    def peak(n, mb):
        def make(draft, log):
            hold(mb)
            draft.count(1)

        return run(Step("ingest", "manifest", {"n": n}, {}, make), Store(tmp_path)).record()["peak_rss_mb"]

    small, large, again = peak(0, 1), peak(1, 300), peak(2, 1)
    assert large > small + 250 and again < small + 100
