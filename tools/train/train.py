"""Trains the small CLIP on what prepare.mjs wrote, for a given time, and exports the averaged weights as a Hugging Face folder.

usage   train.py WORK_FOLDER MODEL_FOLDER [--minutes 65] [--seed 3] [--concepts 64]

Each step takes a number of concepts, two drawings of each in different styles, and one caption per concept. Images choose among the step's
captions and captions among its images; both also choose among all concepts' anchors, which are learnt and then dropped. The learning rate
follows the clock, so that the schedule ends well on a slow machine too. MODEL_FOLDER is rewritten every few minutes;
its merges.txt, where there is one, is the tokenizer (else one is learnt first).
"""

import argparse
import json
import math
import random
import re
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from augment import augment, upright
from export import export
from model import PROJECTION, TEXT, VISION, Clip
from muon import Muon
from tokenizer import Tokenizer

VOCABULARY = 3000
TEMPLATES = ["a photo of a {}", "a photo of a {}", "a picture of a {}", "a drawing of a {}", "an emoji of a {}", "the {}", "a {}"]
EMOJI = {"twemoji", "noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat", "emojione", "streamline-emojis", "fxemoji", "flat-color-icons"}
COLOURED = EMOJI | {"tuxpaint-stamps"}
SIDED = re.compile(r"left|right|letter|keycap|flag|clock|button|arrow|input|number|latin|sign|symbol|button|east|west|check|question|\d")
TONED = 0.12  # share of a step's concepts that repeat another with a different skin tone
CAPTION_LENGTH = 24
DECAY = 0.05
MUON = 2  # its learning rate, times AdamW's


class Data:
    """Drawings by concept and tone, and captions."""

    def __init__(self, work: Path):
        listing = json.loads((work / "train.json").read_text())
        size = listing["size"]
        self.pixels = torch.from_numpy(np.fromfile(work / "train.rgba", np.uint8).reshape(-1, size, size, 4))
        self.pictures = listing["pictures"]
        self.names = list(listing["concepts"])
        self.index = {name: i for i, name in enumerate(self.names)}
        self.captions = list(listing["concepts"].values())
        self.having: dict[str, set[int]] = defaultdict(set)
        for i, caption in enumerate(self.captions):
            for word in caption["words"]:
                self.having[word].add(i)
        self.drawings: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for i, picture in enumerate(self.pictures):
            if not picture["held"] and picture["set"] in COLOURED:
                self.drawings[self.index[picture["concept"]]][picture["tone"]].append(i)
        self.held = [i for i, p in enumerate(self.pictures) if p["held"] and not p["tone"] and p["set"] in COLOURED]
        self.may_flip = torch.tensor([not SIDED.search(p["concept"]) for p in self.pictures])

    def texts(self) -> list[str]:
        """Everything captions are made of, for the vocabulary; names weigh more than keywords."""
        tones = sorted({p["tone"] for p in self.pictures})
        names = [name for caption in self.captions for name in caption["names"]]
        words = [word for caption in self.captions for word in caption["words"]]
        return [*names * 3, *words, *tones * 20, *[template.replace("{}", "") for template in TEMPLATES] * 50]


class Slot:
    """One concept of a step: its two drawings, its caption, and which other concepts the caption fits as well."""

    def __init__(self, data: Data, concept: int, tone: str, with_tone: bool):
        self.concept, self.tone, self.fits = concept, tone, {concept}
        drawings = data.drawings[concept][tone]
        if len(drawings) == 1 and tone == "":
            drawings = [d for each in data.drawings[concept].values() for d in each]
        self.drawings = random.sample(drawings, 2) if len(drawings) > 1 else drawings * 2
        self.with_tone = with_tone
        caption = data.captions[concept]
        name = random.choice(caption["names"]) + (f" {tone}" if with_tone else "")
        words = random.sample(caption["words"], min(len(caption["words"]), random.randint(1, 3)))
        style = random.random()
        if style < 0.4 or not words and style > 0.75:
            self.caption = name
        elif style < 0.75:
            self.caption = random.choice(TEMPLATES).replace("{}", name)
        elif style < 0.9 or with_tone:
            self.caption = " ".join([name, *words])
        else:
            self.caption = " ".join(words) if random.random() < 0.5 else random.choice(TEMPLATES).replace("{}", " ".join(words))
            self.fits |= set.intersection(*(data.having[word] for word in words))


