"""The vision tower of s2 and of clip: patches, positions, blocks, attention pooling; no norm after the last block.

Shapes: B videos, T frames, N patches (T/tubelet * H * W), K kept patches, C width, P pooled width, A decoders.
Upstream has two classes for this (PretrainInternVideo2 for s2, InternVideo2 for clip); one with numbers will do.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ivcore.errors import UserError
from ivcore.models import position_embedding
from ivcore.models.dimensions import VisionShape
from ivcore.models.layers import AttentionPool, Block, Decoder


class PatchEmbed(nn.Module):
    """Cuts a video into patches and maps each to C channels; the weights are upstream's 3-D convolution."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        kernel = (shape.tubelet_size, shape.patch_size, shape.patch_size)
        self.proj = nn.Conv3d(3, shape.width, kernel_size=kernel, stride=kernel)

    def forward(self, video: Tensor) -> Tensor:
        """[B, T, 3, H, W] -> [B, T/tubelet, H*W/patch^2, C], in the weight's dtype."""
        # A convolution whose stride is its kernel is a matrix product over the cut patches, and faster as one.
        t, h, w = self.proj.kernel_size
        x = video.to(self.proj.weight.dtype).transpose(1, 2)  # [B, 3, T, H, W]
        x = x.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))  # [B, 3, T', t, H', h, W', w]
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(2, 3)  # [B, T', H'*W', 3*t*h*w]
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias)


