"""The Wan diffusion transformer, one network for the whole family.

SkyReels-V2 (text, image, diffusion forcing, fps), SkyReels-V3 (references, extension, avatar) and Wan2.2
(A14B experts, TI2V-5B) are this one network with different configs. What is notable about it:

* Tokens stay grouped by latent frame, ``[B, F, S, D]``. A noise level belongs to a frame, so modulation is
  ``[B, F, 1, D]`` (``F`` is 1 when all frames share one level) and broadcasts over the tokens of its frame.
* Positions are integers handed in by the caller; nothing is tabulated, so any temporal start is legal.
* The time MLP runs once per distinct noise level.
* Parameters carry diffusers' Wan names, so Wan LoRAs, diffusers-layout checkpoints, offloading, layerwise
  casting, regional compilation, step caches and context parallelism from diffusers work unchanged.

Shapes: B batch, C latent channels, F latent frames, h/w latent height/width, S = h/2 * w/2 tokens per frame,
L = F * S tokens, D width, N heads, K = D / N head width, T text tokens, I image tokens, A audio tokens per
frame.

Source: specs skyreels_v3 section 6, skyreels_v2 section 5, wan22 section 9, talking_avatar section 6.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from diffusers import ModelMixin  # noqa: F401 - where diffusers' loader of a saved pipeline looks for it
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.loaders import FromOriginalModelMixin, PeftAdapterMixin
from diffusers.loaders.single_file_utils import _extract_repo_id_and_weights_name
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention import AttentionMixin, FeedForward
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.normalization import FP32LayerNorm
from diffusers.utils import apply_lora_scale
from diffusers.utils.hub_utils import _get_model_file
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from videogen.models.attention import Spans
from videogen.models.interface import Network, TokenAxis, TokenPlan
from videogen.models.kernels import operators
from videogen.models.loader_options import DOWNLOADS, check_options, dtype_of, one_device
from videogen.models.wan.attention import (
    KeysValues,
    Speech,
    WanAttention,
    WanAudioAttention,
    causal_spans,
    speaker_regions,
)
from videogen.models.wan.embedders import WanAudioProjection, WanConditionEmbedder, WanRotaryEmbed
from videogen.models.wan.saved_config import for_diffusers

# Kept in float32 whatever the compute dtype: noise levels, modulation, norms.
FLOAT32_PARTS = ["time_embedder", "time_proj", "scale_shift_table", "norm1", "norm2", "norm3", "norm_x"]


class WanFeedForward(FeedForward):
    """Linear, tanh-GELU, linear; without gradients the activation is computed in place."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        widen, _, narrow = self.net
        gelu = functional.gelu if torch.is_grad_enabled() else torch.ops.aten.gelu_
        return narrow(gelu(widen.proj(hidden_states), approximate="tanh"))


