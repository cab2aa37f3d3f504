"""The settings that a recording may carry, so that one which is not understood is refused by its name.

Of each setting: the values that are built here; none named: any value, since it is read, or cannot change a number of
an unfused model in eval mode (dropout, checkpointing, how weights began, a teacher whose loss weighs nothing).
"""

import fnmatch
from collections.abc import Iterator
from typing import Any

from ivcore.errors import UserError
from ivcore.models.convert import LORA_SCALE
from ivcore.video.frames import MEAN, STD

Values = dict[str, tuple[Any, ...]]  # dotted name, * for any part of it -> the values that are built


def _any(names: str) -> Values:
    return dict.fromkeys(names.split(), ())


def _under(prefix: str, *tables: Values) -> Values:
    return {f"{prefix}.{name}": values for table in tables for name, values in table.items()}


VISION = {
    **_any("img_size patch_size tubelet_size num_frames embed_dim d_model depth num_heads mlp_ratio align_dim"),
    **_any("attn_pool_num_heads clip_embed_dim use_fused_mlp layerscale_no_force_fp32 sep_pos_embed"),
    **_any("sep_image_video_pos_embed clip_return_layer clip_student_return_interval clip_teacher_embed_dim"),
    **_any("clip_teacher_final_dim name pretrained init_values drop_path_rate head_drop_path_rate"),
    **_any("use_checkpoint checkpoint_num use_flash_attn use_fused_rmsnorm clip_teacher clip_input_resolution"),
    **_any("clip_teacher_return_interval video_mask_type image_mask_type video_mask_ratio image_mask_ratio"),
    "in_chans": (3,),
    "qkv_bias": (False,),
    "qk_normalization": (True,),
    "clip_norm_type": ("l2",),
    "keep_temporal": (False,),
    "only_mask": (False,),
}
BERT = {
    **_any("vocab_size hidden_size num_hidden_layers fusion_layer num_attention_heads intermediate_size"),
    **_any("max_position_embeddings type_vocab_size layer_norm_eps encoder_width architectures initializer_range"),
    **_any("attention_probs_dropout_prob hidden_dropout_prob pad_token_id"),
    "hidden_act": ("gelu",),
    "model_type": ("bert",),
    "cross_module": ("ca",),
}
LLAMA = {
    **_any("vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads max_position_embeddings"),
    **_any("rms_norm_eps initializer_range bos_token_id eos_token_id tie_word_embeddings use_cache"),
    "hidden_act": ("silu",),
    "pad_token_id": (0,),
}
MOBILECLIP = {
    **_any("embed_dim text_cfg.vocab_size text_cfg.dim text_cfg.ffn_multiplier_per_layer text_cfg.context_length"),
    **_any("text_cfg.n_heads_per_layer text_cfg.n_transformer_layers text_cfg.causal_masking image_cfg.*"),
    "text_cfg.norm_layer": ("layer_norm_fp32",),
    "text_cfg.model_name": ("base",),
}
S2 = {
    **_any("text_encoder.name text_encoder.d_model text_encoder.fusion_layer embed_dim temp"),
    **_under("vision_encoder", VISION),
    **_under("text_encoder.bert_config", BERT),
    "model_cls": ("InternVideo2_Stage2_visual",),
    "multimodal.enable": (True,),
    "freeze_vision": (False,),
    "freeze_text": (False,),
}
STAGE2 = {
    **_under("model", S2),
    **_any("gradient_checkpointing criterion.loss_weight.vtc criterion.loss_weight.vtm criterion.loss_weight.mlm"),
    **_any("criterion.loss_weight.mvm criterion.mlm_masking_prob criterion.distill_final_features"),
    **_any("criterion.clip_loss_ratio criterion.uta_image_only"),
    "criterion.loss_weight.uta": (0,),
    "criterion.vtm_hard_neg": (True,),
    "is_pretrain": (True,),
}
SMALL = _any("small_activation_rule note")
EVALUATION = {
    **_any("k_test eval_offload"),
    "eval_frame_ensemble": ("concat",),
    "eval_x_only": (False,),
}
TOPICS: dict[str, Values] = {
    "s2_vision": {**_under("model", VISION), **SMALL},
    "s2_text": {
        **_under("model", BERT),
        **SMALL,
        **_any("pad_token_id cls_token_id sep_token_id mask_token_id"),
    },
    "s2_full": STAGE2,
    "s2_retrieval": {
        **_under("model", S2),
        **_any("video_batch ground_truth.* itm_eval_inputs.* note cases.*.name cases.*.num_texts cases.*.ground_truth"),
        **_any("cases.*.num_prompts cases.*.evaluation.use_dsl_for_match evaluation_config.video_input.num_frames"),
        **_any("evaluation_config.distributed"),
        **_under("cases.*.evaluation", EVALUATION),
        **_under("evaluation_config.evaluation", EVALUATION),
        "evaluation_config.model.model_cls": ("InternVideo2_Stage2_visual",),
        "evaluation_config.use_half_precision": (False,),
        "evaluation_config.deep_fusion": (False,),
    },
    "clip_vision": {**_under("model", VISION), **SMALL},
    "clip_small": {**_under("vision", VISION), **_under("text_json", MOBILECLIP), **SMALL, **_any("temp temp_min")},
    "mobileclip_text": {**_under("variants.*", MOBILECLIP), **SMALL},
    "llama_text": {
        **_under("llama", LLAMA),
        **SMALL,
        **_any("clip_embed_dim lora.r lora.lora_alpha lora.lora_dropout lora.targets"),
        "lora.scaling": (LORA_SCALE,),
    },
    "s2_to_clip": {
        **_under("s2", STAGE2),
        **_under("clip.vision", VISION),
        **_under("clip.llama", LLAMA),
        **_under("cases.*.vision", VISION),
        **_any("clip.use_lora clip.temp clip.temp_min text_len interp_dim interpolation_cases.* sincos_cases"),
        **_any("cases.*.name cases.*.video cases.*.full cases.*.wrap cases.*.extra cases.*.s2_pos_embed"),
        **_any("cases.*.vision_ckpt_t_size"),
    },
    "data_io": {
        **_any("frame_cases.* transform_cases.* demo_cases.* pre_text_cases mask_cases tokenizers.* top note"),
        "normalize.mean": (list(MEAN),),
        "normalize.std": (list(STD),),
    },
}


def check(topic: str, config: dict[str, Any]) -> None:
    """Whether every setting of the recording is understood.

    Raises:
        UserError: naming those that are not, with their values.
    """
    wrong = []
    for name, value in _flat(config):
        values = next((v for pattern, v in TOPICS[topic].items() if fnmatch.fnmatchcase(name, pattern)), None)
        if values is None:
            wrong.append(f"{name} = {value!r} is not known here")
        elif values and value not in values:
            wrong.append(f"{name} = {value!r} is not built, only {', '.join(map(repr, values))}")
    if wrong:
        raise UserError("; ".join(wrong))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every setting; entries of a list are numbered."""
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list) and all(isinstance(entry, dict) for entry in value):  # none: nothing is set
        inner = list(enumerate(value))
    else:
        yield name, value
        return
    for key, entry in inner:
        yield from _flat(entry, f"{name}.{key}" if name else str(key))
