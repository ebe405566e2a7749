"""CCL's loss from its parts; what both queries share is computed once."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from learn.methods.worlds import recipe_of, two_slides

from histokin.learn.distributed import World
from histokin.learn.losses import cluster_weights, group_info_nce, hardness_weights, weighted_info_nce
from histokin.learn.methods import METHODS, ccl
from histokin.learn.recipe import with_steps
from histokin.learn.resolve import resolve_recipe
from histokin.learn.state import assign
from histokin.learn.steps import Setting, make_batch, new_state, train_step
from histokin.learn.trainer import shares_of

CPU = torch.device("cpu")


def weights_of(weighting, q, k, rows, centroids):
    if weighting == "uniform":
        return torch.ones(len(q), len(rows))
    if weighting == "hard":
        return hardness_weights(q.detach(), rows, sharpness=0.75 / 0.2)
    return cluster_weights(
        assign(k, centroids), assign(rows, centroids), beta={"mask": 1.0, "cluster": 0.75}[weighting]
    )


@pytest.mark.parametrize("weighting", ["cluster", "mask", "hard", "uniform"])
def test_the_loss_is_that_of_its_parts_and_clusters_are_assigned_once_a_step(weighting, monkeypatch):
    source = two_slides()
    recipe = with_steps(resolve_recipe(recipe_of("ccl", f"loss.weighting={weighting}"), 32, len(source), CPU), 10)
    setting = Setting(recipe, CPU, 32)
    state = new_state(setting, source)
    shares = list(shares_of(METHODS["ccl"].sampler(source, recipe), range(5), World()))
    for share in shares[:4]:  # the queue of 20 is full after three steps of 8
        train_step(state, share, source.read(share.rows), setting)
    method = state.method
    batch = make_batch(shares[4], source.read(shares[4].rows), setting, n_views=3, step=4)
    method.eval()  # the same statistics each time it is asked
    first, key_view, second = batch.views.chunk(3)
    hidden = method.trunk(method.encoder(torch.cat([first, second])))
    queries = method.instance_head(hidden).chunk(2)
    k = F.normalize(method.momentum_head(method.momentum_trunk(method.momentum_encoder(key_view))), dim=1)
    rows, own = method.queue.filled_rows(), method.queue.own(batch.rows)
    parts = [
        weighted_info_nce(q, k, rows, weights_of(weighting, q, k, rows, method.centroids), temperature=0.2, own=own)
        for q in queries
    ]
    groups = group_info_nce(*method.group_head(hidden).chunk(2), clusters=2, iterations=5, temperature=0.4)
    expected = (parts[0].loss + parts[1].loss) / 2 + 0.25 * groups.loss
    calls = []
    monkeypatch.setattr(ccl, "assign", lambda *given: calls.append(given) or assign(*given))
    found = method.loss(batch)
    assert found["loss"].item() == expected.item()
    assert found["pos_sim"].item() == parts[0].pos_sim.item()
    assert len(calls) == (2 if weighting in {"cluster", "mask"} else 0)