class WanLayerNorm(FP32LayerNorm):
    """Layer norm in float32, fused with the residual before it and the modulation after it."""

    def forward(
        self,
        x: Tensor,
        *,
        update: Tensor | None = None,
        gate: Tensor | None = None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (x + gate * update, its norm * (1 + scale) + shift), both like x [B, F, S, D].

        Gate, scale and shift [B, F or 1, 1, D] may be None; without ``update`` [..., D], x itself is
        returned. A norm with weights of its own is not modulated.
        """
        norm = (
            (scale, shift, 1.0, self.eps) if self.weight is None else (self.weight, self.bias, 0.0, self.eps)
        )
        if update is None:
            return x, operators.layer_norm(x, *norm)
        return operators.add_layer_norm(x, update.view_as(x), gate, *norm)


class WanBlock(nn.Module):
    """Transformer block: self-, cross- and (if configured) audio attention, then feed-forward."""

    def __init__(
        self, dim: int, ffn_dim: int, heads: int, eps: float, image_dim: int | None, audio_dim: int | None
    ) -> None:
        super().__init__()
        self.norm1 = WanLayerNorm(dim, eps, elementwise_affine=False)
        self.attn1 = WanAttention(dim, heads, eps)
        self.norm2 = WanLayerNorm(dim, eps)
        self.attn2 = WanAttention(dim, heads, eps, image_dim, is_cross_attention=True)
        if audio_dim is not None:
            self.norm_x = WanLayerNorm(dim, eps)
            self.audio_cross_attn = WanAudioAttention(dim, heads, audio_dim)
        self.norm3 = WanLayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = WanFeedForward(dim, inner_dim=ffn_dim, activation_fn="gelu-approximate")
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | KeysValues,
        temb: Tensor,
        rotary_emb: Tensor,
        image_states: Tensor | KeysValues | None = None,
        speech: Speech | None = None,
        spans: Spans | None = None,
    ) -> Tensor:
        """Transform tokens [B, F, S, D]; text [B, T, D], temb [B, F or 1, 6, D], rotary_emb [L, 1, K/2, 2].

        Text and image may be given as keys and values of ``attn2``.
        """
        table = self.scale_shift_table + temb
        shift_attn, scale_attn, gate_attn, shift_ffn, scale_ffn, gate_ffn = table.chunk(6, dim=-2)
        x, shares = hidden_states, None
        _, normed = self.norm1(x, scale=scale_attn, shift=shift_attn)
        normed = normed.flatten(1, 2)
        if speech is not None and speech.regions is not None:
            shares = self.attn1.shares(normed, rotary_emb, speech.regions)
        # Updates get no names, so that they are freed at once.
        x, normed = self.norm2(x, update=self.attn1(normed, None, rotary_emb, None, spans), gate=gate_attn)
        update = self.attn2(normed.flatten(1, 2), encoder_hidden_states, image_states=image_states)
        if speech is not None:
            x, normed = self.norm_x(x, update=update)
            del update
            update = self.audio_cross_attn(normed, speech.tokens, shares)
        x, normed = self.norm3(x, update=update, scale=scale_ffn, shift=shift_ffn)
        del update
        return operators.gated_add(x, self.ffn(normed), gate_ffn)


TransformerBlockRegistry.register(
    WanBlock, TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None)
)


class WanBlocks(nn.ModuleList):
    """Stack of all blocks; a step cache hooks in here to skip them."""

    def forward(
        self,
        hidden_states: Tensor,
        text: Tensor | list[KeysValues],
        temb: Tensor,
        rotary_emb: Tensor,
        image: Tensor | list[KeysValues] | None = None,
        speech: Speech | None = None,
        spans: Spans | None = None,
        checkpoint: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """Run all blocks with ``WanBlock.forward``'s arguments; text and image may be given per block.

        ``checkpoint``: (block, its arguments) -> its result, without keeping what is between.
        """
        for index, block in enumerate(self):
            own = (context[index] if isinstance(context, list) else context for context in (text, image))
            inputs = (hidden_states, next(own), temb, rotary_emb, next(own), speech, spans)
            hidden_states = block(*inputs) if checkpoint is None else checkpoint(block, *inputs)
        return hidden_states

    def text_keys_values(self, text: Tensor) -> list[KeysValues]:
        """Return every block's keys and values of text [B, T, D]."""
        return [block.attn2.keys_values(text) for block in cast(Iterable[WanBlock], self)]

    def image_keys_values(self, image: Tensor) -> list[KeysValues]:
        """Return every block's keys and values of image tokens [B, I, D]."""
        return [block.attn2.image_keys_values(image) for block in cast(Iterable[WanBlock], self)]


class WanDiT(Network, ConfigMixin, PeftAdapterMixin, FromOriginalModelMixin, AttentionMixin):
    """The Wan transformer; optional parts exist if the config gives their width.

    Args:
        patch_size: (frames, rows, columns) of a token; the family uses (1, 2, 2).
        in_channels: latent channels plus, for image-conditioned models, the 20 mask and image channels.
        out_channels: latent channels of the prediction; None: ``in_channels``.
        image_dim: width of CLIP image features; adds their embedding.
        added_kv_proj_dim: width of the image tokens (D); adds attention to them. Without it, the attention to
            the text is to them too.
        pos_embed_seq_len: tokens of a first and a last image, whose positions are learned.
        inject_sample_info: adds the embedding of the frame-rate class (0: 16 fps, 1: any other).
        audio_dim: width of the audio tokens; adds audio cross-attention. ``audio_window`` windows of
            ``audio_features`` (layers x channels) each become ``audio_tokens`` tokens per latent frame.

    Raises:
        ValueError: ``added_kv_proj_dim`` without ``image_dim``, or another than D.
    """

    _supports_gradient_checkpointing = True
    read_file: ClassVar[Callable[..., "WanDiT"]]  # set by models/components.py
    _skip_layerwise_casting_patterns: ClassVar = ["patch_embedding", "condition_embedder", "norm"]
    _no_split_modules: ClassVar = ["WanBlock"]
    _repeated_blocks: ClassVar = ["WanBlock"]
    _keep_in_fp32_modules: ClassVar = FLOAT32_PARTS
    _cp_plan: ClassVar = {  # ranks share the tokens of every frame
        "rope": {0: ContextParallelInput(split_dim=1, expected_dims=4, split_output=True)},
        "blocks": {"hidden_states": ContextParallelInput(split_dim=2, expected_dims=4)},
        "proj_out": ContextParallelOutput(gather_dim=2, expected_dims=4),
    }
    token_plan: ClassVar = TokenPlan(  # the same for our own sharding, which pads
        positions=("rope", TokenAxis(1)),
        inputs=("blocks", {0: TokenAxis(2)}),
        head=("proj_out", TokenAxis(2)),
    )
    extrapolated_layers: ClassVar = [r"blocks\.\d+\.(attn1|attn2|audio_cross_attn|ffn)"]

    @register_to_config
    def __init__(  # noqa: PLR0913, PLR0917 - diffusers keeps a model's config as its keyword arguments
        self,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int | None = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        pos_embed_seq_len: int | None = None,
        inject_sample_info: bool = False,
        audio_dim: int | None = None,
        audio_window: int = 5,
        audio_features: int = 12 * 768,
        audio_hidden_dim: int = 512,
        audio_tokens: int = 32,
        audio_stride: int = 4,
    ) -> None:
        super().__init__()
        dim = num_attention_heads * attention_head_dim
        if added_kv_proj_dim not in (None, None if image_dim is None else dim):
            needed = f"{dim}, the width of the image tokens" if image_dim else "None without image_dim"
            raise ValueError(f"added_kv_proj_dim={added_kv_proj_dim}: must be {needed}")
        self.gradient_checkpointing = False
        self.rope = WanRotaryEmbed(attention_head_dim)
        self.patch_embedding = nn.Conv3d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.condition_embedder = WanConditionEmbedder(dim, freq_dim, text_dim, image_dim, pos_embed_seq_len)
        if inject_sample_info:
            self.fps_embedding = nn.Embedding(2, dim)
            self.fps_projection = FeedForward(dim, dim_out=6 * dim, mult=1, activation_fn="linear-silu")
        if audio_dim is not None:
            self.audio_proj = WanAudioProjection(
                window=audio_window,
                features=audio_features,
                hidden=audio_hidden_dim,
                tokens=audio_tokens,
                audio_dim=audio_dim,
                stride=audio_stride,
            )
        self.blocks = WanBlocks(
            WanBlock(dim, ffn_dim, num_attention_heads, eps, added_kv_proj_dim, audio_dim)
            for _ in range(num_layers)
        )
        self.norm_out = WanLayerNorm(dim, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(dim, (out_channels or in_channels) * math.prod(patch_size))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)

    @classmethod
    def from_single_file(
        cls,
        pretrained_model_link_or_path_or_dict: str | Path | Mapping[str, Tensor],
        torch_dtype: torch.dtype | str = torch.bfloat16,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        config: str | Path | None = None,
        subfolder: str | None = None,
        **hub: Any,
    ) -> "WanDiT":
        """Load a transformer from one weight file, as diffusers does; its config is read off its tensors.

        Args:
            pretrained_model_link_or_path_or_dict: file, folder of shards, link to a file on the hub, or a
                state dict; under the published names or diffusers'.
            torch_dtype: of the large weights, or ``dtype``; what is always float32 stays so.
            device: None is the CPU, where weights stay mapped if their dtype fits; or ``device_map``.
            config: folder or hub id with a ``config.json`` (in ``subfolder``), for heads not 128 wide.
            subfolder: folder of ``config``.
            hub: diffusers' arguments for downloads, ``token``, ``revision``, ``cache_dir`` and so on.

        Raises:
            CallError, CheckpointError: an unknown argument, an unreadable file, other tensors than these.
        """
        device = one_device(hub.pop("device_map", None)) or device
        hub = check_options("from_single_file", hub, DOWNLOADS)
        source, target = pretrained_model_link_or_path_or_dict, device and torch.device(device)
        if isinstance(source, str) and source.startswith("https://"):
            repository, name = _extract_repo_id_and_weights_name(source)
            source = _get_model_file(repository, weights_name=name, **hub)
        said = {} if config is None else cls.load_config(config, subfolder=subfolder, **hub)
        return cls.read_file(source, dtype_of(dtype or torch_dtype), target, said)

    def to_json_string(self) -> str:
        """Return the config as JSON, as diffusers' class says it where that can hold the model too."""
        return for_diffusers(super().to_json_string())

    def context_embedders(self) -> list[nn.Module]:
        """Return the embedders of text and, where there is one, of the image."""
        embedder = self.condition_embedder
        image = getattr(embedder, "image_embedder", None)
        return [embedder.text_embedder] if image is None else [embedder.text_embedder, image]

    def token_sections(self, inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
        """Return the frames and the tokens of each; two speakers cannot be sharded."""
        assert inputs.get("speaker_masks") is None
        frames, height, width = inputs["hidden_states"].shape[2:]
        _, rows, columns = self.config.patch_size
        return [(frames, height // rows * (width // columns))]

    def _speech(self, windows: Tensor, batch: int, regions: Tensor | None) -> Speech:
        """Project windows of audio features; the tokens of two speakers come one after the other."""
        return Speech(rearrange(self.audio_proj(windows), "(b p) f a d -> b f (p a) d", b=batch), regions)

    def _context(self, text: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Embed text and image; without weights of its own the image is read as the beginning of the text."""
        text = self.condition_embedder.text_embedder(text)
        if image is None:
            return text, None
        image = self.condition_embedder.image_embedder(image)
        if self.config.added_kv_proj_dim is None:
            return torch.cat([image, text], dim=1), None
        return text, image

    @apply_lora_scale("attention_kwargs")
    def forward(  # noqa: PLR0913, PLR0917 - the conditions of the whole family, under diffusers' names
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        encoder_hidden_states_audio: Tensor | None = None,
        fps: Tensor | None = None,
        frame_positions: Tensor | None = None,
        visible_frames: Sequence[int] | Tensor | None = None,
        speaker_masks: Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,  # noqa: ARG002 - read by the decorator
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict the velocity of every latent frame.

        Args:
            hidden_states: latents [B, C, F, h, w]; h and w even.
            timestep: noise level in 0..1000, [B] for all frames alike or [B, F] per frame.
            encoder_hidden_states: text [B, T, text_dim], all rows attended (zero padding included).
            encoder_hidden_states_image: CLIP features [B, I, image_dim].
            encoder_hidden_states_audio: feature windows [B, 4(F-1)+1, window, layers, channels]; of two
                speakers [2B, ...], one after the other.
            fps: frame-rate class [B], for models with ``inject_sample_info``.
            frame_positions: temporal position of every frame [F], best on the CPU; default 0..F-1.
            visible_frames: how many frames, from the first on, every frame attends to; default all.
            speaker_masks: masks of the two speakers, and of neither, in the first frame [3, h, w].
            return_dict: False returns the tuple (velocity,).
            attention_kwargs: ``{"scale": s}`` scales loaded LoRA layers, as in diffusers.

        Returns:
            velocity [B, out_channels, F, h, w] in the dtype of ``hidden_states``.
        """
        _, rows, columns = self.config.patch_size
        frames, height, width = hidden_states.shape[2:]
        grid = (height // rows, width // columns)
        positions = torch.arange(frames) if frame_positions is None else frame_positions
        rotary_emb = (
            self.rope(positions, *grid, hidden_states.device).flatten(0, 1).unsqueeze(1)
        )  # [L, 1, K/2, 2]

        embedding, temb = self.condition_embedder(timestep if timestep.ndim > 1 else timestep[:, None])
        if fps is not None:
            rate = self.fps_projection(self.fps_embedding(fps))
            temb = temb + rearrange(rate.float(), "b (m d) -> b 1 m d", m=6)
        text, image = self._context(encoder_hidden_states, encoder_hidden_states_image)
        regions = None if speaker_masks is None else speaker_regions(speaker_masks, *grid)
        audio = encoder_hidden_states_audio
        speech = None if audio is None else self._speech(audio, len(hidden_states), regions)

        x = rearrange(self.patch_embedding(hidden_states), "b d f r c -> b f (r c) d").contiguous()
        spans = None if visible_frames is None else causal_spans(visible_frames, x.shape[2])
        keeps_little = self.gradient_checkpointing and torch.is_grad_enabled()
        checkpoint = self._gradient_checkpointing_func if keeps_little else None
        x = self.blocks(x, text, temb, rotary_emb, image, speech, spans, checkpoint)

        shift, scale = (self.scale_shift_table + embedding.unsqueeze(-2)).chunk(2, dim=-2)
        x = self.proj_out(self.norm_out(x, scale=scale, shift=shift)[1])
        sample = rearrange(x, "b f (r c) (q p ch) -> b ch f (r q) (c p)", r=grid[0], q=rows, p=columns)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)
