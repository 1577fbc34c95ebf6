"""RetrievalModel: image encoder + text encoder + fusion, saved and loaded together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn

from ascl_plugin import registry
from ascl_plugin.asymmetry.embedding import generate_negatives
from ascl_plugin.distributed import gather, gather_features
from ascl_plugin.features import ImageFeatures, TextFeatures, concatenate, concatenate_places
from ascl_plugin.fusion import LateInteraction
from ascl_plugin.fusion.pooled import PooledSimilarity, unit
from ascl_plugin.interfaces import ComponentSpec, ImageEncoder, Scorer, TextEncoder
from ascl_plugin.retrieval.balanced_scores import BALANCED, balanced_scores
from ascl_plugin.retrieval.embed import (
    Picture,
    Ranked,
    best,
    embed_images,
    embed_texts,
    evaluating,
)
from ascl_plugin.retrieval.hard_pairs import (
    HardPairs,
    check_scorer,
    first_texts,
    score_hard_pairs,
)
from ascl_plugin.retrieval.input_norm import INPUT_NORMS, InputNorm, fit
from ascl_plugin.retrieval.lexical import LEXICAL, BagOfWords, LatentSemantics
from ascl_plugin.retrieval.raw_features import TEXT_INPUTS, raw_images, raw_texts, to_inputs
from ascl_plugin.retrieval.saved import SavedModel
from ascl_plugin.retrieval.text_pool import TEXT_POOLS, TextPool
from ascl_plugin.scoring.matrix import score_matrix
from ascl_plugin.shares import shares

NORMS = ("layer", "l2", "none")
PROJECTIONS = ("linear", "none")
TEXTS = ("", "negative_", "positive_", "positive_negative_")  # prefixes of a batch's texts


class RetrievalModel(SavedModel):
    """Encoders, projections to the joint width, and a fusion head that scores pairs.

    Every option is JSON. `save_pretrained` writes everything that `from_pretrained` needs except
    the weights of frozen encoders, which are loaded again by name.

    Args:
        image_encoder, text_encoder, fusion: `{"name": ..., **options}` for `registry.build`.
        dim: joint width D; passed to a fusion that takes `dim`.
        feature_norm: normalization of projected regions, words and pooled features: "layer" (zero
            mean, unit variance), "l2" (unit length) or "none". The papers only say "normalized".
        align_local_weight, align_direction_weight: u2 and u1 of the `LateInteraction` that aligns
            features before the fusion.
        image_dropout, text_dropout: dropout on the encoders' outputs, in training.
        input_norm: of the outputs of *frozen* encoders, before the dropout; a side whose encoder
            trains has none. "standard": each channel less the mean of the training features, over
            their deviation; "sqrt_standard": of signed square roots on the image side, "standard"
            on the text side. `fit_input_norm` comes first.
        text_pool: "none": the mean word stands for a text. Otherwise `TextFeatures.pooled` is a
            projection, with weights of its own, of the encoder's words as `TextPool` pools them.
        lexical: `{"kind": "bag", "vocabulary": [...], "word_dropout": 0.0}`: a `BagOfWords` is
            added to that projection; `{"kind": "lsa", "vocabulary": [...], "dim": 512}`: the
            vector of `LatentSemantics`, which are to be fitted first, follows the pooled words
            before it. Texts then come with `lexical_ids`. None: neither.
        projection: of pooled images and texts to the joint width: "linear", or "none" for a model
            of wholes whose encoders share a space already, of width `dim`. With `feature_norm`
            "none" and the towers of a CLIP, scores are then those of the bare model.

    Shapes:
        N pairs in, score blocks (N, N) out, N over all ranks; I images and T texts, (I, T).
    """

    def __init__(
        self,
        image_encoder: ComponentSpec,
        text_encoder: ComponentSpec,
        fusion: ComponentSpec | None = None,
        dim: int = 1024,
        feature_norm: str = "layer",
        align_local_weight: float = 1.0,
        align_direction_weight: float = 0.0,
        image_dropout: float = 0.0,
        text_dropout: float = 0.0,
        input_norm: str = "none",
        text_pool: str = "none",
        lexical: Mapping[str, Any] | None = None,
        projection: str = "linear",
    ) -> None:
        super().__init__()
        _check_choice("projection", projection, PROJECTIONS)
        _check_choice("input_norm", input_norm, INPUT_NORMS)
        _check_choice("text_pool", text_pool, TEXT_POOLS)
        if lexical is not None and text_pool == "none":
            raise ValueError("lexical adds to the pooled text: choose a text_pool, such as mean")
        for name, share in (("image_dropout", image_dropout), ("text_dropout", text_dropout)):
            if not 0 <= share < 1:
                raise ValueError(f"{name} must be in [0, 1), got {share}")
        _check_choice("feature_norm", feature_norm, NORMS)
        self.feature_norm = feature_norm
        self.image_encoder: ImageEncoder = _build("image_encoder", image_encoder)
        self.text_encoder: TextEncoder = _build("text_encoder", text_encoder)
        head = {"name": "cross_modal", **(fusion or {})}
        if "dim" in signature(registry.resolve("fusion", str(head["name"]))).parameters:
            head["dim"] = dim
        self.fusion: Scorer = _build("fusion", head)
        self.aligner = LateInteraction(align_local_weight, align_direction_weight)
        self.region_projection = nn.Linear(self.image_encoder.region_dim, dim)
        self.pooled_projection: nn.Module = nn.Linear(self.image_encoder.pooled_dim, dim)
        self.word_projection = nn.Linear(self.text_encoder.word_dim, dim)
        self.image_dropout = nn.Dropout(image_dropout)
        self.text_dropout = nn.Dropout(text_dropout)
        widths = {
            "region": self.image_encoder.region_dim,
            "pooled": self.image_encoder.pooled_dim,
            "word": self.text_encoder.word_dim,
        }
        self.text_pool: TextPool | None = None
        self.lexical: BagOfWords | LatentSemantics | None = None
        if lexical is not None:
            options = dict(lexical)
            kind = str(options.pop("kind", "bag"))
            _check_choice("lexical", kind, LEXICAL[1:])
            bag = kind == "bag"
            self.lexical = BagOfWords(**options, dim=dim) if bag else LatentSemantics(**options)
        if text_pool != "none":
            self.text_pool = TextPool(text_pool, self.text_encoder.word_dim)
            widths["text"] = self.text_pool.width
            if isinstance(self.lexical, LatentSemantics):
                widths["text"] += self.lexical.dim
            self.text_projection: nn.Module = nn.Linear(widths["text"], dim)
        if projection == "none":
            self._leave_unprojected(widths, dim)
        self.input_norms = nn.ModuleDict()
        if input_norm != "none":
            frozen = {
                "image": self.image_encoder.frozen, "text": self.text_encoder.frozen,
            }  # fmt: skip
            if not any(frozen.values()):
                raise ValueError(
                    f"input_norm {input_norm!r} is for frozen encoders; here both train"
                )
            if self.wholes_only:
                del widths["region"], widths["word"]
            for name, width in widths.items():
                side = "image" if name in ("region", "pooled") else "text"
                root = input_norm == "sqrt_standard" and side == "image"
                if frozen[side]:
                    self.input_norms[name] = InputNorm(width, root)

    def _leave_unprojected(self, widths: dict[str, int], dim: int) -> None:
        if not self.wholes_only:
            raise ValueError(
                "projection none is for models of wholes: --fusion pooled --fusion.image pooled "
                "and a text_pool"
            )
        image, text = widths["pooled"], widths["text"]
        if not image == text == dim:
            raise ValueError(
                "projection none needs pooled images, pooled texts and dim of one width, got "
                f"{image}, {text} and {dim}"
            )
        self.pooled_projection = self.text_projection = nn.Identity()

    def encode_images(self, batch: dict[str, Tensor]) -> ImageFeatures:
        """Return features of N images from `pixel_values`, or cached `regions` and `pooled`."""
        return self._encode_raw_images(raw_images(self.image_encoder, batch), not self.wholes_only)

    def _encode_raw_images(self, raw: ImageFeatures, with_regions: bool) -> ImageFeatures:
        assert raw.pooled is not None
        pooled = self.image_dropout(self._norm_inputs("pooled", raw.pooled))
        pooled = self._normalize(self.pooled_projection(pooled))
        if not with_regions:
            return ImageFeatures(pooled.unsqueeze(1), None, pooled)
        regions = self.image_dropout(self._norm_inputs("region", raw.regions))
        return ImageFeatures(self._normalize(self.region_projection(regions)), raw.mask, pooled)

    @property
    def wholes_only(self) -> bool:
        """True if scores need pooled features alone: these then stand for regions and words too."""
        pooled = isinstance(self.fusion, PooledSimilarity) and self.fusion.image == "pooled"
        return pooled and self.text_pool is not None

    @property
    def pool_words(self) -> Callable[[Tensor], Tensor] | None:
        """Function from a text's raw words (L, D_w) to what `TextPool` makes of them (width,).

        None without a `TextPool`, or if it learns.
        """
        pool = self.text_pool
        return None if pool is None or pool.kind == "gpo" else pool.of_text

    def encode_texts(self, batch: dict[str, Tensor], prefix: str = "") -> TextFeatures:
        """Return features of N texts from `input_ids` and `attention_mask`, or cached `words`.

        Args:
            batch: see `forward`.
            prefix: of the texts' keys.

        Raises:
            ValueError: a model with `lexical` got no `lexical_ids`.
        """
        ids = batch.get(f"{prefix}lexical_ids")
        return self._encode_raw(raw_texts(self.text_encoder, batch, prefix), ids)

    def _encode_raw(
        self, raw: TextFeatures, lexical_ids: Tensor | None, with_words: bool = True
    ) -> TextFeatures:
        if self.text_pool is None:
            return TextFeatures(self._words(raw), raw.mask)
        pooled = self._norm_inputs("text", self._pooled_text(raw, lexical_ids))
        pooled = self.text_projection(self.text_dropout(pooled))
        if isinstance(self.lexical, BagOfWords):
            pooled = pooled + self.lexical(_given(lexical_ids))
        pooled = self._normalize(pooled)
        if self.wholes_only or not with_words:
            return TextFeatures(pooled.unsqueeze(1), None, pooled)
        return TextFeatures(self._words(raw), raw.mask, pooled)

    def _encode_joined(
        self,
        raw: tuple[TextFeatures, TextFeatures],
        ids: tuple[Tensor, Tensor] | None,
        with_words: bool = True,
    ) -> TextFeatures:
        """Return features of texts of two captions each, of what the encoder made of each."""
        words = concatenate_places([raw[0], raw[1]])
        if self.text_pool is not None and raw[0].pooled is not None and raw[1].pooled is not None:
            words = replace(words, pooled=self.text_pool.joined(raw[0].pooled, raw[1].pooled))
        return self._encode_raw(words, None if ids is None else torch.cat(ids, 1), with_words)

    def _words(self, raw: TextFeatures) -> Tensor:
        words = self.text_dropout(self._norm_inputs("word", raw.words))
        return self._normalize(self.word_projection(words))

    def _pooled_text(self, raw: TextFeatures, lexical_ids: Tensor | None) -> Tensor:
        assert self.text_pool is not None
        pooled = self.text_pool(raw) if raw.pooled is None else raw.pooled
        if isinstance(self.lexical, LatentSemantics):
            pooled = torch.cat([pooled, self.lexical(_given(lexical_ids))], dim=1)
        return pooled

    def _pooled_once(self, raw: TextFeatures, with_words: bool = True) -> TextFeatures:
        """Return the texts with what the pooling makes of their words, for more than one use.

        Words that no score needs are left out: to pick and join them takes time and memory.
        """
        if self.text_pool is None or self.text_pool.kind == "gpo":
            return raw
        pooled = self.text_pool(raw) if raw.pooled is None else raw.pooled
        if self.wholes_only or not with_words:
            return TextFeatures(pooled.unsqueeze(1), None, pooled)
        return replace(raw, pooled=pooled)

    @property
    def lexical_ids(self) -> Callable[[Sequence[str]], Tensor] | None:
        """Function from T strings to `lexical_ids` (T, L), for `TextInputs`; None without a bag."""
        return None if self.lexical is None else self.lexical.ids

    @torch.no_grad()
    def fit_input_norm(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Take the statistics of `input_norm` from training batches, once before the first step.

        Every rank passes the same batches. Without `input_norm`, and in a model that was loaded
        with statistics, nothing happens.

        Args:
            batches: what `encode_images` and `encode_texts` take; images and texts may come apart.
                Regions and words count where they are real.

        Raises:
            ValueError: a value that is not finite; a side without any features.
        """
        if self.needs_input_norm:
            fit(self.input_norms, (self._observed(batch) for batch in batches))

    @property
    def needs_input_norm(self) -> bool:
        """True if `fit_input_norm` has to come before the first features."""
        return any(isinstance(x, InputNorm) and not x.fitted for x in self.input_norms.values())

    def _observed(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return raw vectors (any, D) by the names of `input_norms`."""
        batch, found = to_inputs(batch, self.region_projection.weight.device), {}
        if "pooled" in self.input_norms and ("pooled" in batch or "pixel_values" in batch):
            image = raw_images(self.image_encoder, batch)
            assert image.pooled is not None
            found = {"region": _real(image.regions, image.mask), "pooled": image.pooled}
        texts = self.input_norms.keys() & {"word", "text"}
        if texts and any(key in batch for key in TEXT_INPUTS):
            text = raw_texts(self.text_encoder, batch)
            found["word"] = _real(text.words, text.mask)
            if self.text_pool is not None:
                found["text"] = self._pooled_text(text, batch.get("lexical_ids"))
        return {name: vectors for name, vectors in found.items() if name in self.input_norms}

    def _norm_inputs(self, name: str, x: Tensor) -> Tensor:
        return self.input_norms[name](x) if name in self.input_norms else x

    def forward(
        self,
        batch: dict[str, Tensor],
        negatives: str = "mixture",
        strength: float | None = None,
        align: bool = False,
        hard_pairs: HardPairs | None = None,
    ) -> dict[str, Tensor]:
        """Return score blocks over the pairs of all ranks. Collective.

        Each rank scores its own images against all texts; rows are gathered with gradients.

        Args:
            batch: this rank's batch, from `AsymmetryCollator`.
            negatives, strength: see `generate_negatives`; used if the batch has seeds. Negatives
                that it has as texts ("insert") are encoded like any other.
            align: score by late interaction instead of the fusion.
            hard_pairs: if given, the plain part of the fusion scores all pairs alone; `hard_sim`
                has the chosen ones by the whole, of each chosen image and its first text, and -inf
                elsewhere; see `score_hard_pairs`.

        Returns:
            `sim` and, if the batch has what they need, `negative_sim`, `positive_sim`,
            `positive_negative_sim`: (N, N) each, the inputs of `AsymmetryLoss`. If the batch has
            `image_of_text`, they are (I, T), and `targets` (T,) int64 has each text's image. If it
            has balanced pairs, `balanced_sim` (n, 2, 2): see `balanced_scores`.
        """
        if hard_pairs is not None and not align:
            blocks = self._score_hard(batch, hard_pairs)
        else:
            blocks = self.score_blocks(*self.encode(batch), batch, negatives, strength, align)
        return blocks | self.score_balanced(batch, align)

    def score_balanced(self, batch: dict[str, Tensor], align: bool) -> dict[str, Tensor]:
        """Return `balanced_sim` of `forward`, if the batch has balanced pairs. Collective."""
        pairs = {k.removeprefix(BALANCED): v for k, v in batch.items() if k.startswith(BALANCED)}
        if not pairs:
            return {}
        images, texts = self.encode_images(pairs), self.encode_texts(pairs)
        scorer = self.aligner if align else self.fusion
        return {"balanced_sim": gather(balanced_scores(scorer, images, texts))}

    def encode(self, batch: dict[str, Tensor]) -> tuple[ImageFeatures, dict[str, TextFeatures]]:
        """Return the features of images, and of each kind in `TEXTS` that the batch has."""
        images = self.encode_images(batch)
        there = [p for p in TEXTS if any(f"{p}{key}" in batch for key in TEXT_INPUTS)]
        raw = {prefix: raw_texts(self.text_encoder, batch, prefix) for prefix in there}
        return images, self._encode_kinds(raw, batch)

    def _encode_kinds(
        self, raw: dict[str, TextFeatures], batch: dict[str, Tensor], with_words: bool = True
    ) -> dict[str, TextFeatures]:
        """Return features of the texts of each kind, and with `partner` of joined captions."""
        raw = {prefix: self._pooled_once(texts, with_words) for prefix, texts in raw.items()}
        ids = {prefix: batch.get(f"{prefix}lexical_ids") for prefix in raw}
        found = {p: self._encode_raw(raw[p], ids[p], with_words) for p in raw}
        if "partner" in batch:
            partner = batch["partner"]
            for prefix in [p for p in raw if p in ("", "negative_")]:
                own, other = ids[prefix], ids[""]
                both = None if own is None or other is None else (own, other[partner])
                texts = raw[prefix], raw[""][partner]
                found[f"positive_{prefix}"] = self._encode_joined(texts, both, with_words)
        return found

    def _score_hard(self, batch: dict[str, Tensor], chosen: HardPairs) -> dict[str, Tensor]:
        scorer = check_scorer(self.fusion)
        raw = raw_images(self.image_encoder, batch)
        wholes = self._encode_raw_images(raw, with_regions=False)
        captions, ids = (
            self._pooled_once(raw_texts(self.text_encoder, batch)),
            batch.get("lexical_ids"),
        )
        texts = self._encode_kinds({"": captions}, batch, with_words=self.text_pool is None)
        blocks = {
            f"{prefix}sim": gather(scorer.plain_scores(wholes, gather_features(of_kind)))
            for prefix, of_kind in texts.items()
        }
        some = torch.arange(len(wholes), device=wholes.regions.device)
        first = first_texts(batch["image_of_text"]) if "image_of_text" in batch else some
        if "image_of_text" in batch:
            blocks["targets"] = self._targets(batch, len(wholes))
        some = some[
            -shares("own", len(wholes), some.device).own.start % chosen.every :: chosen.every
        ]
        own = first[some]
        hard = score_hard_pairs(
            scorer,
            self._encode_raw_images(raw[some], with_regions=True),
            self._encode_raw(captions[own], None if ids is None else ids[own]),
            chosen.hardest,
            chosen.others,
        )
        return blocks | {"hard_sim": hard}

    @staticmethod
    def _targets(batch: dict[str, Tensor], images: int) -> Tensor:
        index = batch["image_of_text"]
        return gather(index + shares("own", images, index.device).own.start)

    def embed_images(
        self, images: Sequence[Picture], batch_size: int = 32, progress: bool = False
    ) -> ImageFeatures:
        """Return features of N pictures, for `score`, on the CPU; dropout is off.

        Args:
            images: paths, PIL images, or uint8 arrays (height, width, 3) or (height, width).
            batch_size: pictures encoded at once.
            progress: show a bar.

        Raises:
            FileNotFoundError, ValueError: a picture that is not there or does not decode; the
                message names it.
            TypeError: something else than a picture.
        """
        return embed_images(self, images, batch_size, progress)

    def embed_texts(
        self, texts: Sequence[str], batch_size: int = 64, progress: bool = False
    ) -> TextFeatures:
        """Return features of N texts, for `score`, on the CPU; dropout is off."""
        return embed_texts(self, texts, batch_size, progress)

    def score(
        self, images: ImageFeatures | Sequence[Picture], texts: TextFeatures | Sequence[str]
    ) -> Tensor:
        """Return scores (I, T), on the CPU, of pictures and texts, or of their features."""
        if not isinstance(images, ImageFeatures):
            images = self.embed_images(images)
        if not isinstance(texts, TextFeatures):
            texts = self.embed_texts(texts)
        with evaluating(self):
            return score_matrix(self, images, texts)

    def rank(
        self,
        query: str | Picture,
        documents: Sequence[str] | Sequence[Picture],
        top_k: int | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> list[Ranked]:
        """Return `{"corpus_id", "score"}` of the best documents, the highest score first.

        The convention of sentence-transformers' `CrossEncoder.rank`, in both directions.

        Args:
            query: a text, to rank pictures by; or a picture, to rank texts by. A string is a text:
                give the path of a picture as a `Path`.
            documents: pictures, or texts. `corpus_id` is the place in them.
            top_k: number of results; None: all.
            batch_size, progress: see `embed_images`.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        if isinstance(query, str):
            found = self.embed_images(cast(Sequence[Picture], documents), batch_size, progress)
            scores = self.score(found, [query])[:, 0]
        else:
            texts = self.embed_texts(cast(Sequence[str], documents), batch_size, progress)
            scores = self.score([query], texts)[0]
        return best(scores, top_k)

    def score_blocks(
        self,
        images: ImageFeatures,
        texts: dict[str, TextFeatures],
        batch: dict[str, Tensor],
        negatives: str = "mixture",
        strength: float | None = None,
        align: bool = False,
    ) -> dict[str, Tensor]:
        """Return the score blocks of `forward`, of the features that `encode` returned."""
        scorer = self.aligner if align else self.fusion
        groups: dict[str, TextFeatures] = {}
        for prefix in ("", "positive_"):
            if prefix not in texts:
                continue
            groups[f"{prefix}sim"] = gather_features(texts[prefix])
            if f"{prefix}negative_" in texts:
                inserted = texts[f"{prefix}negative_"]
                groups[f"{prefix}negative_sim"] = gather_features(inserted)
            elif f"{prefix}noise_seed" in batch:
                seeds = batch[f"{prefix}noise_seed"]
                noisy = generate_negatives(texts[prefix], seeds, negatives, strength)
                groups[f"{prefix}negative_sim"] = gather_features(noisy)
        # all texts in one call: images are prepared once
        scores = gather(scorer(images, concatenate(list(groups.values()))))
        each = scores.shape[1] // len(groups)
        blocks = dict(zip(groups, scores.split(each, dim=1), strict=True))
        if "image_of_text" in batch:
            blocks["targets"] = self._targets(batch, len(images))
        return blocks

    def _normalize(self, x: Tensor) -> Tensor:
        if self.feature_norm == "layer":
            return nn.functional.layer_norm(x, x.shape[-1:])
        return unit(x) if self.feature_norm == "l2" else x


def _build(kind: str, spec: ComponentSpec) -> Any:
    options = dict(spec)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"{kind}: expected {{'name': ..., **options}}, got {repr(spec)[:80]}")
    return registry.build(kind, name, **options)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _given(lexical_ids: Tensor | None) -> Tensor:
    if lexical_ids is None:
        raise ValueError(
            "the batch lacks lexical_ids: make it by TextInputs(..., lexical=model.lexical_ids)"
        )
    return lexical_ids


def _real(values: Tensor, mask: Tensor | None) -> Tensor:
    return values.flatten(0, 1) if mask is None else values[mask]


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of (trained, frozen) parameters."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained, sum(p.numel() for p in model.parameters()) - trained
