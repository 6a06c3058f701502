"""The model family written a second time, one sequence at a time, straight from the definitions.

Slow and independent on purpose: loops over positions and heads, explicit softmax, no module of the
package is used. ``state`` is a Golf's state dict; everything is float64.
"""

from __future__ import annotations

import itertools
import math

import torch


def rms(x):
    return x / x.pow(2).mean(-1, keepdim=True).sqrt()


def rotated(vector, position, dims, base):
    """Pair (i, i + dims / 2) of the first ``dims`` coordinates turned by position * base^(-2i / dims)."""
    parts = list(vector)
    half = dims // 2
    for i in range(half):
        angle = position * base ** (-2 * i / dims)
        a, b = vector[i], vector[i + half]
        parts[i] = a * math.cos(angle) + b * math.sin(angle)
        parts[i + half] = b * math.cos(angle) - a * math.sin(angle)
    return torch.stack(parts)


def attention(c, p, layer, x, extra):
    """x (T, D), already normalised; p(name) gives a parameter of the layer's attention."""
    d = c.dim // c.heads
    dims = c.rope_dims or d
    base = c.rope_base
    if c.rope_reference and len(x) > c.rope_reference:
        base *= (len(x) / c.rope_reference) ** (dims / (dims - 2))
    q, k, v = x @ p("q.weight").T, x @ p("k.weight").T, x @ p("v.weight").T
    if extra is not None:
        v = v + extra
    outputs = []
    for t in range(len(x)):
        heads = []
        for h in range(c.heads):
            group = h // (c.heads // c.kv_heads)
            mine, theirs = slice(h * d, (h + 1) * d), slice(group * d, (group + 1) * d)
            normal = rms if c.qk_norm else (lambda y: y)
            query = rotated(normal(q[t, mine]), t, dims, base) * p("q_gain")[h]
            keys = torch.stack([rotated(normal(k[s, theirs]), s, dims, base) for s in range(t + 1)])
            weights = torch.softmax(keys @ query / math.sqrt(d), 0)
            y = weights @ v[: t + 1, theirs]
            if layer >= c.layers - c.xsa_layers:
                own = v[t, theirs] / v[t, theirs].norm()
                y = y - (y @ own) * own
            heads.append(y)
        outputs.append(torch.cat(heads))
    return torch.stack(outputs) @ p("o.weight").T


def mlp(c, p, x):
    h = x @ p("up.weight").T
    h = torch.where(h > 0, h, c.mlp_slope * h) ** 2
    if c.moe_experts > 1:
        width = c.mlp_hidden // c.moe_experts
        keep = torch.zeros_like(h)
        for t, expert in enumerate((x @ p("router.weight").T).argmax(-1).tolist()):
            keep[t, expert * width : (expert + 1) * width] = 1
        h = h * keep
    return h @ p("down.weight").T


def embedded(c, state, ids):
    x = state["embed.weight"][ids]
    if c.bigram_size:
        rows = [c.bigram_size - 1]
        for before, now in itertools.pairwise(ids):
            rows.append(((36313 * now) ^ (27191 * before)) % (c.bigram_size - 1))
        x = x + state["bigram.embed.weight"][rows] @ state["bigram.proj.weight"].T * state["bigram.scale"]
    x = rms(x)
    if c.smear:
        g = 1 / (1 + torch.exp(-state["smear.gate"]))
        out = []
        for t in range(len(ids)):
            open_ = t > 0 and not (c.smear_document_mask and ids[t] == c.bos)
            out.append((1 - g) * x[t] + (g * x[t - 1] if open_ else 0))
        x = torch.stack(out)
    return x


def logits(c, state, ids, repeats=False):
    """ids: list of T ints -> (T, V)."""
    x = x0 = embedded(c, state, ids)
    lanes = None

    def block_norm(layer, y):
        return rms(y) / (math.sqrt(layer + 1) if c.norm_scale else 1.0)

    def mixed(layer, y):
        m = state.get(f"blocks.{layer}.mix")
        return y if m is None else m[0] * y + m[1] * x0

    def branch(layer, kind, y):
        s = state.get(f"blocks.{layer}.{kind}_scale")
        return y if s is None else y * s

    def attend(layer, y):
        extra = None
        if layer in c.value_layers:
            shared = state["value.embed.weight"][ids] @ state["value.proj.weight"].T * state["value.scale"]
            extra = shared * state["value.layer_scale"][c.value_layers.index(layer)]
        p = lambda name: state[f"blocks.{layer}.attn.{name}"]  # noqa: E731
        return branch(layer, "attn", attention(c, p, layer, block_norm(layer, y), extra))

    def feed(layer, y, which="mlp"):
        p = lambda name: state[f"blocks.{layer}.{which}.{name}"]  # noqa: E731
        return branch(layer, "mlp", mlp(c, p, block_norm(layer, y)))

    def block(layer, y, which="mlp"):
        y = mixed(layer, y)
        y = y + attend(layer, y)
        return y + feed(layer, y, which)

    plan = []  # (layer, gate)
    for layer in range(c.layers):
        times = c.gated_repeats if c.gated_repeats and layer == c.gated_layer else 1
        plan += [(layer, i if times > 1 or (c.gated_repeats and layer == c.gated_layer) else None)
                 for i in range(times)]  # fmt: skip
    if c.loops > 1:
        plan = plan[: c.loop_from] + plan[c.loop_from : c.loop_to + 1] * c.loops + plan[c.loop_to + 1 :]
    half = c.unet_encoder or len(plan) // 2
    kept = []
    for index, (layer, gate) in enumerate(plan):
        if index == half and repeats:
            for again in c.repeat_layers:
                x = block(again, x, "repeat_mlp")
        if c.unet and index >= half and kept:
            bridge = state["skip_scale"][index - half] * kept.pop()
            x = x + bridge
            if lanes is not None:
                lanes = [lanes[0] + bridge, lanes[1] + bridge]
        if 0 <= c.lanes_from <= layer:
            a, b = (x, x) if lanes is None else lanes
            post, keep = state[f"blocks.{layer}.lanes.post"], state[f"blocks.{layer}.lanes.keep"]
            from_attn, from_mlp = attend(layer, mixed(layer, a)), feed(layer, mixed(layer, b))
            lanes = [keep[0] * a + post[0, 0] * from_attn + post[1, 0] * from_mlp,
                     keep[1] * b + post[0, 1] * from_attn + post[1, 1] * from_mlp]  # fmt: skip
            x = lanes[0]
        else:
            y = block(layer, x)
            if gate is not None:
                g = 1 / (1 + torch.exp(-state["gates"][gate]))
                y = g * y + (1 - g) * x
            x = y
        if c.unet and index < half:
            kept.append(x)
    if lanes is not None:
        x = (lanes[0] + lanes[1]) / 2
    y = rms(x) @ (state["embed.weight"] if c.tied else state["head.weight"]).T
    return c.softcap * torch.tanh(y / c.softcap) if c.softcap else y