class Sampler:
    """Endless slots: every concept once per round, in random order; those that only the stamps draw once in four rounds."""

    def __init__(self, data: Data):
        self.data, self.queue = data, []
        stamps = {data.index[p["concept"]] for p in data.pictures if p["set"] == "tuxpaint-stamps"}
        emoji = {data.index[p["concept"]] for p in data.pictures if p["set"] in EMOJI}
        self.often = [c for c in data.drawings if c in emoji]
        self.seldom = [c for c in data.drawings if c in stamps - emoji]
        self.toned = [c for c, tones in data.drawings.items() if len([t for t in tones if t]) > 1]

    def step(self, count: int) -> list[Slot]:
        slots = []
        while len(slots) < count - int(count * TONED):
            if not self.queue:
                round_of = self.often + random.sample(self.seldom, len(self.seldom) // 4)
                self.queue = random.sample(round_of, len(round_of))
            concept = self.queue.pop()
            tones = list(self.data.drawings[concept])
            tone = "" if "" in tones and random.random() < 0.8 else random.choice(tones)
            slots.append(Slot(self.data, concept, tone, bool(tone) and random.random() < 0.5))
        for concept in random.sample(self.toned, int(count * TONED) // 2):
            for tone in random.sample([t for t in self.data.drawings[concept] if t], 2):
                slots.append(Slot(self.data, concept, tone, True))
        return slots


def encode(tokenizer: Tokenizer, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Ids padded with the end mark to the longest row, and where each row ends."""
    rows = [tokenizer.encode(caption, CAPTION_LENGTH) for caption in captions]
    length = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.end] * (length - len(row)) for row in rows])
    return ids, torch.tensor([len(row) - 1 for row in rows])


class Anchors(nn.Module):
    """One learnt direction per concept, for training only: what pictures and captions of a concept both turn to, away from all others."""

    def __init__(self, concepts: int):
        super().__init__()
        self.weight = nn.Parameter(0.05 * torch.randn(concepts, PROJECTION))

    def loss(self, features: Tensor, slots: list[Slot], scale: Tensor) -> Tensor:
        """features [n · C, P], n rows per slot: cross entropy among all concepts but those a caption also fits."""
        logits = scale * features @ F.normalize(self.weight, dim=-1).T
        also = torch.zeros(len(slots), len(self.weight), dtype=torch.bool)
        for i, slot in enumerate(slots):
            also[i, list(slot.fits - {slot.concept})] = True
        times = len(features) // len(slots)
        right = torch.tensor([slot.concept for slot in slots]).repeat_interleave(times)
        return F.cross_entropy(logits.masked_fill(also.repeat_interleave(times, 0), -1e4), right)


def loss(images: Tensor, texts: Tensor, scale: Tensor, slots: list[Slot]) -> Tensor:
    """images [2C, P] (slot 0 twice, slot 1 twice, …), texts [C, P]: cross entropy in both directions, over what can be told apart."""
    count = len(slots)
    unsure = torch.zeros(count, count, dtype=torch.bool)  # picture's slot, caption's slot: neither right nor wrong
    by_concept: dict[int, list[int]] = defaultdict(list)
    for i, slot in enumerate(slots):
        by_concept[slot.concept].append(i)
    for t, slot in enumerate(slots):
        for i in (i for concept in slot.fits & by_concept.keys() for i in by_concept[concept]):
            told_apart = slots[i].concept == slot.concept and slots[i].with_tone and slot.with_tone
            unsure[i, t] = i != t and not told_apart
    logits = (scale * images @ texts.T).masked_fill(unsure.repeat_interleave(2, 0), -1e4)
    own = torch.arange(count)
    of_text = logits.T.log_softmax(1).view(count, count, 2)[own, own]
    return 0.5 * F.cross_entropy(logits, own.repeat_interleave(2)) - 0.5 * of_text.mean()


@torch.no_grad()
def held_out(model: Clip, data: Data, tokenizer: Tokenizer) -> tuple[float, float]:
    """Top-1 and top-5 of the held-out drawings among all concepts' names, in percent."""
    features = [model.texts(*encode(tokenizer, [f"a photo of a {name}" for name in data.names[at : at + 256]])) for at in range(0, len(data.names), 256)]
    texts = torch.cat(features)
    images = torch.cat([model.images(upright(data.pixels[data.held[at : at + 128]], VISION["image_size"])) for at in range(0, len(data.held), 128)])
    right = torch.tensor([data.index[data.pictures[i]["concept"]] for i in data.held])
    best = (images @ texts.T).topk(5).indices == right[:, None]
    return best[:, 0].float().mean().item() * 100, best.any(1).float().mean().item() * 100


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("work", type=Path)
    options.add_argument("folder", type=Path)
    options.add_argument("--minutes", type=float, default=65)
    options.add_argument("--seed", type=int, default=3)
    options.add_argument("--concepts", type=int, default=64)
    options.add_argument("--rate", type=float, default=1.5e-3)
    args = options.parse_args()
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    torch.set_flush_denormal(True)
    data = Data(args.work)
    known = (args.folder / "merges.txt").exists()
    tokenizer = Tokenizer.load(args.folder) if known else Tokenizer.train(data.texts(), VOCABULARY)
    model, average = Clip(VOCABULARY), Clip(VOCABULARY)
    average.load_state_dict(model.state_dict())
    anchors = Anchors(len(data.names))
    turned = [p for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2]
    others = [p for name, p in model.named_parameters() if ".layers." not in name and p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": others, "weight_decay": DECAY}, {"params": [*plain, anchors.weight], "weight_decay": 0.0}]
    optimizers = [torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.98)), Muon(turned, lr=MUON * args.rate, weight_decay=DECAY)]
    sampler = Sampler(data)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(data.pictures)} drawings, {len(data.names)} concepts", flush=True)
    start, saved, step, total = time.time(), time.time(), 0, np.zeros(3)
    while (at := (time.time() - start) / (60 * args.minutes)) < 1:
        rate = args.rate * min(1.0, step / 150 + 0.003) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * at)))
        for optimizer, times in zip(optimizers, (1, MUON)):
            for group in optimizer.param_groups:
                group["lr"] = times * rate
        slots = sampler.step(args.concepts)
        chosen = torch.tensor([drawing for slot in slots for drawing in slot.drawings])
        pixels = augment(data.pixels[chosen], data.may_flip[chosen], VISION["image_size"])
        images = model.images(pixels)
        scale = model.logit_scale.clamp(max=math.log(100)).exp()
        texts = model.texts(*encode(tokenizer, [slot.caption for slot in slots]))
        values = loss(images, texts, scale, slots), anchors.loss(images, slots, scale), anchors.loss(texts, slots, scale)
        model.zero_grad(set_to_none=True)
        anchors.zero_grad(set_to_none=True)
        (values[0] + 0.5 * (values[1] + values[2])).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        keep = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), model.parameters()):
                mean.lerp_(now, 1 - keep)
        step, total = step + 1, total + np.array([v.item() for v in values])
        if step % 50 == 0:
            spent = time.time() - start
            print(f"{spent / 60:.1f} min, step {step}, {spent / step:.3f} s a step, losses {(total / 50).round(3)}, scale {model.logit_scale.exp():.1f}", flush=True)
            total = np.zeros(3)
        if time.time() - saved > 240:
            report(average, data, tokenizer, args.folder)
            saved = time.time()
    report(average, data, tokenizer, args.folder)


def report(average: Clip, data: Data, tokenizer: Tokenizer, folder: Path) -> None:
    first, fifth = held_out(average, data, tokenizer)
    print(f"held out, among all names: top-1 {first:.1f} %, top-5 {fifth:.1f} %", flush=True)
    export(average, tokenizer, folder, TEXT["max_position_embeddings"])


if __name__ == "__main__":
    main()
