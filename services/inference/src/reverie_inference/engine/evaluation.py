"""One evaluation of the network for several jobs at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reverie_inference.engine.sampling import Sampling


@torch.inference_mode()
def evaluate(samplings: Sequence[Sampling]) -> list[torch.Tensor]:
    """What the network says to each of these jobs, [rows, C, H, W]; they are `alike` and of one model.

    One job alone is computed as its pipeline would compute it, bit for bit; in company sums are made in another
    order, which changes the last bits of a picture at most.
    """
    first = samplings[0]
    inputs = [sampling.network_input() for sampling in samplings]
    if len(samplings) == 1:
        latents, timestep = inputs[0]
        timesteps = timestep.to(latents.device).expand(first.rows)
        return [first.family.predict(first.model, latents, timesteps, first.conditioning)]
    counts = [sampling.rows for sampling in samplings]
    latents = torch.cat([rows for rows, _ in inputs])
    rows = {
        name: torch.cat([sampling.conditioning[name] for sampling in samplings])
        for name in first.conditioning
    }
    timesteps = _timesteps([timestep for _, timestep in inputs], counts, latents.device)
    predicted = first.family.predict(first.model, latents, timesteps, rows)
    return list(torch.split(predicted, counts))


def _timesteps(each: Sequence[torch.Tensor], counts: Sequence[int], device: torch.device) -> torch.Tensor:
    """[R]; schedulers differ in whether timesteps are whole numbers."""
    alike = len({timestep.dtype for timestep in each}) == 1
    values = [timestep if alike else timestep.float() for timestep in each]
    return torch.cat(
        [value.to(device).reshape(1).expand(count) for value, count in zip(values, counts, strict=True)]
    )
