"""The baseline models on frozen features in plain PyTorch: the oracle for weights, names, scores, loss and gradients.

Written from the equations of docs/baselines.md, for clarity and not for speed. Each model takes the features that
FissFuse takes (make_batch.py) and gives rows of scores [K, B, N]; the similarity is the mean of the rows.

Shapes: B mentions, N candidates of each, L text tokens (padded), P image patches (padded), d hidden width.
"""
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

import fissfuse_reference as fissfuse
from fissfuse_reference import CrossAttention


@dataclass(frozen=True)
class Config(fissfuse.Config):
    margin: float = 0.25       # of the hinge loss
    temperature: float = 0.07  # cosines are divided by it


def normalize(x):
    """x / max(|x|, 1e-8)"""
    return F.normalize(x, dim=-1, eps=1e-8)


def cosine(a, b):
    return (normalize(a) * normalize(b)).sum(-1)


def dot(a, b):
    return (a * b).sum(-1)


def mean_pool(seq, mask):
    """Mean over real tokens: seq [..., L, d], mask [..., L] -> [..., d]"""
    m = mask.unsqueeze(-1)
    return seq.masked_fill(~m, 0.0).sum(-2) / m.sum(-2)


def max_pool(seq, mask):
    """Largest over real tokens: seq [..., L, d], mask [..., L] -> [..., d]"""
    return seq.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(-2)


def masked_softmax(logits, mask):
    """Over the last axis, where mask (which may lack leading axes) is True."""
    return logits.masked_fill(~mask, float("-inf")).softmax(-1)


class Baseline(nn.Module):
    """forward(mention features [B, ...], candidate features [B, N, ...]) -> scores [K, B, N]"""
    settings = ()  # fields that Config has beyond FissFuse's and that the model reads

    def __init__(self, cfg=Config()):
        super().__init__()
        self.cfg = cfg

    def loss(self, scores, gold):
        """Sum over the rows of the mean cross-entropy over candidates, as Eq. 12 of FissFuse. gold [B]"""
        return fissfuse.loss(scores, gold)


class HingeBaseline(Baseline):
    settings = ("margin",)

    def loss(self, scores, gold):
        """Sum over the rows of the mean over mentions of the mean over negatives of max(0, margin - gold + negative);
        0 for a mention that has no negative. gold [B]"""
        negative = torch.arange(scores.shape[-1]) != gold[:, None]                          # [B, N]
        right = scores.gather(-1, gold.expand(len(scores), -1).unsqueeze(-1))               # [K, B, 1]
        excess = F.relu(self.cfg.margin - right + scores) * negative
        return (excess.sum(-1) / negative.sum(-1).clamp(min=1)).mean(-1).sum()


class Clip(Baseline):
    """Zero-shot: no parameters, never trained."""

    def forward(self, mention, entity):
        return torch.stack([cosine(mention[k].unsqueeze(1), entity[k]) for k in ("text_global", "image_global")])


class ClipProjected(Baseline):
    settings = ("temperature",)

    def __init__(self, cfg=Config()):
        super().__init__(cfg)
        self.text = nn.Linear(cfg.text_global_dim, cfg.d)
        self.image = nn.Linear(cfg.image_global_dim, cfg.d)

    def forward(self, mention, entity):
        row = lambda f, k: cosine(f(mention[k]).unsqueeze(1), f(entity[k])) / self.cfg.temperature
        return torch.stack([row(self.text, "text_global"), row(self.image, "image_global")])


class Bert(Baseline):
    """Text only, one projection for both sides."""

    def __init__(self, cfg=Config()):
        super().__init__(cfg)
        self.text = nn.Linear(cfg.text_global_dim, cfg.d)

    def forward(self, mention, entity):
        m, e = self.text(mention["text_global"]), self.text(entity["text_global"])
        return dot(m.unsqueeze(1), e).unsqueeze(0) / self.cfg.d**0.5


class Blink(Baseline):
    """Text only, one projection per side (the bi-encoder)."""

    def __init__(self, cfg=Config()):
        super().__init__(cfg)
        self.mention = nn.Linear(cfg.text_global_dim, cfg.d)
        self.entity = nn.Linear(cfg.text_global_dim, cfg.d)

    def forward(self, mention, entity):
        m, e = self.mention(mention["text_global"]), self.entity(entity["text_global"])
        return dot(m.unsqueeze(1), e).unsqueeze(0)