class VisionTower(nn.Module):
    """Video -> tokens [B, 1+K, C] -> pooled [B, P]."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = PatchEmbed(shape)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        num_t, num_h, num_w = shape.grid
        num_slots = 1 + shape.num_patches
        if shape.split_table:
            self.pos_embed_spatial = nn.Parameter(torch.zeros(1, num_h * num_w, shape.width))
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, num_t, shape.width))
            self.pos_embed_cls = nn.Parameter(torch.zeros(1, 1, shape.width))
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, num_slots, shape.width))
        if shape.image_table:
            self.img_pos_embed = nn.Parameter(torch.zeros(1, 1 + num_h * num_w, shape.width))
        if shape.num_decoders:
            self.clip_pos_embed = nn.Parameter(torch.zeros(1, num_slots, shape.width))
            if shape.image_table:
                self.clip_img_pos_embed = nn.Parameter(torch.zeros(1, 1 + num_h * num_w, shape.width))
        rates = [shape.drop_path * i / max(1, shape.depth - 1) for i in range(shape.depth)]
        self.blocks = nn.ModuleList(
            Block(
                shape.width,
                shape.num_heads,
                shape.mlp_hidden,
                shape.gelu,
                shape.layer_scale_init,
                shape.layer_scale_fp32,
                rate,
            )
            for rate in rates
        )
        self.clip_projector = AttentionPool(shape.width, shape.pool_heads, shape.pool_width)
        if shape.num_decoders:
            self.clip_decoder = nn.ModuleList(
                Decoder(shape.width, shape.decoder_width) for _ in range(shape.num_decoders)
            )
            self.final_clip_decoder = Decoder(shape.pool_width, shape.final_decoder_width)

    def forward(self, video: Tensor, drop: Tensor | None = None) -> Tensor:
        """Tokens of the last block.

        Args:
            video: float [B, T, 3, H, W], normalised. T is the table's number of frames, or one time step (an image).
            drop: bool [B, 1+N], True = leave this token out; the same number in each row, never the class token. Or
                int64 [B, 1+K], the tokens that stay, in growing order: nothing is read back from the device for it.

        Returns:
            [B, 1+K, C] in the order of the patches: class token first, then frame by frame, row by row.

        Raises:
            ValueError: if frames, pixels or the mask do not fit the tower.
        """
        x = self.embed(video, drop)
        for i in range(len(self.blocks)):
            x = self._run(i, x)
        return x

    def pool(self, tokens: Tensor) -> Tensor:
        """[B, 1+K, C] -> [B, P], not normalised."""
        return self.clip_projector(tokens)

    @torch.no_grad()
    def take_frames(self, num_frames: int) -> None:
        """Read this many frames from now on; the position tables are resized over time, as upstream does at loading.

        Raises:
            UserError: if the tubelet does not divide them, or time has a table of its own.
        """
        new = dataclasses.replace(self.shape, num_frames=num_frames)
        if num_frames == self.shape.num_frames:
            return
        if new.split_table:
            raise UserError(f"a tower with split tables takes its own {self.shape.num_frames} frames, not {num_frames}")
        for name in ("pos_embed", "clip_pos_embed"):
            if hasattr(self, name):
                table = position_embedding.resize(getattr(self, name), self.shape.grid, new.grid)
                setattr(self, name, nn.Parameter(table, requires_grad=getattr(self, name).requires_grad))
        self.shape = new

    def states(self, video: Tensor, drop: Tensor | None = None) -> list[Tensor]:
        """The tokens after each block, `depth` times [B, 1+K, C]."""
        x = self.embed(video, drop)
        found = []
        for i in range(len(self.blocks)):
            x = self._run(i, x)
            found.append(x)
        return found

    def align(self, video: Tensor, drop: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the alignment decoders say, for distillation only: ([A, B, 1+K, decoder_width], [B, final width]).

        Raises:
            ValueError: if the tower was built without decoders.
        """
        if not self.shape.num_decoders:
            raise ValueError("this tower has no alignment decoders (num_decoders = 0)")
        states = self.states(video, drop)
        table = _keep(self._decoder_table(is_image=self._is_image(video)).expand(len(video), -1, -1), drop)
        first = self.shape.depth - 1 - (self.shape.num_decoders - 1) * self.shape.decoder_interval
        inputs = states[first :: self.shape.decoder_interval]  # decoder 0 reads the shallowest
        middle = torch.stack([decoder(x + table) for decoder, x in zip(self.clip_decoder, inputs, strict=True)])
        return middle, self.final_clip_decoder(self.pool(states[-1]))

    def embed(self, video: Tensor, drop: Tensor | None = None) -> Tensor:
        """Patches with class token and positions, before the first block: [B, T, 3, H, W] -> [B, 1+K, C]."""
        if video.shape[1] == 1:  # one frame stands for a whole time step
            video = video.expand(-1, self.shape.tubelet_size, -1, -1, -1)
        self._check_video(video)
        patches = self.patch_embed(video).flatten(1, 2)  # [B, N, C]
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)  # [B, 1+N, C]
        x = x + self._table(is_image=self._is_image(video))
        return _keep(x, drop)  # [B, 1+K, C]

    def _run(self, i: int, x: Tensor) -> Tensor:
        if self.training and i < self.shape.checkpoint_blocks and torch.is_grad_enabled():
            return checkpoint(self.blocks[i], x, use_reentrant=False)
        return self.blocks[i](x)

    def _table(self, is_image: bool) -> Tensor:
        if self.shape.split_table:
            num_t, num_h, num_w = self.shape.grid
            patches: Tensor = self.pos_embed_spatial  # an image takes space alone
            if not is_image:
                over_time = self.pos_embed_temporal.repeat_interleave(num_h * num_w, dim=1)  # [1, N, C]
                patches = patches.repeat(1, num_t, 1) + over_time  # [1, N, C]
            return torch.cat([self.pos_embed_cls, patches], dim=1)
        if is_image:
            return self.img_pos_embed if self.shape.image_table else self._over_time(self.pos_embed)
        return self.pos_embed

    def _decoder_table(self, is_image: bool) -> Tensor:
        if is_image:
            return self.clip_img_pos_embed if self.shape.image_table else self._over_time(self.clip_pos_embed)
        return self.clip_pos_embed

    def _over_time(self, table: Tensor) -> Tensor:
        return position_embedding.image_table(table, self.shape.grid)

    def _is_image(self, video: Tensor) -> bool:
        return video.shape[1] == self.shape.tubelet_size and (self.shape.image_table or self.shape.grid[0] > 1)

    def _check_video(self, video: Tensor) -> None:
        shape = self.shape
        size = shape.image_size
        if video.ndim != 5 or tuple(video.shape[2:]) != (3, size, size):
            raise ValueError(f"a video is [B, T, 3, {size}, {size}], got {list(video.shape)}")
        if video.shape[1] not in (shape.num_frames, shape.tubelet_size):
            raise ValueError(
                f"this tower takes {shape.num_frames} frames (an image: {shape.tubelet_size}), got {video.shape[1]}; "
                "another number of frames needs its position table resized (ivcore.models.position_embedding.resize)"
            )


def _keep(x: Tensor, drop: Tensor | None) -> Tensor:
    """[B, 1+N, C] without the tokens where `drop` [B, 1+N] is True -> [B, 1+K, C]."""
    if drop is None:
        return x
    if drop.dtype == torch.int64:
        return x.gather(1, drop[..., None].expand(-1, -1, x.shape[-1]))
    if drop.shape != x.shape[:2] or drop.dtype != torch.bool:
        raise ValueError(f"drop is bool {list(x.shape[:2])}, got {drop.dtype} {list(drop.shape)}")
    kept = (~drop).sum(dim=1)  # [B]
    if bool(drop[:, 0].any()) or bool((kept != kept[0]).any()):
        raise ValueError("drop must leave the class token, and as many tokens in each row as in the others")
    return x[~drop].unflatten(0, (len(x), -1))