class Dzmned(HingeBaseline):
    def __init__(self, cfg=Config()):
        super().__init__(cfg)
        self.context = nn.Linear(cfg.text_global_dim, cfg.d)
        self.words = nn.Linear(cfg.text_dim, cfg.d)
        self.image = nn.Linear(cfg.image_global_dim, cfg.d)
        self.attention = nn.Linear(3 * cfg.d, 3)
        self.hidden = nn.Linear(cfg.d, cfg.d)
        self.out = nn.Linear(cfg.d, cfg.d)
        self.entity = nn.Linear(cfg.text_global_dim, cfg.d)

    def forward(self, mention, entity):
        x = torch.stack([self.context(mention["text_global"]),
                         self.words(mean_pool(mention["text"], mention["text_mask"])),
                         self.image(mention["image_global"])], 1).tanh()                    # [B, 3, d]
        weights = self.attention(x.flatten(1)).sigmoid().softmax(-1)                        # [B, 3]
        fused = torch.einsum("bk,bkd->bd", weights, x)
        f = self.out(F.relu(self.hidden(fused)))
        return cosine(f.unsqueeze(1), self.entity(entity["text_global"])).unsqueeze(0)


class JmelSide(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.text = nn.Linear(cfg.text_global_dim, cfg.d)
        self.image = nn.Linear(cfg.image_global_dim, cfg.d)
        self.joint = nn.Linear(2 * cfg.d, cfg.d)

    def forward(self, x):
        both = torch.cat([self.text(x["text_global"]), self.image(x["image_global"])], -1).tanh()
        return self.joint(both).tanh()


class Jmel(HingeBaseline):
    def __init__(self, cfg=Config()):
        super().__init__(cfg)
        self.mention = JmelSide(cfg)
        self.entity = JmelSide(cfg)

    def forward(self, mention, entity):
        return cosine(self.mention(mention).unsqueeze(1), self.entity(entity)).unsqueeze(0)


class MelHi(Baseline):
    """All weights serve mentions and entities."""

    def __init__(self, cfg=Config()):
        super().__init__(cfg)
        self.text = nn.Linear(cfg.text_dim, cfg.d)
        self.text_global = nn.Linear(cfg.text_global_dim, cfg.d)
        self.image = nn.Linear(cfg.image_dim, cfg.d)
        self.text_attention = CrossAttention(cfg)
        self.image_attention = CrossAttention(cfg)
        self.gate = nn.Linear(2 * cfg.d, cfg.d)

    def side(self, x):
        a = self.text_attention(self.text_global(x["text_global"]), self.text(x["text"]), x["text_mask"])
        b = self.image_attention(a, self.image(x["image"]), x["image_mask"])
        return a + self.gate(torch.cat([a, b], -1)).sigmoid() * b

    def forward(self, mention, entity):
        return dot(self.side(mention).unsqueeze(1), self.side(entity)).unsqueeze(0)


class MultiHeadAttention(nn.Module):
    """Positions of one sequence attend to another; neither residual nor norm."""

    def __init__(self, cfg):
        super().__init__()
        self.heads, self.head_dim = cfg.heads, cfg.d // cfg.heads
        assert self.heads * self.head_dim == cfg.d
        self.query = nn.Linear(cfg.d, cfg.d)
        self.key = nn.Linear(cfg.d, cfg.d)
        self.value = nn.Linear(cfg.d, cfg.d)
        self.out = nn.Linear(cfg.d, cfg.d)

    def forward(self, a, b, b_mask):
        """a [B, La, d], b [B, Lb, d], b_mask [B, Lb] -> [B, La, d]"""
        split = lambda x: x.unflatten(-1, (self.heads, self.head_dim))
        logits = torch.einsum("bqhc,bkhc->bhqk", split(self.query(a)), split(self.key(b))) / self.head_dim**0.5
        weights = masked_softmax(logits, b_mask[:, None, None])
        return self.out(torch.einsum("bhqk,bkhc->bqhc", weights, split(self.value(b))).flatten(-2))


class GhmfcBlock(nn.Module):
    """X(a, b): a's positions attend to b, and what they found attends to a."""

    def __init__(self, cfg):
        super().__init__()
        norm = lambda: nn.LayerNorm(cfg.d, eps=cfg.layer_norm_eps)
        self.attention = MultiHeadAttention(cfg)
        self.norm1 = norm()
        self.mid = nn.Linear(cfg.d, cfg.d)
        self.norm2 = norm()
        self.attention2 = MultiHeadAttention(cfg)
        self.norm3 = norm()
        self.out = nn.Linear(cfg.d, cfg.d)
        self.norm4 = norm()

    def forward(self, a, a_mask, b, b_mask):
        y = self.norm1(self.attention(a, b, b_mask))
        y = self.norm2(self.mid(y) + y)
        z = self.norm3(self.attention2(y, a, a_mask))
        return self.norm4(self.out(z) + z)


class Ghmfc(HingeBaseline):
    def __init__(self, cfg=Config()):
        super().__init__(cfg)
        self.text = nn.Linear(cfg.text_dim, cfg.d)
        self.image = nn.Linear(cfg.image_dim, cfg.d)
        self.text_block = GhmfcBlock(cfg)
        self.image_block = GhmfcBlock(cfg)
        self.text_out = nn.Linear(cfg.d, cfg.d)
        self.image_out = nn.Linear(cfg.d, cfg.d)
        self.mix = nn.Linear(2 * cfg.d, 2)
        self.entity = nn.Linear(cfg.text_dim, cfg.d)

    def forward(self, mention, entity):
        text, text_mask = self.text(mention["text"]), mention["text_mask"]
        image, image_mask = self.image(mention["image"]), mention["image_mask"]
        f = F.gelu(self.text_out(max_pool(self.text_block(text, text_mask, image, image_mask), text_mask)))
        u = F.gelu(self.image_out(max_pool(self.image_block(image, image_mask, text, text_mask), image_mask)))
        weights = self.mix(torch.cat([f, u], -1)).softmax(-1)
        z = weights[:, :1] * f + weights[:, 1:] * u
        y = self.entity(mean_pool(entity["text"], entity["text_mask"]))
        return cosine(z.unsqueeze(1), y).unsqueeze(0)


class DrinLayer(nn.Module):
    """What becomes of a vertex and the messages added to it."""

    def __init__(self, cfg):
        super().__init__()
        self.linear = nn.Linear(cfg.d, cfg.d)
        self.norm = nn.LayerNorm(cfg.d, eps=cfg.layer_norm_eps)

    def forward(self, x):
        return F.gelu(self.norm(self.linear(x)))


class Drin(HingeBaseline):
    """Vertices are keyed by their kind, t (text) and i (image); edges by that of the mention's and of the entity's."""

    def __init__(self, cfg=Config()):
        super().__init__(cfg)
        self.text = nn.Linear(cfg.text_global_dim, cfg.d)
        self.image = nn.Linear(cfg.image_global_dim, cfg.d)
        self.layer1 = DrinLayer(cfg)
        self.layer2 = DrinLayer(cfg)
        self.edge = nn.ModuleDict({"mention": nn.Linear(cfg.d, cfg.d), "entity": nn.Linear(cfg.d, cfg.d)})

    def vertices(self, x):
        return {"t": self.text(x["text_global"]), "i": self.image(x["image_global"])}

    @staticmethod
    def step(layer, m, e, edges):
        """m [B, d], e [B, N, d], edges [B, N], each by kind -> the next layer's m and e"""
        from_entities = lambda u: sum((edges[u, v].unsqueeze(-1) * e[v]).mean(1) for v in "ti")
        from_mention = lambda v: sum(edges[u, v].unsqueeze(-1) * m[u].unsqueeze(1) for u in "ti")
        return {u: layer(m[u] + from_entities(u)) for u in "ti"}, {v: layer(e[v] + from_mention(v)) for v in "ti"}

    def forward(self, mention, entity):
        m, e = self.vertices(mention), self.vertices(entity)
        edges = {(u, v): cosine(m[u].unsqueeze(1), e[v]) for u in "ti" for v in "ti"}
        agreement = lambda u, v: (self.edge["mention"](m[u]).unsqueeze(1) * self.edge["entity"](e[v])).mean(-1)
        next_edges = {(u, v): (agreement(u, v) + edge).sigmoid() for (u, v), edge in edges.items()}
        m, e = self.step(self.layer1, m, e, edges)
        m, e = self.step(self.layer2, m, e, next_edges)
        return cosine(m["t"].unsqueeze(1), e["t"]).unsqueeze(0)


class MimicTextUnit(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.query = nn.Linear(cfg.text_dim, cfg.d)
        self.key = nn.Linear(cfg.text_dim, cfg.d)
        self.value = nn.Linear(cfg.text_dim, cfg.d)
        self.norm = nn.LayerNorm(cfg.d, eps=cfg.layer_norm_eps)
        self.add_module("global", nn.Linear(cfg.text_global_dim, cfg.d))  # a keyword of Python

    def forward(self, mention, entity):
        query, key, value = self.query(entity["text"]), self.key(mention["text"]), self.value(mention["text"])
        logits = torch.einsum("bnqd,bkd->bnqk", query, key) / query.shape[-1]**0.5
        weights = masked_softmax(logits, mention["text_mask"][:, None, None])
        context = torch.einsum("bnqk,bkd->bnqd", weights, value)
        context = self.norm(mean_pool(context, entity["text_mask"]))                        # [B, N, d]
        m, e = normalize(mention["text_global"]).unsqueeze(1), normalize(entity["text_global"])
        return (dot(getattr(self, "global")(e), context) + dot(m, e)) / 2


class MimicDual(nn.Module):
    """D(a -> b): how well b's patches, as a sees them, fit a."""

    def __init__(self, cfg):
        super().__init__()
        self.add_module("global", nn.Linear(cfg.d, cfg.d))
        self.patches = nn.Linear(cfg.d, cfg.d)
        self.norm1 = nn.LayerNorm(cfg.d, eps=cfg.layer_norm_eps)
        self.hidden = nn.Linear(cfg.d, cfg.d)
        self.gate = nn.Linear(cfg.d, 1)
        self.norm2 = nn.LayerNorm(cfg.d, eps=cfg.layer_norm_eps)

    def forward(self, a_global, b_global, b_patches, b_mask):
        """[B, N or 1, d], and patches [B, N or 1, P, d] with their mask -> [B, N]"""
        query, key = getattr(self, "global")(a_global), getattr(self, "global")(b_global)
        pooled = mean_pool(self.patches(b_patches), b_mask)
        hidden = self.hidden(self.norm1(pooled + query))
        gate = self.gate(hidden).tanh()
        return dot(self.norm2(gate * hidden + key), self.norm2(query))


class MimicVisualUnit(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.entity_to_mention = MimicDual(cfg)
        self.mention_to_entity = MimicDual(cfg)

    def forward(self, mention, entity):
        """Each side: global vector, patches and their mask, in width d."""
        (m, *m_patches), (e, *e_patches) = [x.unsqueeze(1) for x in mention], entity
        return (self.entity_to_mention(e, m, *m_patches) + self.mention_to_entity(m, e, *e_patches)) / 2


class MimicCrossUnit(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.text = nn.Linear(cfg.text_global_dim, cfg.d)
        self.image = nn.Linear(cfg.d, cfg.d)
        self.gate = nn.Linear(cfg.d, 1)
        self.norm = nn.LayerNorm(cfg.d, eps=cfg.layer_norm_eps)

    def forward(self, text_global, patches, mask):
        """[..., Wtg] and [..., P, d] -> [..., d]"""
        text, image = self.text(normalize(text_global)), self.image(patches)
        weights = masked_softmax(torch.einsum("...d,...pd->...p", text, image), mask)
        return self.norm(self.gate(text).tanh() * text + torch.einsum("...p,...pd->...d", weights, image))


class Mimic(Baseline):
    def __init__(self, cfg=Config()):
        super().__init__(cfg)
        self.image = nn.Linear(cfg.image_dim, cfg.d)
        self.image_global = nn.Linear(cfg.image_global_dim, cfg.d)
        self.text_unit = MimicTextUnit(cfg)
        self.visual_unit = MimicVisualUnit(cfg)
        self.cross_unit = MimicCrossUnit(cfg)

    def forward(self, mention, entity):
        images = lambda x: (self.image_global(x["image_global"]), self.image(x["image"]), x["image_mask"])
        m, e = images(mention), images(entity)
        text, visual = self.text_unit(mention, entity), self.visual_unit(m, e)
        cross = dot(self.cross_unit(mention["text_global"], *m[1:]).unsqueeze(1),
                    self.cross_unit(entity["text_global"], *e[1:]))
        return torch.stack([text, visual, cross, (text + visual + cross) / 3])


BASELINES = {"clip": Clip, "clip-projected": ClipProjected, "bert": Bert, "blink": Blink, "dzmned": Dzmned,
             "jmel": Jmel, "mel-hi": MelHi, "ghmfc": Ghmfc, "drin": Drin, "mimic": Mimic}
